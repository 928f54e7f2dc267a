import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startApp, type TestApp } from '../support/app.js';
import { type Answer, callAs, type Person, personOf } from '../support/people.js';

let app: TestApp;
let owner: Person;
before(async () => {
  app = await startApp();
  owner = await personOf(app, 'broadcaster', false, 'Olga');
});
after(() => app.stop());

const refused = (answer: Answer, status: number, code: string) =>
  assert.deepEqual([answer.status, answer.body?.code], [status, code], answer.text);
const ok = (answer: Answer, status: number) => {
  assert.equal(answer.status, status, answer.text);
  return answer.body;
};

describe('members of a channel', () => {
  test('by account or by address; the owner hands it over and is a host from then on', async () => {
    const host = await personOf(app, 'listener', false, 'Hanna');
    const moderator = await personOf(app, 'listener', false, 'Mo');
    ok(await callAs(app, owner.token, 'POST', '/channels', { slug: 'radio', title: 'Radio', visibility: 'private' }), 201);
    refused(await callAs(app, host.token, 'GET', '/channels/radio'), 404, 'not_found');
    const added = ok(
      await callAs(app, owner.token, 'POST', '/channels/radio/members', { email: host.email.toUpperCase(), role: 'host' }),
      201,
    );
    assert.deepEqual(added, { accountId: host.id, role: 'host' });
    ok(await callAs(app, owner.token, 'PUT', `/channels/radio/members/${moderator.id}`, { role: 'moderator' }), 204);
    const list = ok(await callAs(app, moderator.token, 'GET', '/channels/radio/members'), 200);
    assert.deepEqual(
      list.items.map(({ name, role }: { name: string; role: string }) => [name, role]),
      [
        ['Olga', 'owner'],
        ['Hanna', 'host'],
        ['Mo', 'moderator'],
      ],
    );
    ok(await callAs(app, host.token, 'POST', '/channels/radio/stream-key'), 201);
    refused(await callAs(app, moderator.token, 'POST', '/channels/radio/stream-key'), 403, 'forbidden');
    refused(await callAs(app, host.token, 'PUT', `/channels/radio/members/${host.id}`, { role: 'owner' }), 403, 'forbidden');
    refused(await callAs(app, owner.token, 'PUT', `/channels/radio/members/${owner.id}`, { role: 'host' }), 409, 'conflict');

    ok(await callAs(app, owner.token, 'PUT', `/channels/radio/members/${host.id}`, { role: 'owner' }), 204);
    refused(await callAs(app, owner.token, 'PATCH', '/channels/radio', { title: 'x' }), 403, 'forbidden');
    ok(await callAs(app, owner.token, 'POST', '/channels/radio/stream-key'), 201);
    ok(await callAs(app, host.token, 'PATCH', '/channels/radio', { title: 'Hers' }), 200);
    ok(await callAs(app, host.token, 'DELETE', `/channels/radio/members/${owner.id}`), 204);
    refused(await callAs(app, owner.token, 'GET', '/channels/radio'), 404, 'not_found');
    refused(await callAs(app, host.token, 'DELETE', `/channels/radio/members/${host.id}`), 404, 'not_found');
  });

  test('of two who hand it over at once one is told that it is another’s', async () => {
    const people = await Promise.all(['A', 'B'].map((name) => personOf(app, 'listener', false, name)));
    ok(await callAs(app, owner.token, 'POST', '/channels', { slug: 'handed' }), 201);
    const channel = (await app.channels.get('handed'))!;
    const answers = await Promise.allSettled(people.map(({ id }) => app.access.members.set(channel, id, 'owner')));
    assert.deepEqual(answers.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
    const { items } = (await callAs(app, app.token, 'GET', '/channels/handed/members')).body;
    assert.deepEqual(
      items.map(({ role }: { role: string }) => role),
      ['owner', 'host'],
    );
  });

  test('there is no such account; an address that nobody has; and those who are tried out are counted', async () => {
    ok(await callAs(app, owner.token, 'POST', '/channels', { slug: 'probing' }), 201);
    refused(
      await callAs(app, owner.token, 'PUT', '/channels/probing/members/00000000-0000-4000-8000-000000000000', { role: 'host' }),
      404,
      'not_found',
    );
    refused(
      await callAs(app, owner.token, 'POST', '/channels/probing/members', { email: 'nobody@example.org', role: 'host' }),
      404,
      'not_found',
    );
    const standing = await app.access.limits.peek('member-email', `account:${owner.id}`);
    assert.ok(standing.remaining < standing.points);
    // Keys of the account have no limit of their own.
    const key = await app.access.apiKeys.create(owner.id, {
      name: 'k',
      scopes: ['channels:write'],
      expiresAtMs: undefined,
      secondFactor: false,
    });
    await callAs(app, key.secret, 'POST', '/channels/probing/members', { email: 'nobody@example.org', role: 'host' });
    assert.equal((await app.access.limits.peek('member-email', `account:${owner.id}`)).remaining, standing.remaining - 1);
  });

  test('lists go page by page, mine as well', async () => {
    const many = await personOf(app, 'broadcaster', false, 'Many');
    for (let i = 0; i < 5; i++) {
      ok(await callAs(app, many.token, 'POST', '/channels', { slug: `many-${i}` }), 201);
      ok(
        await callAs(
          app,
          many.token,
          'PUT',
          `/channels/many-0/members/${(await personOf(app, 'listener', false, i % 2 ? 'Same' : `P${i}`)).id}`,
          { role: 'host' },
        ),
        204,
      );
    }
    const all = async (path: string) => {
      // biome-ignore lint/suspicious/noExplicitAny: items of two kinds.
      const items: any[] = [];
      for (let next: string | null = ''; next !== null; ) {
        const page: { items: unknown[]; next: string | null } = ok(
          await callAs(app, many.token, 'GET', `${path}?limit=2${next && `&cursor=${next}`}`),
          200,
        );
        items.push(...page.items);
        next = page.next;
      }
      return items;
    };
    const members = await all('/channels/many-0/members');
    assert.deepEqual(
      members.map(({ name }) => name),
      ['Many', 'P0', 'P2', 'P4', 'Same', 'Same'],
    );
    assert.equal(new Set(members.map(({ accountId }) => accountId)).size, 6);
    const mine = await all('/me/channels');
    assert.deepEqual(
      mine.map(({ slug, role }) => [slug, role]),
      [0, 1, 2, 3, 4].map((i) => [`many-${i}`, 'owner']),
    );
    assert.equal(mine[0].state, 'offline');
    refused(
      await callAs(app, many.token, 'GET', `/me/channels?cursor=${Buffer.from('["a\\u0000"]').toString('base64url')}`),
      400,
      'bad_request',
    );
  });
});

describe('API keys', () => {
  test('made, used, seen, deleted; never by a key', async () => {
    const made = ok(
      await callAs(app, owner.token, 'POST', '/me/api-keys', {
        name: 'playout',
        scopes: ['channels:write', 'channels:read'],
        expiresAt: '2099-01-01T00:00:00+02:00',
      }),
      201,
    );
    assert.equal(made.apiKey.expiresAt, '2098-12-31T22:00:00.000Z');
    ok(await callAs(app, made.secret, 'POST', '/channels', { slug: 'by-key' }), 201);
    assert.equal((await app.channels.get('by-key'))?.ownerId, owner.id);
    refused(await callAs(app, made.secret, 'POST', '/channels/by-key/end'), 403, 'forbidden');
    for (const [method, path] of [
      ['GET', '/me/api-keys'],
      ['POST', '/me/api-keys'],
      ['GET', '/me'],
      ['POST', '/me/totp'],
    ] as const)
      refused(
        await callAs(app, made.secret, method, path, method === 'POST' ? { name: 'x', scopes: ['links'] } : undefined),
        403,
        'forbidden',
      );
    const [listed] = ok(await callAs(app, owner.token, 'GET', '/me/api-keys'), 200).items;
    assert.ok(listed.lastUsedAt);
    assert.deepEqual({ ...listed, lastUsedAt: null }, made.apiKey);
    assert.equal((await callAs(app, owner.token, 'GET', '/me/api-keys')).text.includes(made.secret), false);
    const audited = ok(await callAs(app, app.token, 'GET', '/audit?action=createApiKey'), 200).items[0];
    assert.equal(audited.target, `api-key:${made.apiKey.id}`);
    assert.equal(ok(await callAs(app, app.token, 'GET', `/audit?actor=api-key:${made.apiKey.id}`), 200).items[0].action, 'createChannel');
    refused(
      await callAs(app, (await personOf(app, 'listener', false)).token, 'DELETE', `/me/api-keys/${made.apiKey.id}`),
      404,
      'not_found',
    );
    ok(await callAs(app, owner.token, 'DELETE', `/me/api-keys/${made.apiKey.id}`), 204);
    refused(await callAs(app, made.secret, 'GET', '/channels'), 401, 'unauthorized');
  });

  test('what wants a second factor wants it of the one who makes the key', async () => {
    const weak = await personOf(app, 'admin', false);
    const strong = await personOf(app, 'admin', true);
    const keyOf = async ({ token }: Person) =>
      ok(await callAs(app, token, 'POST', '/me/api-keys', { name: 'k', scopes: ['admin'] }), 201).secret as string;
    refused(await callAs(app, await keyOf(weak), 'GET', '/audit'), 403, 'second_factor_missing');
    ok(await callAs(app, await keyOf(strong), 'GET', '/audit'), 200);
  });

  test('an administrator makes one for another account, and no key does', async () => {
    const admin = await personOf(app, 'admin', true);
    const body = { name: 'k', scopes: ['channels:write'] };
    const { secret } = ok(await callAs(app, admin.token, 'POST', `/accounts/${owner.id}/api-keys`, body), 201);
    ok(await callAs(app, secret, 'POST', '/channels', { slug: 'by-other-key' }), 201);
    assert.equal((await app.channels.get('by-other-key'))?.ownerId, owner.id);
    const adminKey = ok(await callAs(app, admin.token, 'POST', '/me/api-keys', { name: 'k', scopes: ['admin'] }), 201).secret;
    refused(await callAs(app, adminKey, 'POST', `/accounts/${admin.id}/api-keys`, body), 403, 'forbidden');
    refused(await callAs(app, owner.token, 'POST', `/accounts/${owner.id}/api-keys`, body), 403, 'forbidden');
    refused(await callAs(app, app.token, 'POST', `/accounts/${owner.id}/api-keys`, { ...body, scopes: ['admin'] }), 400, 'bad_request');
  });
});

describe('the audit log', () => {
  test('is listed by pages and filters, for administrators', async () => {
    const items: { id: number; action: string; at: string }[] = [];
    for (let next: string | null = ''; next !== null; ) {
      const page: { items: typeof items; next: string | null } = ok(
        await callAs(app, app.token, 'GET', `/audit?action=createChannel&limit=3${next && `&cursor=${next}`}`),
        200,
      );
      items.push(...page.items);
      next = page.next;
    }
    assert.ok(items.length > 5 && items.every(({ action }) => action === 'createChannel'));
    assert.deepEqual(
      items.map(({ id }) => id),
      [...new Set(items.map(({ id }) => id))].sort((a, b) => b - a),
    );
    const { at } = items[2]!;
    const since = ok(await callAs(app, app.token, 'GET', `/audit?action=createChannel&from=${encodeURIComponent(at)}`), 200).items;
    assert.ok(since.length >= 3 && since.length < items.length);
    for (const query of ['from=yesterday', 'actor=', 'unknown=1', 'to=2020-01-01', 'cursor=W10'])
      refused(await callAs(app, app.token, 'GET', `/audit?${query}`), 400, 'bad_request');
  });

  test('is exported a line an entry, whole, and says so itself', async () => {
    for (let i = 0; i < 1100; i++) await app.access.audit.record({ principal: 'system', action: 'filler', details: { i } });
    const answer = await callAs(app, app.token, 'GET', '/audit/export?action=filler');
    assert.equal(answer.status, 200);
    assert.match(answer.headers.get('content-type')!, /^application\/jsonl/);
    const lines = answer.text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    assert.deepEqual(
      lines.map(({ details }) => details.i),
      Array.from({ length: 1100 }, (_, i) => 1099 - i),
    );
    const operation = app.operations.find(({ id }) => id === 'exportAudit')!;
    operation.answer!.parse(lines[0]);
    const [entry] = ok(await callAs(app, app.token, 'GET', '/audit?action=exportAudit'), 200).items;
    assert.deepEqual(entry.details, { action: 'filler' });
    assert.equal((await callAs(app, app.token, 'GET', '/audit/export?action=nothing-like-it')).text, '');
    refused(await callAs(app, owner.token, 'GET', '/audit/export'), 403, 'forbidden');
  });

  test('an export that fails says so, or breaks off; one that nobody reads stops', async () => {
    const { list } = app.access.audit;
    let pages = 0;
    app.access.audit.list = async () => {
      throw new Error('secret reason');
    };
    const failed = await callAs(app, app.token, 'GET', '/audit/export');
    refused(failed, 500, 'internal');
    assert.doesNotMatch(failed.text, /secret reason/);
    const one = (await list.call(app.access.audit, { action: 'filler' }, 1))[0]!;
    app.access.audit.list = async (filter) => {
      if (filter.before !== undefined) throw new Error('secret reason');
      return Array.from({ length: 500 }, () => one);
    };
    await assert.rejects(callAs(app, app.token, 'GET', '/audit/export'), 'a half is not taken for the whole');
    app.access.audit.list = async () => {
      pages++;
      return Array.from({ length: 500 }, () => one);
    };
    const controller = new AbortController();
    const response = await fetch(`${app.url}/api/v1/audit/export`, {
      headers: { authorization: `Bearer ${app.token}` },
      signal: controller.signal,
    });
    await response.body!.getReader().read();
    controller.abort();
    // It ends without anybody's help: were it not so, the listener could not stop below.
    await new Promise((resolve) => setImmediate(resolve));
    assert.ok(pages < 200, `${pages} pages were read for somebody who has read one`);
    app.access.audit.list = list;
  });
});
