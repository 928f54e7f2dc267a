// The second table of docs/permissions.md, every cell by open sockets: what of a listener and of somebody in the chat ends with a right, and what goes on.
import assert from 'node:assert/strict';
import { createHmac, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { HEARING, HEARING_ACTS, type Hearing, type HearingAct } from '../../src/access/ended-rights.js';
import { countryReader } from '../../src/app/country.js';
import { Admissions } from '../../src/app/playback/admission.js';
import { Playback } from '../../src/app/playback/playback.js';
import { type ChatGateway, type ChatRooms, openChatRooms, openGateway } from '../../src/chat-service.js';
import { FakeClock, SystemClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { type AnyFrame, Client } from '../chat/chat-world.js';
import { startApp, type TestApp } from '../support/app.js';
import { type FakeChannel, FakeEdge, FakeStore } from '../support/fake-edge.js';
import { eventually } from '../support/process.js';

const SLUG = 'radio';
/** Five seconds are promised; the rest is for a machine that does other things. */
const ENDS_WITHIN_MS = 15_000;
const FROM_GERMANY = { 'x-country': 'DE' };
const jwtSecret = randomBytes(32).toString('base64url');
const clock = new SystemClock();

/** Something that somebody has. Both reject when it is otherwise. */
interface Held {
  ended(): Promise<unknown>;
  goesOn(): Promise<unknown>;
  leave(): void;
}

let app: TestApp;
const edge = new FakeEdge(new FakeClock(Date.now()));
const store = new FakeStore();
let playback: Playback;
let chat: ChatRooms;
let door: ChatGateway;
let chatServer: Server;
let radio: FakeChannel;
let aside: FakeChannel;
/** In each room, with the admin token. */
const speakers = new Map<string, Awaited<ReturnType<typeof member>>>();
let bystander: Held[];

const addressOf = () => '192.0.2.1';
const countryOf = countryReader({ header: 'x-country', trustProxyHops: 1, lookup: undefined, addressOf });

before(async () => {
  app = await startApp(
    {
      countryOf,
      links: { maxListenersPerStream: undefined, cloudFront: undefined, countryOfAddress: undefined },
      playback: { handle: (req, res) => playback.handle(req, res) },
      live: {
        status: () => ({ state: 'live', listeners: 0, nowPlaying: undefined }),
        // `test/live/live-channels.test.ts` shows that a show ends with its channel, and leaves nothing to hear.
        async end(slug) {
          edge.remove(slug);
          return true;
        },
        nowPlaying: () => true,
      },
    },
    { jwtSecret },
  );
  const { access, database } = app;
  const { playbackLinks: links, playbackRules: rules } = access;
  const admissions = new Admissions({ links, rules, addressOf, countryOf });
  playback = new Playback({ edge, store, clock, log: silentLog, dvrWindowS: 7200, admissions, addressOf });
  const config = { maxMessageBytes: 8192, moderationEnabled: false, publicUrl: app.url, corsEnabled: false, allowedOrigins: [] };
  chat = await openChatRooms({ config, database, vault: access.vault, audit: access.audit, clock, log: silentLog });
  await chat.start();
  const limits = { maxConnections: 1000, maxPerAddress: undefined };
  door = openGateway({ config, chat, access: { ...access, database }, clock, log: silentLog, ...limits, addressOf, countryOf });
  chatServer = createServer((_req, res) => res.writeHead(426).end());
  chatServer.on('upgrade', (req: IncomingMessage, socket, head) => door.gateway.upgrade(req, socket, head));
  chatServer.listen(0, '127.0.0.1');
  await once(chatServer, 'listening');
  for (const slug of [SLUG, 'aside']) await api('POST', '/channels', { slug });
  // Long segments, for which a request waits for long.
  [radio, aside] = [edge.start(SLUG, { firstNumber: 100, segmentMs: 9600 }), edge.start('aside')];
  for (const channel of [radio, aside]) channel.segments(4);
  await record('kept', 10);
  await record('removed', 20);
  for (const slug of [SLUG, 'aside']) speakers.set(slug, await member(slug, app.token));
  bystander = await Promise.all([stream('/listen/aside.mp3', aside), member('aside', undefined)]);
});
after(async () => {
  playback.stop();
  await door.stop();
  await chat.stop();
  chatServer.closeAllConnections();
  chatServer.close();
  await app.stop();
});

// biome-ignore lint/suspicious/noExplicitAny: looked at member by member.
async function api(method: string, path: string, body?: unknown, token = app.token): Promise<any> {
  const response = await fetch(`${app.url}/api/v1${path}`, {
    method,
    headers: { ...FROM_GERMANY, authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  assert.ok(response.ok, `${method} ${path}: ${response.status} ${text}`);
  return text === '' ? undefined : JSON.parse(text);
}

/** A recording of the channel, as `Recordings` writes it. */
async function record(id: string, firstNumber: number): Promise<void> {
  const { id: channelId } = (await app.channels.get(SLUG))!;
  await app.broadcasts.insert({ id, channelId, title: id, recording: true, startedAtMs: Date.now(), firstNumber });
  await app.broadcasts.end(id, { endedAtMs: Date.now(), durationMs: 4, lastNumber: firstNumber + 1 });
  const put = (key: string, text: string) => store.put(key, Buffer.from(text));
  const segment = (number: number) => `live/${SLUG}/aac-128/${id}r-${number}.m4s`;
  const segments = [segment(firstNumber), segment(firstNumber + 1)];
  for (const key of segments) await put(key, `${key} of ${id}`);
  await put(`vod/${id}/aac-128/index.m3u8`, `#EXTM3U\n${segments.map((key) => `#EXTINF:1.92,\n../../../${key}\n`).join('')}`);
}

const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
function gatewayToken(sub: string): string {
  const exp = Math.floor(Date.now() / 1000) + 3600;
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ iss: 'gateway', aud: 'veza', sub, name: sub, role: 'listener', exp })}`;
  return `${signed}.${createHmac('sha256', jwtSecret).update(signed).digest('base64url')}`;
}

const statusOf = async (path: string): Promise<number> => {
  const response = await fetch(`${app.url}${path}`, { headers: FROM_GERMANY });
  await response.body?.cancel();
  return response.status;
};

async function stream(path: string, channel: FakeChannel): Promise<Held> {
  const sent = request(`${app.url}${path}`, { headers: FROM_GERMANY, agent: false }).end();
  const [res] = await once(sent, 'response');
  assert.equal(res.statusCode, 200, path);
  let [bytes, isClosed] = [0, false];
  res.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
  });
  res.on('error', () => undefined);
  res.on('close', () => {
    isClosed = true;
  });
  return {
    ended: () => eventually(`${path} ends`, () => isClosed || undefined, ENDS_WITHIN_MS),
    async goesOn() {
      const before = bytes;
      channel.segments(1);
      await eventually(`${path} goes on`, () => (isClosed || bytes > before ? true : undefined));
      assert.equal(isClosed, false, path);
    },
    leave: () => sent.destroy(),
  };
}

/** A request for the next segment, which is answered when it is there. */
async function waiting(prefix: string): Promise<Held> {
  const path = `${prefix}/live/${SLUG}/aac-128/index.m3u8?_HLS_msn=${radio.number}`;
  const before = playback.counters.waiting;
  const status = statusOf(path);
  status.catch(() => undefined);
  await eventually('it waits', () => playback.counters.waiting > before || undefined);
  return {
    ended: async () => assert.notEqual(await status, 200, path),
    goesOn: async () => assert.equal(await status, 200, path),
    leave: () => undefined,
  };
}

/** A playlist, and a segment that it lists. */
async function next(playlist: string): Promise<Held> {
  const response = await fetch(`${app.url}${playlist}`, { headers: FROM_GERMANY });
  assert.equal(response.status, 200, playlist);
  const segments = (await response.text()).split('\n').filter((line) => /^[^#\s]/.test(line));
  const paths = [playlist, new URL(segments.at(-1)!, response.url).pathname];
  const both = async () => assert.deepEqual(await Promise.all(paths.map(statusOf)), [200, 200], playlist);
  await both();
  return {
    async ended() {
      for (const path of paths)
        await eventually(`${path} is refused`, async () => ((await statusOf(path)) === 200 ? undefined : true), ENDS_WITHIN_MS);
    },
    goesOn: both,
    leave: () => undefined,
  };
}

async function member(room: string, token: string | undefined, link?: string): Promise<Held & { client: Client; roomId: string }> {
  const client = new Client(`ws://127.0.0.1:${(chatServer.address() as AddressInfo).port}/chat`);
  await client.opened;
  client.send({ t: 'hello', ...(token !== undefined && { token }) });
  await client.next('welcome');
  // What the test before has given back (a channel made public again) reaches the chat a moment later.
  const joined = await eventually(`${room} is joined`, async () => {
    const answer: AnyFrame = await client.ask({ t: 'join', id: 'join', room, ...(link !== undefined && { link }) });
    return answer.t === 'joined' && answer;
  });
  const isOut = () => client.socket.readyState !== client.socket.OPEN || client.frames.some(({ t }: AnyFrame) => t === 'left');
  return {
    client,
    roomId: joined.room,
    ended: () => eventually(`the connection leaves ${room}`, () => isOut() || undefined, ENDS_WITHIN_MS),
    async goesOn() {
      const mid = await say(speakers.get(room)!);
      await eventually(`a member of ${room} reads`, () => client.frames.some((frame) => frame.mid === mid) || undefined);
      assert.equal(isOut(), false, 'they are in the room');
    },
    leave: () => client.socket.terminate(),
  };
}

let said = 0;
async function say({ client, roomId }: { client: Client; roomId: string }): Promise<string> {
  const key = `said-${said++}`;
  const answer = await client.ask({ t: 'pub', id: key, room: roomId, key, body: { text: key } });
  assert.equal(answer.t, 'ack', JSON.stringify(answer));
  return answer.mid;
}

/** What a moderator asks for. */
async function moderate(frame: object): Promise<void> {
  const { client, roomId } = speakers.get(SLUG)!;
  const answer = await client.ask({ t: 'mod', id: `mod-${said++}`, room: roomId, ...frame });
  assert.notEqual(answer.t, 'error', JSON.stringify(answer));
}

/** An account that is a host of the channel: its id, and a token of its session. */
async function host(): Promise<{ id: string; token: string }> {
  const [email, password] = [`${randomBytes(4).toString('hex')}@radio.example`, 'three quiet herons'];
  const { account, link } = await api('POST', '/accounts', { email, name: 'H', role: 'broadcaster' });
  await api('POST', '/auth/reset', { token: /token=([\w-]+)/.exec(link)![1], newPassword: password });
  await api('PUT', `/channels/${SLUG}/members/${account.id}`, { role: 'host' });
  return { id: account.id, token: (await api('POST', '/auth/login', { email, password })).accessToken };
}

interface Somebody {
  readonly subject: string;
  readonly maker: { readonly id: string; readonly token: string } | undefined;
  readonly asset: string;
  readonly held: ReadonlyMap<Hearing, Held>;
}

const patch = (changes: object) => api('PATCH', `/channels/${SLUG}`, changes);
const DO: Record<HearingAct, { act(of: Somebody): Promise<unknown>; undo?(of: Somebody): Promise<unknown> }> = {
  banFromRoom: { act: ({ subject }) => moderate({ action: 'ban', user: `gateway:${subject}` }) },
  timeOut: {
    async act({ subject, held }) {
      await moderate({ action: 'timeout', user: `gateway:${subject}`, seconds: 600 });
      await assert.rejects(say(held.get('subject') as Awaited<ReturnType<typeof member>>), /timeout/);
    },
  },
  restrict: { act: () => patch({ countriesDenied: ['DE'] }), undo: () => patch({ countriesDenied: null }) },
  makeRecordingPrivate: {
    act: ({ asset }) => api('PATCH', `/assets/${asset}`, { visibility: 'private' }),
    undo: ({ asset }) => api('PATCH', `/assets/${asset}`, { visibility: null }),
  },
  banMaker: { act: ({ maker }) => api('POST', `/accounts/${maker!.id}/ban`, {}) },
  makePrivate: { act: () => patch({ visibility: 'private' }) },
  replaceKeys: {
    async act() {
      for (let n = 0; n < 2; n++) await api('POST', '/service/playback-keys', { signsInS: 0 });
    },
    undo: () => patch({ visibility: 'public' }),
  },
  deleteRecording: { act: ({ asset }) => api('DELETE', `/assets/${asset}`) },
  deleteChannel: { act: () => api('DELETE', `/channels/${SLUG}`) },
};

let subjects = 0;
for (const [name, { text, ends, none }] of Object.entries(HEARING_ACTS) as [
  HearingAct,
  { text: string; ends: readonly Hearing[]; none: readonly Hearing[] },
][]) {
  test(`${text}: what is to end ends, and the rest goes on`, { timeout: 60_000 }, async () => {
    const asset = name === 'deleteRecording' ? 'removed' : 'kept';
    const maker = name === 'banMaker' ? await host() : undefined;
    const linkTo = async (path: string): Promise<string> => (await api('POST', `${path}/links`, {}, maker?.token)).token;
    const [link, assetLink] = [await linkTo(`/channels/${SLUG}`), await linkTo(`/assets/${asset}`)];
    const subject = `subject-${subjects++}`;
    const [live, vod] = [`/live/${SLUG}/aac-128/index.m3u8`, `/vod/${asset}/aac-128/index.m3u8`];
    const open: Record<Hearing, () => Promise<Held>> = {
      stream: () => stream(`/listen/${SLUG}.mp3`, radio),
      next: () => next(live),
      recording: () => next(vod),
      guest: () => member(SLUG, undefined),
      async subject() {
        const made = await member(SLUG, gatewayToken(subject));
        await say(made);
        return made;
      },
      linkStream: () => stream(`/t/${link}/listen/${SLUG}.mp3`, radio),
      linkNext: () => next(`/t/${link}${live}`),
      linkRecording: () => next(`/t/${assetLink}${vod}`),
      linkGuest: () => member(SLUG, undefined, link),
      waiting: () => waiting(''),
      linkWaiting: () => waiting(`/t/${link}`),
    };
    const held = new Map<Hearing, Held>();
    // Those that wait come last, so that they wait still when the right ends.
    for (const what of Object.keys(open) as Hearing[]) if (!none.includes(what)) held.set(what, await open[what]());
    const somebody = { subject, maker, asset, held };
    await DO[name].act(somebody);
    const isWaiter = (what: Hearing) => what === 'waiting' || what === 'linkWaiting';
    const check = async ([what, one]: readonly [Hearing, Held]) => {
      const isEnd = ends.includes(what);
      await (isEnd ? one.ended() : one.goesOn()).catch((cause) => {
        throw new Error(`${HEARING[what]}: ${isEnd ? 'it is to end' : 'it is to go on'}`, { cause });
      });
    };
    const are = (of: (what: Hearing) => boolean) => [...held].filter(([what]) => of(what));
    await Promise.all(are((what) => ends.includes(what) && !isWaiter(what)).map(check));
    for (const one of are((what) => !ends.includes(what) && what !== 'stream' && what !== 'linkStream' && !isWaiter(what)))
      await check(one);
    // Those that wait are answered now, and streams go on: both by what is published.
    radio.segments(1);
    await Promise.all(are(isWaiter).map(check));
    for (const one of are((what) => !ends.includes(what) && (what === 'stream' || what === 'linkStream'))) await check(one);
    for (const one of bystander) await one.goesOn();
    for (const one of held.values()) one.leave();
    await DO[name].undo?.(somebody);
  });
}
