import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { ALL_EVENTS, TEST_EVENT } from '../../src/access/webhooks/webhook-events.js';
import { Receiver } from '../access/webhook-support.js';
import { startApp, type TestApp } from '../support/app.js';
import { freePorts } from '../support/free-port.js';
import { callAs, type Person, personOf } from '../support/people.js';

let app: TestApp;
let receiver: Receiver;
let owner: Person;
let stranger: Person;
let admin: Person;
before(async () => {
  app = await startApp({}, { webhookAllowedHosts: ['127.0.0.1'] });
  receiver = await Receiver.open();
  owner = await personOf(app, 'broadcaster', false);
  stranger = await personOf(app, 'broadcaster', false);
  admin = await personOf(app, 'admin', true);
  for (const slug of ['radio', 'other']) await callAs(app, owner.token, 'POST', '/channels', { slug });
});
after(async () => {
  await receiver.close();
  await app.stop();
});

/** Calls, and holds the answer against what the API says of itself. */
async function call(person: Person, method: string, path: string, body?: unknown) {
  const answer = await callAs(app, person.token, method, path, body);
  const operation = app.operations.find(
    (one) => one.method === method.toLowerCase() && new RegExp(`^${one.path.replaceAll(/\{\w+\}/g, '[^/]+')}$`).test(path.split('?')[0]!),
  )!;
  if (answer.status < 400) {
    assert.equal(answer.status, operation.status);
    operation.answer?.parse(answer.body);
  }
  return answer;
}

test('a webhook of a channel, from its making to its end', async () => {
  const root = '/channels/radio/webhooks';
  const made = await call(owner, 'POST', root, { url: receiver.url('/hook?key=hush'), events: ['channel.on_air', 'channel.on_air'] });
  assert.match(made.body.secret, /^whsec_/);
  const { id } = made.body.webhook;
  assert.deepEqual(made.body.webhook.events, ['channel.on_air']);
  assert.deepEqual((await call(owner, 'GET', root)).body, { items: [made.body.webhook], next: null });
  assert.deepEqual((await call(owner, 'GET', `${root}/${id}`)).body, made.body.webhook);

  const told = await call(owner, 'POST', `${root}/${id}/test`);
  assert.deepEqual([told.body.event, told.body.state, told.body.lastStatus], [TEST_EVENT, 'delivered', 204]);
  assert.equal(JSON.parse(receiver.received[0]!.body).channel.slug, 'radio');

  const channel = (await app.channels.get('radio'))!;
  for (let i = 0; i < 3; i++)
    await app.access.webhooks.emit('channel.on_air', channel, { broadcastId: `b${i}`, startedAt: '2030-01-01T00:00:00.000Z' });
  await receiver.has(4);
  await app.access.webhooks.settled();
  const found: string[] = [];
  for (let next: string | null = ''; next !== null; ) {
    const { body }: { body: { items: { id: string }[]; next: string | null } } = await call(
      owner,
      'GET',
      `${root}/${id}/deliveries?limit=2${next && `&cursor=${next}`}`,
    );
    found.push(...body.items.map((item) => item.id));
    next = body.next;
  }
  assert.deepEqual(found, receiver.ids().reverse());
  await call(owner, 'POST', `${root}/${id}/deliveries/${found[0]}/retry`);
  await receiver.has(5);
  assert.equal(receiver.ids()[4], found[0]);

  const changed = await call(owner, 'PATCH', `${root}/${id}`, { active: false, events: ['recording.ready'] });
  assert.deepEqual([changed.body.active, changed.body.events], [false, ['recording.ready']]);
  assert.equal((await call(owner, 'POST', `${root}/${id}/deliveries/${found[0]}/retry`)).body.code, 'conflict');
  const replaced = await call(owner, 'POST', `${root}/${id}/secret`, { overlapS: 0 });
  assert.notEqual(replaced.body.secret, made.body.secret);
  assert.equal((await call(owner, 'DELETE', `${root}/${id}`)).status, 204);
  assert.equal((await call(owner, 'DELETE', `${root}/${id}`)).status, 404);

  const { items } = (await callAs(app, app.token, 'GET', '/audit?channel=radio&limit=200')).body;
  const actions = items.map((item: { action: string }) => item.action);
  for (const action of [
    'createChannelWebhook',
    'updateChannelWebhook',
    'replaceChannelWebhookSecret',
    'testChannelWebhook',
    'deleteChannelWebhook',
  ])
    assert.ok(actions.includes(action), action);
  assert.doesNotMatch(JSON.stringify(items), /whsec_|hush/, 'no secret, and none that stands in an address');
});

test('whose webhook it is decides who may touch it, and where it is found', async () => {
  const url = receiver.url();
  const mine = (await call(owner, 'POST', '/channels/radio/webhooks', { url, events: ['channel.on_air'] })).body.webhook.id;
  const all = (await call(admin, 'POST', '/webhooks', { url, events: ['account.banned'] })).body.webhook.id;
  const paths = (root: string, id: string): [string, string][] => [
    ['GET', `${root}/${id}`],
    ['PATCH', `${root}/${id}`],
    ['GET', `${root}/${id}/deliveries`],
    ['POST', `${root}/${id}/test`],
    ['POST', `${root}/${id}/secret`],
    ['POST', `${root}/${id}/deliveries/${id}/retry`],
    ['DELETE', `${root}/${id}`],
  ];
  for (const [method, path] of paths('/channels/radio/webhooks', mine))
    assert.equal((await call(stranger, method, path)).status, 403, path);
  for (const [method, path] of paths('/webhooks', all)) assert.equal((await call(owner, method, path)).status, 403, path);
  // Found under another channel of one's own, or under the service, by nobody.
  for (const [method, path] of [...paths('/channels/other/webhooks', mine), ...paths('/channels/other/webhooks', all)])
    assert.equal((await call(owner, method, path)).body.code, 'not_found', path);
  for (const [method, path] of [...paths('/webhooks', mine), ...paths('/channels/radio/webhooks', all)])
    assert.equal((await call(admin, method, path)).body.code, 'not_found', path);
  assert.equal((await call(stranger, 'POST', '/channels/radio/webhooks', { url, events: ['channel.on_air'] })).status, 403);
  assert.equal((await call(owner, 'GET', '/webhooks')).status, 403);
  assert.equal((await call(admin, 'GET', `/channels/radio/webhooks/${mine}`)).status, 200);
});

test('what is typed is checked', async () => {
  const root = '/channels/other/webhooks';
  const good = { url: receiver.url(), events: ['channel.on_air'] };
  for (const body of [
    {},
    { url: good.url },
    { ...good, events: [] },
    { ...good, events: ['channel.on_air', 'nothing'] },
    { ...good, events: ['account.banned'] },
    { ...good, events: [TEST_EVENT] },
    { ...good, secret: 'whsec_mine' },
    { ...good, active: false },
    { ...good, url: 'http://169.254.169.254/latest/meta-data' },
    { ...good, url: 'http://localhost:8080/' },
    { ...good, url: 'http://[::1]:8080/' },
    { ...good, url: 'ftp://example.org/' },
    { ...good, url: `https://example.org/${'x'.repeat(2000)}` },
  ]) {
    const { status, body: problem } = await call(owner, 'POST', root, body);
    assert.equal(status, 400, JSON.stringify(body));
    assert.equal(problem.code, 'bad_request');
  }
  const inside = await call(owner, 'POST', root, { ...good, url: 'http://10.0.0.1/' });
  assert.match(inside.body.detail, /not in the public internet.*WEBHOOK_ALLOWED_HOSTS/);
  const { id } = (await call(owner, 'POST', root, good)).body.webhook;
  assert.equal((await call(owner, 'PATCH', `${root}/${id}`, { url: 'http://10.0.0.1/' })).status, 400);
  assert.equal((await call(owner, 'PATCH', `${root}/${id}`, { channelId: null })).status, 400);
  assert.equal((await call(owner, 'POST', `${root}/${id}/secret`, { overlapS: 86_401 })).status, 400);
  assert.equal((await call(owner, 'GET', `${root}/${id}/deliveries?cursor=x`)).status, 400);
  for (const wrong of ['1', `${id}x`, '%00', "';drop table webhooks"])
    assert.equal((await call(owner, 'GET', `${root}/${wrong}`)).status, 400, wrong);
});

test('a ban is told, in the transaction that bans', async () => {
  const { body } = await call(admin, 'POST', '/webhooks', { url: receiver.url('/bans'), events: ['account.banned'] });
  const isBan = ({ path }: { path: string }) => path === '/bans';
  assert.ok((await callAs(app, admin.token, 'POST', `/accounts/${stranger.id}/ban`, { reason: 'spam' })).status < 300);
  while (!receiver.received.some(isBan)) await receiver.has(receiver.received.length + 1);
  const banned = receiver.received.find(isBan)!;
  assert.deepEqual(JSON.parse(banned.body).data, { account: { id: stranger.id, name: 'broadcaster of the test' }, reason: 'spam' });
  await call(admin, 'DELETE', `/webhooks/${body.webhook.id}`);
});

test('docs/webhooks.md names the events that there are, and its receiver works', async () => {
  const text = await readFile('docs/webhooks.md', 'utf8');
  const documented = [...text.matchAll(/^\| `([\w.]+)` \|/gm)].map((match) => match[1]);
  assert.deepEqual(documented, [...ALL_EVENTS]);
  assert.ok(text.includes(`\`${TEST_EVENT}\``));

  const code = /```js\n([\s\S]+?)```/.exec(text)![1]!;
  const dir = await mkdtemp(join(tmpdir(), 'veza-receiver-'));
  const [port] = await freePorts(1);
  const url = `http://127.0.0.1:${port}/hook`;
  const { webhook, secret } = (await call(owner, 'POST', '/channels/other/webhooks', { url, events: ['channel.on_air'] })).body;
  await writeFile(join(dir, 'receiver.mjs'), code);
  const child = spawn(process.execPath, [join(dir, 'receiver.mjs')], {
    env: { PATH: process.env.PATH, PORT: String(port), WEBHOOK_SECRET: secret },
  });
  let output = '';
  const lines = (count: number) =>
    new Promise<void>((resolve, reject) => {
      const look = () => {
        if (output.split('\n').length > count) resolve();
      };
      child.stdout.on('data', look);
      child.once('exit', () => reject(new Error(output)));
      look();
    });
  child.stdout.on('data', (chunk) => {
    output += chunk;
  });
  child.stderr.on('data', (chunk) => {
    output += chunk;
  });
  try {
    await lines(1);
    const root = `/channels/other/webhooks/${webhook.id}`;
    const told = await call(owner, 'POST', `${root}/test`);
    assert.equal(told.body.lastStatus, 204, output);
    await lines(2);
    assert.equal(JSON.parse(output.split('\n')[1]!).id, told.body.id);
    // The same once more is dropped; another secret is refused.
    await call(owner, 'POST', `${root}/deliveries/${told.body.id}/retry`);
    for (let state = ''; state !== 'delivered'; ) state = (await call(owner, 'GET', `${root}/deliveries`)).body.items[0].state;
    assert.equal(output.trimEnd().split('\n').length, 2);
    await call(owner, 'POST', `${root}/secret`, { overlapS: 3600 });
    assert.equal((await call(owner, 'POST', `${root}/test`)).body.lastStatus, 204, 'the old secret is good meanwhile');
    await call(owner, 'POST', `${root}/secret`, { overlapS: 0 });
    assert.equal((await call(owner, 'POST', `${root}/test`)).body.lastStatus, 401);
    const forged = await fetch(url, { method: 'POST', body: '{}', headers: { 'Veza-Timestamp': 'x', 'Veza-Signature': 'v1=,v1=00' } });
    assert.equal(forged.status, 401);
  } finally {
    const closed = new Promise((resolve) => child.once('close', resolve));
    child.removeAllListeners('exit').kill();
    await closed;
    await rm(dir, { recursive: true });
  }
});
