import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import type { Scope } from '../../src/access/roles.js';
import { startApp, type TestApp } from '../support/app.js';
import { type Answer, callAs, type Person, personOf } from '../support/people.js';

/** How far an API key gets: not out of its scopes, not past its end, not to a higher account. */
let app: TestApp;
let admin: Person;
before(async () => {
  app = await startApp();
  admin = await personOf(app, 'admin', true);
});
after(() => app.stop());

const refused = (answer: Answer, status: number, code: string) =>
  assert.deepEqual([answer.status, answer.body?.code], [status, code], answer.text);
const ok = (answer: Answer, status: number) => {
  assert.equal(answer.status, status, answer.text);
  return answer.body;
};
const keyOf = async ({ token }: Person, scopes: readonly Scope[]) =>
  ok(await callAs(app, token, 'POST', '/me/api-keys', { name: 'k', scopes }), 201).secret as string;
const roleOf = async (id: string) => (await app.access.accounts.get(id))?.role;

test('a key makes nobody more than a broadcaster, and does not get into an account that is more', async () => {
  const key = await keyOf(admin, ['admin']);
  const low = await personOf(app, 'listener', false);
  const high = await personOf(app, 'moderator', true);
  const peer = await personOf(app, 'admin', true);
  for (const role of ['moderator', 'admin']) {
    const invited = { email: `${role}@a.example`, name: 'x', role };
    refused(await callAs(app, key, 'POST', '/accounts', invited), 403, 'forbidden');
    assert.equal(await app.access.accounts.byEmail(invited.email), undefined);
    refused(await callAs(app, key, 'PATCH', `/accounts/${low.id}`, { role }), 403, 'forbidden');
    assert.equal(await roleOf(low.id), 'listener');
  }
  for (const { id } of [high, peer, admin]) {
    const before = await roleOf(id);
    refused(await callAs(app, key, 'PATCH', `/accounts/${id}`, { role: 'listener' }), 403, 'forbidden');
    refused(await callAs(app, key, 'POST', `/accounts/${id}/link`), 403, 'forbidden');
    refused(await callAs(app, key, 'DELETE', `/accounts/${id}/second-factor`), 403, 'forbidden');
    refused(await callAs(app, key, 'DELETE', `/accounts/${id}`), 403, 'forbidden');
    assert.equal(await roleOf(id), before);
    assert.equal((await app.access.sessions.list(id)).length, 1);
  }
  // What it is for.
  ok(await callAs(app, key, 'POST', '/accounts', { email: 'b@a.example', name: 'x', role: 'broadcaster' }), 201);
  ok(await callAs(app, key, 'PATCH', `/accounts/${low.id}`, { role: 'broadcaster' }), 200);
  ok(await callAs(app, key, 'POST', `/accounts/${low.id}/link`), 201);
  ok(await callAs(app, key, 'DELETE', `/accounts/${low.id}/second-factor`), 204);
  refused(await callAs(app, key, 'PATCH', `/accounts/${randomUUID()}`, { role: 'listener' }), 404, 'not_found');
  // A person may.
  ok(await callAs(app, admin.token, 'POST', `/accounts/${high.id}/link`), 201);
  ok(await callAs(app, admin.token, 'DELETE', `/accounts/${high.id}/second-factor`), 204);
  ok(await callAs(app, admin.token, 'PATCH', `/accounts/${high.id}`, { role: 'admin' }), 200);
});

test('channels are deleted with their account only by a key that may delete channels', async () => {
  const owner = await personOf(app, 'broadcaster', false);
  ok(await callAs(app, owner.token, 'POST', '/channels', { slug: 'of-owner' }), 201);
  const path = `/accounts/${owner.id}?channels=delete`;
  refused(await callAs(app, await keyOf(admin, ['admin']), 'DELETE', path), 403, 'forbidden');
  assert.ok(await app.access.accounts.get(owner.id));
  ok(await callAs(app, await keyOf(admin, ['admin', 'channels:write']), 'DELETE', path), 204);
  assert.equal(await app.channels.get('of-owner'), undefined);
  const other = await personOf(app, 'broadcaster', false);
  ok(await callAs(app, await keyOf(admin, ['admin']), 'DELETE', `/accounts/${other.id}`), 204);
});

test('a key for another account is made from above, and has not shown a second factor', async () => {
  const peer = await personOf(app, 'admin', true);
  const moderator = await personOf(app, 'moderator', true);
  const body = { name: 'k', scopes: ['admin'] };
  const make = (token: string, id: string) => callAs(app, token, 'POST', `/accounts/${id}/api-keys`, body);
  refused(await make(admin.token, peer.id), 403, 'forbidden');
  refused(await make(admin.token, randomUUID()), 404, 'not_found');
  const { secret } = ok(await make(admin.token, moderator.id), 201);
  refused(await callAs(app, secret, 'GET', '/accounts'), 403, 'second_factor_missing');
  ok(await callAs(app, ok(await make(admin.token, admin.id), 201).secret, 'GET', '/audit'), 200);
  ok(await callAs(app, ok(await make(app.token, peer.id), 201).secret, 'GET', '/audit'), 200);
});

test('a key that was just used is nobody’s once its account is banned or deleted', async () => {
  for (const end of ['ban', 'delete'] as const) {
    const person = await personOf(app, 'broadcaster', false);
    const key = await keyOf(person, ['channels:write']);
    ok(await callAs(app, key, 'POST', '/channels', { slug: `before-${end}` }), 201);
    if (end === 'ban') ok(await callAs(app, admin.token, 'POST', `/accounts/${person.id}/ban`, {}), 200);
    else ok(await callAs(app, admin.token, 'DELETE', `/accounts/${person.id}`), 204);
    refused(await callAs(app, key, 'POST', '/channels', { slug: `after-${end}` }), 401, 'unauthorized');
    assert.equal(await app.channels.get(`after-${end}`), undefined);
  }
  // Another process has deleted it, and this one does not know yet.
  const settings = { title: 'x', visibility: 'public', recording: true } as const;
  await assert.rejects(app.channels.create('of-nobody', settings, randomUUID()), { code: 'unauthorized' });
});
