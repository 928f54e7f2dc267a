import assert from 'node:assert/strict';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { SignJWT } from 'jose';
import { permissionReference, SCOPES, type Scope } from '../../src/access/roles.js';
import type { Operation } from '../../src/app/api/openapi.js';
import type { Database } from '../../src/backing/database/database.js';
import { Broadcasts } from '../../src/library/broadcasts.js';
import { startApp, type TestApp } from '../support/app.js';
import { openTestDatabase } from '../support/database.js';
import { callAs, type Person, personOf, signedIn as signInAgain } from '../support/people.js';
import { UndoneDatabase } from '../support/undone.js';

/**
 * Every operation, with everybody, on a public and on a private channel. What is expected is written down here a second time, in letters, and
 * not asked of the code: B(roadcaster), M(oderator), A(dministrator) of the service; o(wner), h(ost), m(oderator) of the channel.
 */
type Letter = 'B' | 'M' | 'A' | 'o' | 'h' | 'm';
interface Row {
  /**
   * Who; or everybody, whoever may see the channel, whoever is signed in with a session; whoever may see the channel and is signed in, in any way;
   * who of those may write in its chat, too.
   */
  readonly who: readonly Letter[] | 'everybody' | 'sees' | 'session' | 'signed-in' | 'writes';
  readonly scope?: Scope;
  /** The status for those who may. */
  readonly then: number;
  readonly body?: unknown;
  /** Wants an account of this service. */
  readonly owned?: true;
  /** Replaces keys of processes, which nothing undoes: comes last. */
  readonly last?: true;
}
const everybody = (then: number, body?: unknown): Row => ({ who: 'everybody', then, body });
const sees = (then: number, body?: unknown): Row => ({ who: 'sees', then, body });
const signedIn = (then: number, body?: unknown): Row => ({ who: 'signed-in', then, body });
const writes = (then: number, body?: unknown): Row => ({ who: 'writes', then, body });
const moderates = (then: number, body?: unknown): Row => only('MAohm', 'moderate', then, body);
const session = (then: number, body?: unknown): Row => ({ who: 'session', then, body });
const only = (letters: string, scope: Scope, then: number, body?: unknown): Row => ({
  who: [...letters] as Letter[],
  scope,
  then,
  body,
});
const hook = { url: 'http://127.0.0.1/none', events: ['channel.on_air'] };

const TABLE: Readonly<Record<string, Row>> = {
  listChannels: everybody(200),
  createChannel: { ...only('BA', 'channels:write', 201, { slug: 'made-by-test' }), owned: true },
  getChannel: sees(200),
  updateChannel: only('Ao', 'channels:write', 200, { title: 'x' }),
  deleteChannel: only('Ao', 'channels:write', 204),
  getIngest: only('Aoh', 'channels:write', 200),
  rotateStreamKey: only('Aoh', 'channels:write', 201),
  endBroadcast: only('MAoh', 'broadcast', 409),
  setNowPlaying: only('Aoh', 'broadcast', 409, { title: 'x' }),
  listBroadcasts: sees(200),
  listAssets: everybody(200),
  getAsset: sees(200),
  updateAsset: only('Ao', 'channels:write', 200, { title: 'x' }),
  deleteAsset: only('Ao', 'channels:write', 204),
  issueChannelLink: only('Aoh', 'links', 201, {}),
  issueAssetLink: only('Aoh', 'links', 201, {}),
  playChannel: sees(200),
  playAsset: sees(200),
  listMembers: only('MAohm', 'channels:read', 200),
  setMember: only('Ao', 'channels:write', 204, { role: 'host' }),
  addMember: only('Ao', 'channels:write', 404, { email: 'nobody@example.org', role: 'host' }),
  removeMember: only('Ao', 'channels:write', 404),
  listChannelWebhooks: only('Ao', 'webhooks', 200),
  createChannelWebhook: only('Ao', 'webhooks', 201, hook),
  getChannelWebhook: only('Ao', 'webhooks', 200),
  updateChannelWebhook: only('Ao', 'webhooks', 200, { active: true }),
  deleteChannelWebhook: only('Ao', 'webhooks', 204),
  replaceChannelWebhookSecret: only('Ao', 'webhooks', 201, {}),
  testChannelWebhook: only('Ao', 'webhooks', 200),
  listChannelWebhookDeliveries: only('Ao', 'webhooks', 200),
  retryChannelWebhookDelivery: only('Ao', 'webhooks', 404),

  getRoom: sees(200),
  updateRoom: only('Aoh', 'moderate', 200, { slowS: 5 }),
  listRoomMessages: sees(200),
  postRoomMessage: writes(201, { text: 'hello', key: 'k' }),
  listRoomMembers: signedIn(200),
  exportRoom: only('Aoh', 'moderate', 200),
  getMyRoomStanding: signedIn(200),
  seeRoomWarning: signedIn(404),
  appealRoomBan: writes(404, { text: 'x' }),
  setRoomModes: moderates(200, { shield: true }),
  deleteRoomMessage: moderates(204),
  deleteRoomUserMessages: moderates(204),
  getRoomUser: moderates(200),
  warnRoomUser: moderates(204, { text: 'x' }),
  listRoomBans: moderates(200),
  banRoomUser: moderates(200, { reason: 'x' }),
  unbanRoomUser: moderates(404),
  listRoomTimeouts: moderates(200),
  timeOutRoomUser: moderates(200, { seconds: 60 }),
  endRoomTimeout: moderates(404),
  pinRoomMessage: moderates(200, { mid: 'from-the-target-123456' }),
  unpinRoomMessage: moderates(204),
  getRoomTerms: moderates(200),
  setRoomTerms: moderates(204, { blocked: ['x-ray'] }),
  tryRoomText: moderates(200, { text: 'x-ray' }),
  listHeldMessages: moderates(200),
  approveHeldMessage: moderates(404),
  denyHeldMessage: moderates(404, {}),
  listRoomAppeals: moderates(200),
  answerRoomAppeal: moderates(404, { accepted: true, answer: 'x' }),
  listRoomActs: moderates(200),

  listWebhooks: only('A', 'webhooks', 200),
  createWebhook: only('A', 'webhooks', 201, hook),
  getWebhook: only('A', 'webhooks', 200),
  updateWebhook: only('A', 'webhooks', 200, { active: true }),
  deleteWebhook: only('A', 'webhooks', 204),
  replaceWebhookSecret: only('A', 'webhooks', 201, {}),
  testWebhook: only('A', 'webhooks', 200),
  listWebhookDeliveries: only('A', 'webhooks', 200),
  retryWebhookDelivery: only('A', 'webhooks', 404),

  register: everybody(400, {}),
  confirmAddress: everybody(400, {}),
  signIn: everybody(400, {}),
  recoverPassword: everybody(400, {}),
  resetPassword: everybody(400, {}),
  refreshSession: everybody(400, {}),
  logout: everybody(400, { refreshToken: 5 }),
  beginPasskeySignIn: everybody(200),
  signInWithPasskey: everybody(400, {}),

  getMe: session(200),
  updateMe: session(200, { name: 'Another' }),
  proveMe: session(400, {}),
  changePassword: session(400, {}),
  deleteMe: session(400, {}),
  exportMe: session(200),
  exportMyChat: session(200),
  listMySessions: session(200),
  endMySessions: session(204),
  endMySession: session(404),
  beginTotp: session(200),
  confirmTotp: session(409, { code: '000000' }),
  removeTotp: session(400, {}),
  renewRecoveryCodes: session(400, {}),
  listPasskeys: session(200),
  beginPasskey: session(200),
  createPasskey: session(400, {}),
  deletePasskey: session(404),
  listApiKeys: session(200),
  createApiKey: session(201, { name: 'x', scopes: ['links'] }),
  deleteApiKey: session(404),
  listMyChannels: session(200),

  listAccounts: only('MA', 'admin', 200),
  getAccount: only('MA', 'admin', 200),
  banAccount: only('MA', 'admin', 200, { reason: 'x' }),
  unbanAccount: only('MA', 'admin', 200),
  createAccount: only('A', 'admin', 201, { email: 'invited@example.org', name: 'x' }),
  updateAccount: only('A', 'admin', 200, { role: 'broadcaster' }),
  deleteAccount: only('A', 'admin', 204),
  createAccountLink: only('A', 'admin', 201),
  createApiKeyFor: only('A', 'admin', 400, {}),
  removeSecondFactor: only('A', 'admin', 204),
  listAudit: only('A', 'admin', 200),
  exportAudit: only('A', 'admin', 200),
  listPlaybackKeys: only('A', 'admin', 200),
  replacePlaybackKey: { ...only('A', 'admin', 201, {}), last: true },
  exportPlaybackKeys: { ...only('A', 'admin', 200), last: true },
  rotateSigningKey: { ...only('A', 'admin', 201, {}), last: true },
  rotateEncryptionKey: { ...only('A', 'admin', 200), last: true },
};

interface Asking {
  readonly name: string;
  readonly kind: 'nobody' | 'session' | 'key' | 'gateway' | 'admin-token';
  /** What it is on the service, and what on the channel that is asked about. */
  readonly letters: readonly Letter[];
  readonly isProven: boolean;
  readonly scopes?: readonly Scope[];
  token(): Promise<string | undefined>;
  /** After what it did, its session may be over. */
  renew(): void;
}

/** What the operation is to answer, as `status` or `status code`. */
function expected(row: Row, asking: Asking, isPrivate: boolean | undefined): string {
  const { kind, letters, isProven, scopes } = asking;
  const has = (wanted: readonly Letter[], scope: Scope | undefined): 'yes' | 'no' | 'unproven' => {
    if (kind === 'admin-token') return 'yes';
    if (kind === 'nobody' || (scopes && scope && !scopes.includes(scope))) return 'no';
    const found = letters.filter((letter) => wanted.includes(letter));
    if (found.some((letter) => 'Bohm'.includes(letter))) return 'yes';
    return found.length === 0 ? 'no' : isProven ? 'yes' : 'unproven';
  };
  const isHidden = isPrivate === true && has(['M', 'A', 'o', 'h', 'm'], 'channels:read') !== 'yes';
  if (row.who === 'everybody') return `${row.then}`;
  if (row.who === 'sees') return isHidden ? '404 not_found' : `${row.then}`;
  if ((row.who === 'signed-in' || row.who === 'writes') && isHidden) return '404 not_found';
  if (kind === 'nobody') return '401 unauthorized';
  if (row.who === 'signed-in') return `${row.then}`;
  if (row.who === 'writes') return !scopes || scopes.includes('moderate') ? `${row.then}` : '403 forbidden';
  if (row.who === 'session') return kind === 'session' ? `${row.then}` : '403 forbidden';
  if (row.owned && kind === 'gateway') return '403 forbidden';
  const verdict = has(row.who, row.scope);
  if (verdict === 'yes') return `${row.then}`;
  if (isHidden) return '404 not_found';
  return verdict === 'unproven' ? '403 second_factor_missing' : '403 forbidden';
}

const GATEWAY_SECRET = 'a secret of the gateway and of us';

let plain: Database;
let database: UndoneDatabase;
let app: TestApp;
let receiver: Server;
let target: Person;
const everyone: Asking[] = [];
/** By channel, what stands in paths about it. */
const about: Record<string, Record<string, string>> = {};

before(async () => {
  plain = await openTestDatabase();
  database = new UndoneDatabase(plain);
  receiver = createServer((_req, res) => res.end());
  await new Promise<void>((resolve) => receiver.listen(0, '127.0.0.1', resolve));
  hook.url = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/`;
  app = await startApp(
    { broadcasts: new Broadcasts(database) },
    { database, webhookAllowedHosts: ['127.0.0.1'], jwtSecret: GATEWAY_SECRET },
  );
  await makeWorld();
});
after(async () => {
  await app.stop();
  await plain.stop();
  await new Promise((resolve) => receiver.close(resolve));
});

async function makeWorld(): Promise<void> {
  // `personOf` writes where the app reads.
  const world = { ...app, database } as TestApp;
  const person = (role: Parameters<typeof personOf>[1], isProven = false) => personOf(world, role, isProven);
  target = await person('listener');
  const members = { o: await person('listener'), h: await person('listener'), m: await person('listener') };
  const others = { o: await person('listener'), h: await person('listener'), m: await person('listener') };
  const unprovenHost = await person('moderator');
  const admin = await person('admin', true);
  for (const [slug, { o, h, m }] of Object.entries({
    public: members,
    private: members,
    'other-public': others,
    'other-private': others,
  })) {
    const visibility = slug.endsWith('private') ? 'private' : 'public';
    const { channel } = await app.access.channels.create(slug, { title: slug, visibility, recording: true }, o.id);
    await app.access.members.set(channel, h.id, 'host');
    await app.access.members.set(channel, m.id, 'moderator');
    if (o === members.o) await app.access.members.set(channel, unprovenHost.id, 'host');
    const asset = `recording-${slug}`;
    await app.broadcasts.insert({ id: asset, channelId: channel.id, title: 'x', recording: true, startedAtMs: 1e12, firstNumber: 0 });
    await app.broadcasts.end(asset, { endedAtMs: 1e12 + 9000, durationMs: 9000, lastNumber: 4 });
    const webhook = await callAs(app, app.token, 'POST', `/channels/${slug}/webhooks`, hook);
    await database.query(
      `insert into messages (room_id, "offset", epoch, type, mid, user_id, payload, created_at)
       select id, 1, 1, 'msg', 'from-the-target-123456', $2, $3, now() from rooms where channel_id = $1`,
      [channel.id, target.id, JSON.stringify({ user: { id: target.id, name: 'x', role: 'viewer' }, body: { text: 'x' } })],
    );
    const room = await app.chat.rooms.find(slug);
    about[slug] = { slug, asset, webhook: webhook.body.webhook.id, room: room!.id };
  }
  about.none = { webhook: (await callAs(app, app.token, 'POST', '/webhooks', hook)).body.webhook.id };

  const asking = (name: string, kind: Asking['kind'], letters: string, more: Partial<Asking>) =>
    everyone.push({
      name,
      kind,
      letters: [...letters] as Letter[],
      isProven: false,
      token: async () => undefined,
      renew: () => {},
      ...more,
    });
  const inSession = (name: string, of: Person, letters: string, isProven = false) => {
    let current: Person | undefined = of;
    asking(name, 'session', letters, {
      isProven,
      token: async () => {
        current ??= await signInAgain(app, of, isProven);
        return current.token;
      },
      renew: () => {
        current = undefined;
      },
    });
  };
  const withKey = async (name: string, of: Person, letters: string, scopes: readonly Scope[], isProven: boolean) => {
    // Not by the API, that would not give everybody every scope.
    const secret = `vza_${[...randomBytes(26)].map((byte) => '0123456789abcdefghjkmnpqrstvwxyz'[byte % 32]).join('')}`;
    await database.query(
      `insert into api_keys (id, account_id, name, hint, key_hash, scopes, second_factor) values ($1, $2, 'x', 'vza_', $3, $4, $5)`,
      [randomUUID(), of.id, createHash('sha256').update(secret).digest(), scopes, isProven],
    );
    asking(name, 'key', letters, { isProven, scopes, token: async () => secret });
  };
  asking('nobody', 'nobody', '', {});
  asking('admin token', 'admin-token', 'A', { isProven: true, token: async () => app.token });
  inSession('listener', await person('listener'), '');
  inSession('broadcaster', await person('broadcaster'), 'B');
  inSession('moderator, unproven', await person('moderator'), 'M');
  inSession('moderator', await person('moderator', true), 'M', true);
  inSession('administrator, unproven', await person('admin'), 'A');
  inSession('administrator', admin, 'A', true);
  inSession('owner', members.o, 'o');
  inSession('host', members.h, 'h');
  inSession('moderator of the channel', members.m, 'm');
  inSession('moderator, unproven, and host of the channel', unprovenHost, 'Mh');
  inSession('owner of another channel', others.o, '');
  inSession('host of another channel', others.h, '');
  inSession('moderator of another channel', others.m, '');
  // What a gateway says of its people counts for no more than a broadcaster unless it is configured.
  for (const [role, letters] of [
    ['listener', ''],
    ['broadcaster', 'B'],
    ['admin', 'B'],
  ] as const) {
    const token = await new SignJWT({ role, name: role, amr: ['pwd', 'otp', 'mfa'] })
      .setProtectedHeader({ alg: 'HS256' })
      .setIssuer('gateway')
      .setAudience('veza')
      .setSubject(role)
      .setExpirationTime('1h')
      .sign(new TextEncoder().encode(GATEWAY_SECRET));
    asking(`${role} of the gateway`, 'gateway', letters, { isProven: true, token: async () => token });
  }
  const all = Object.keys(SCOPES) as Scope[];
  for (const scope of all) {
    await withKey(`administrator's key for ${scope}`, admin, 'A', [scope], true);
    await withKey(`owner's key for ${scope}`, members.o, 'o', [scope], false);
  }
  await withKey('administrator’s key for all, unproven', admin, 'A', all, false);
  await withKey('listener’s key for all', await person('listener'), '', all, true);
  await withKey('other owner’s key for all', others.o, '', all, true);
}

/** The path with what stands in it for a channel. */
function pathOf(operation: Operation, of: Record<string, string>): string {
  const values: Record<string, string> = {
    slug: of.slug ?? '',
    accountId: target.id,
    userId: target.id,
    mid: 'from-the-target-123456',
    webhookId: of.webhook ?? '',
    deliveryId: randomUUID(),
    id: operation.path.startsWith('/assets') ? of.asset! : operation.path.startsWith('/accounts') ? target.id : randomUUID(),
  };
  return operation.path.replaceAll(/\{(\w+)\}/g, (_, name: string) => {
    assert.ok(values[name], `this test knows no {${name}} for ${operation.id}`);
    return values[name];
  });
}

const isAboutChannel = ({ path }: Operation) => path.includes('{slug}') || path.startsWith('/assets/{id}');

test('the table here has every operation, and none that is not there', () => {
  assert.deepEqual(Object.keys(TABLE).sort(), app.operations.map(({ id }) => id).sort());
});

test('every operation with everybody, on a public and a private channel', async (t) => {
  const wrong: string[] = [];
  let calls = 0;
  const ordered = [...app.operations].sort((a, b) => Number(TABLE[a.id]?.last ?? false) - Number(TABLE[b.id]?.last ?? false));
  for (const operation of ordered) {
    const row = TABLE[operation.id];
    if (!row) continue;
    // On a slow machine the calls take longer than a sign-in is fresh.
    await database.query('update sessions set created_at = now()');
    for (const name of isAboutChannel(operation) ? ['public', 'private'] : ['none']) {
      for (const asking of everyone) {
        const token = await asking.token();
        const isUndone = operation.method !== 'get' && !row.last;
        if (isUndone) await database.begin();
        const answer = await callAs(app, token, operation.method, pathOf(operation, about[name]!), row.body);
        calls++;
        if (isUndone) await database.undo();
        app.access.channels.changed();
        if (answer.status < 300) asking.renew();
        const wanted = expected(row, asking, isAboutChannel(operation) ? name === 'private' : undefined);
        const got = wanted.includes(' ') ? `${answer.status} ${answer.body?.code}` : `${answer.status}`;
        if (got !== wanted) wrong.push(`${operation.id} (${name}) by ${asking.name}: ${got}, not ${wanted}: ${answer.text.slice(0, 300)}`);
      }
    }
  }
  t.diagnostic(`${calls} calls of ${ordered.length} operations by ${everyone.length}`);
  assert.deepEqual(wrong, []);
  assert.ok(calls > 2500);
});

test('what is not one’s own is not there: ids of others’ channels, recordings, webhooks, keys, sessions, passkeys', async () => {
  const world = { ...app, database } as TestApp;
  const one = await personOf(world, 'broadcaster', false);
  const other = await personOf(world, 'broadcaster', false);
  const made = await callAs(app, other.token, 'POST', '/me/api-keys', { name: 'x', scopes: ['links'] });
  const mine = await callAs(app, one.token, 'POST', '/channels', { slug: 'mine' });
  assert.equal(mine.status, 201, mine.text);
  const hidden = about['other-private']!;
  const shown = about['other-public']!;
  const refused: [method: string, path: string, body: unknown, status: number][] = [
    ['DELETE', `/me/api-keys/${made.body.apiKey.id}`, undefined, 404],
    ['DELETE', `/me/sessions/${other.sessionId}`, undefined, 404],
    ['DELETE', `/me/passkeys/${randomBytes(16).toString('base64url')}`, undefined, 404],
    // By way of one's own channel.
    ['GET', `/channels/mine/webhooks/${hidden.webhook}`, undefined, 404],
    ['DELETE', `/channels/mine/webhooks/${shown.webhook}`, undefined, 404],
    ['PATCH', `/channels/mine/webhooks/${about.none!.webhook}`, { active: false }, 404],
    ['GET', `/channels/mine/webhooks/${shown.webhook}/deliveries`, undefined, 404],
    ['POST', `/channels/mine/webhooks/${shown.webhook}/secret`, {}, 404],
    ['POST', `/channels/mine/webhooks/${shown.webhook}/test`, undefined, 404],
    ['GET', `/webhooks/${about.none!.webhook}`, undefined, 403],
    ['DELETE', `/assets/${hidden.asset}`, undefined, 404],
    ['DELETE', `/assets/${shown.asset}`, undefined, 403],
    ['PATCH', `/assets/${shown.asset}`, { visibility: 'public' }, 403],
    ['POST', `/assets/${shown.asset}/links`, {}, 403],
    ['POST', `/assets/${hidden.asset}/links`, {}, 404],
    ['POST', `/assets/${hidden.asset}/play`, undefined, 404],
    ['PATCH', `/channels/${hidden.slug}`, { title: 'x' }, 404],
    ['PATCH', `/channels/${shown.slug}`, { title: 'x' }, 403],
    ['PUT', `/channels/${shown.slug}/members/${one.id}`, { role: 'owner' }, 403],
    ['POST', `/channels/${shown.slug}/members`, { email: one.email, role: 'owner' }, 403],
    ['DELETE', `/channels/${shown.slug}/members/${other.id}`, undefined, 403],
    ['GET', `/rooms/${hidden.slug}`, undefined, 404],
    ['GET', `/rooms/${hidden.room}`, undefined, 404],
    ['GET', `/rooms/${hidden.room}/messages`, undefined, 404],
    ['PATCH', `/rooms/${hidden.room}`, { slowS: 5 }, 404],
    ['GET', `/rooms/${hidden.room}/bans`, undefined, 404],
    ['PUT', `/rooms/${hidden.room}/bans/${other.id}`, {}, 404],
    ['GET', `/rooms/${shown.room}/export`, undefined, 403],
    ['PUT', `/rooms/${shown.slug}/bans/${other.id}`, {}, 403],
    ['DELETE', `/rooms/${shown.slug}/messages/from-the-target-123456`, undefined, 403],
    ['GET', `/rooms/${shown.slug}/held`, undefined, 403],
    ['DELETE', `/accounts/${other.id}`, undefined, 403],
    ['PATCH', `/accounts/${one.id}`, { role: 'admin' }, 403],
    ['POST', `/accounts/${other.id}/api-keys`, { name: 'x', scopes: ['links'] }, 403],
  ];
  for (const [method, path, body, status] of refused) {
    const answer = await callAs(app, one.token, method, path, body);
    assert.equal(answer.status, status, `${method} ${path}: ${answer.text}`);
  }
  // Nothing of it was done.
  assert.equal((await callAs(app, made.body.secret, 'GET', '/channels')).status, 200);
  assert.equal((await callAs(app, other.token, 'GET', '/me')).status, 200);
  for (const { slug, asset, webhook } of [hidden, shown]) {
    assert.equal((await callAs(app, app.token, 'GET', `/channels/${slug}/webhooks/${webhook}`)).status, 200);
    assert.equal((await callAs(app, app.token, 'GET', `/assets/${asset}`)).status, 200);
  }
});

test('nobody gives himself more than is given: members of a body that are not meant for him are refused', async () => {
  const world = { ...app, database } as TestApp;
  const one = await personOf(world, 'broadcaster', false);
  const tries: [method: string, path: string, body: object][] = [
    ['POST', '/auth/register', { email: 'x@example.org', password: 'a long enough sentence', name: 'x', role: 'admin' }],
    ['PATCH', '/me', { name: 'x', role: 'admin' }],
    ['PATCH', '/me', { name: 'x', email: 'y@example.org' }],
    ['POST', '/channels', { slug: 'assigned', ownerId: target.id }],
    ['POST', '/channels', { slug: 'assigned', streamKey: 'vz_00000000000000000000000000' }],
    ['POST', '/me/api-keys', { name: 'x', scopes: ['links'], secondFactor: true }],
    ['POST', '/me/api-keys', { name: 'x', scopes: ['links'], role: 'admin' }],
  ];
  for (const [method, path, body] of tries) {
    const answer = await callAs(app, one.token, method, path, body);
    assert.deepEqual([answer.status, answer.body?.code], [400, 'bad_request'], `${method} ${path}: ${answer.text}`);
  }
  assert.equal((await callAs(app, one.token, 'GET', '/me')).body.role, 'broadcaster');
});

test('docs/permissions.md is what the code says', async () => {
  assert.equal(
    await readFile('docs/permissions.md', 'utf8'),
    permissionReference(),
    'npm run -s veza -- permissions > docs/permissions.md',
  );
});
