import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { type IncomingMessage, request } from 'node:http';
import { after, before, test } from 'node:test';
import { countryReader } from '../../src/app/http/country.js';
import { Admissions } from '../../src/app/playback/admission.js';
import { Playback } from '../../src/app/playback/playback.js';
import type { PlaybackOptions } from '../../src/app/playback/playback-options.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { startApp, type TestApp } from '../support/app.js';
import { type FakeChannel, FakeEdge, FakeStore } from '../support/fake-edge.js';
import { personOf } from '../support/people.js';

const clock = new FakeClock();
const edge = new FakeEdge(clock);
const store = new FakeStore();
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const maxListenersPerStream = 3;

/** All that is logged. */
const lines: string[] = [];
const heard = (fields: unknown, message: unknown) => void lines.push(JSON.stringify([fields, message]));
const log = { ...silentLog, debug: heard, info: heard, warn: heard, error: heard } as typeof silentLog;

let app: TestApp;
let playback: Playback;
let secret: FakeChannel;
/** What a database of addresses would say. */
const places = new Map<string, string>([['203.0.113.9', 'DE']]);
const lookup = (address: string) => places.get(address);
const addressOf = (req: IncomingMessage) => String(req.headers['x-forwarded-for'] ?? '192.0.2.1');
const countryOf = countryReader({ header: 'x-country', trustProxyHops: 1, lookup, addressOf });

before(async () => {
  app = await startApp(
    {
      clock,
      log,
      countryOf,
      links: { maxListenersPerStream, cloudFront: { keyPairId: 'KEY', privateKey }, countryOfAddress: lookup },
      playback: { handle: (req, res) => playback.handle(req, res) },
    },
    { clock },
  );
  playback = makePlayback();
  for (const [slug, visibility] of [
    ['secret', 'private'],
    ['other', 'private'],
    ['radio', 'public'],
    ['empty', 'private'],
  ] as const)
    await call('POST', '/channels', { slug, title: slug, visibility });
  secret = edge.start('secret');
  secret.segments(12);
  secret.parts(2);
  edge.start('other').segments(3);
  edge.start('radio').segments(3);
});
after(async () => {
  playback.stop();
  await app.stop();
});

function makePlayback(more: Partial<PlaybackOptions> = {}): Playback {
  const { playbackLinks: links, playbackRules: rules } = app.access;
  const admissions = new Admissions({ links, rules, addressOf, countryOf });
  return new Playback({ edge, store, clock, log, dvrWindowS: 7200, admissions, addressOf, maxListenersPerStream, ...more });
}

interface Answer {
  status: number;
  headers: IncomingMessage['headers'];
  text: string;
  code: string | undefined;
}

/** As it is written: `fetch` would clean up the path. */
function get(path: string, headers: Record<string, string> = {}): Promise<Answer> {
  const { hostname, port } = new URL(app.url);
  return new Promise((resolve, reject) => {
    request({ hostname, port, path, headers, agent: false }, (res) => {
      const chunks: Buffer[] = [];
      res.on('data', (chunk: Buffer) => chunks.push(chunk));
      res.on('error', reject);
      res.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        const isProblem = res.headers['content-type'] === 'application/problem+json';
        resolve({ status: res.statusCode ?? 0, headers: res.headers, text, code: isProblem ? JSON.parse(text).code : undefined });
      });
    })
      .on('error', reject)
      .end();
  });
}

interface ApiAnswer {
  status: number;
  // biome-ignore lint/suspicious/noExplicitAny: looked at member by member.
  body: any;
}

async function call(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<ApiAnswer> {
  const response = await fetch(`${app.url}/api/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${app.token}`, 'content-type': 'application/json', ...headers },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  return { status: response.status, body: text === '' ? undefined : JSON.parse(text) };
}

/** A link's token; for a channel that may have as many listeners as it likes. */
async function linkTo(slug: string, more: object = {}): Promise<string> {
  await app.database.query('delete from playback_grants');
  const { status, body } = await call('POST', `/channels/${slug}/links`, more);
  assert.equal(status, 201, JSON.stringify(body));
  return body.token;
}

/** Every address in a manifest, as a player resolves it. */
function addressesIn(manifest: string, base: string): string[] {
  const found = [
    ...manifest.split('\n').filter((line) => /^[^#<\s]/.test(line)),
    ...[...manifest.matchAll(/URI="([^"]*)"/g)].map((match) => match[1] ?? ''),
    ...[...manifest.matchAll(/(?:media|initialization)="([^"]*)"/g)].map((match) => match[1] ?? ''),
    ...[...manifest.matchAll(/<(?:BaseURL|Location)[^>]*>([^<]*)</g)].map((match) => match[1] ?? ''),
  ];
  return found.map((address) => new URL(address.replaceAll('$', '%24'), `http://veza${base}`).href.replace('http://veza', ''));
}

const RECORDED = { from: 10, to: 13 };
/** A recording of four segments that are in the store, with its manifests as `Recordings` writes them. */
async function record(id: string, slug: string, visibility: string | null): Promise<void> {
  const channel = await app.channels.get(slug);
  const startedAtMs = clock.wallMs();
  await app.broadcasts.insert({ id, channelId: channel!.id, title: id, recording: true, startedAtMs, firstNumber: RECORDED.from });
  await app.broadcasts.end(id, { endedAtMs: startedAtMs + 4, durationMs: 4, lastNumber: RECORDED.to });
  const put = (key: string, text: string) => store.put(key, Buffer.from(text));
  let playlist = `#EXTM3U\n#EXT-X-MAP:URI="../../../live/${slug}/aac-128/${id}r-init.mp4"\n`;
  for (let number = RECORDED.from; number <= RECORDED.to; number++) {
    playlist += `#EXTINF:1.92,\n../../../live/${slug}/aac-128/${id}r-${number}.m4s\n`;
    await put(`live/${slug}/aac-128/${id}r-${number}.m4s`, `segment ${number} of ${id}`);
  }
  await put(`live/${slug}/aac-128/${id}r-14.m4s`, 'of the next show');
  await put(`live/${slug}/aac-128/${id}r-init.mp4`, `init of ${id}`);
  await put(`vod/${id}/aac-128/index.m3u8`, playlist);
  await put(`vod/${id}/master.m3u8`, '#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\naac-128/index.m3u8\n');
  await put(
    `vod/${id}/manifest.mpd`,
    `<MPD><SegmentTemplate media="../../live/${slug}/$RepresentationID$/${id}r-$Number$.m4s" initialization="../../live/${slug}/$RepresentationID$/${id}r-init.mp4"/></MPD>`,
  );
  if (visibility !== null) assert.equal((await call('PATCH', `/assets/${id}`, { visibility })).status, 200);
  await app.access.playbackRules.refresh();
}

test('a private channel is not there without a link, and plays with one', async () => {
  const nobody = await get('/live/nobody/master.m3u8');
  const plain = await get('/live/secret/master.m3u8');
  assert.deepEqual([plain.status, plain.text], [404, nobody.text], 'it looks like one that does not exist');
  const segment = secret.segmentPath('aac-128', 15);
  for (const path of ['/live/secret/aac-128/index.m3u8', '/live/secret/manifest.mpd', '/listen/secret.mp3', segment])
    assert.equal((await get(path)).status, 404, path);

  const token = await linkTo('secret');
  for (const path of [
    '/live/secret/master.m3u8',
    '/live/secret/opus.m3u8',
    '/live/secret/dvr.m3u8',
    '/live/secret/manifest.mpd',
    '/live/secret/aac-128/index.m3u8',
    '/live/secret/aac-128/index.m3u8?_HLS_msn=12&_HLS_part=0',
    '/live/secret/aac-128/dvr.m3u8',
    '/live/secret/mp3-128/index.m3u8',
    segment,
    secret.partPath('aac-128', 22, 0),
  ]) {
    const reply = await get(`/t/${token}${path}`);
    assert.equal(reply.status, 200, path);
    assert.match(reply.headers['cache-control'] ?? '', /^private, max-age=\d+/, `${path}: no shared cache keeps it`);
  }
  assert.equal((await get('/t/wrong/live/secret/master.m3u8')).code, 'forbidden');
  assert.equal((await get('/t/wrong/live/nobody/master.m3u8')).code, 'forbidden');
  assert.equal((await get('/t/wrong/live/radio/master.m3u8')).code, 'forbidden', 'a token that is given has to be good');
  assert.match((await get('/live/radio/master.m3u8')).headers['cache-control'] ?? '', /^public/);
});

test('every address in a manifest stays behind the token', async () => {
  const token = await linkTo('secret');
  await record('kept', 'secret', null);
  const vod = (await call('POST', '/assets/kept/links', {})).body.token;
  const seen: string[] = [];
  for (const [prefix, start] of [
    [`/t/${token}/`, `/t/${token}/live/secret/master.m3u8`],
    [`/t/${token}/`, `/t/${token}/live/secret/dvr.m3u8`],
    [`/t/${token}/`, `/t/${token}/live/secret/manifest.mpd`],
    [`/t/${vod}/`, `/t/${vod}/vod/kept/master.m3u8`],
    [`/t/${vod}/`, `/t/${vod}/vod/kept/manifest.mpd`],
  ] as const) {
    for (const todo = [start as string]; todo.length > 0; ) {
      const path = todo.pop()!;
      seen.push(path);
      const reply = await get(path);
      assert.equal(reply.status, 200, path);
      for (const address of addressesIn(reply.text, path)) {
        assert.ok(address.startsWith(prefix), `${path} lists ${address}`);
        if (/\.m3u8$/.test(address) && !seen.includes(address) && !todo.includes(address)) todo.push(address);
        // Only what can be had: a segment of a recording, an init segment; the hinted part of a live playlist would be waited for.
        if (/\/vod\/.*\.(?:m4s|mp4)$/.test(address) && !address.includes('%24')) assert.equal((await get(address)).status, 200, address);
      }
    }
  }
  assert.ok(
    seen.some((path) => path.endsWith('/opus-96/index.m3u8')),
    'rendition reports and variants are followed',
  );
  assert.equal((await get(`/t/${vod}/vod/kept/aac-128/keptr-11.m4s`)).text, 'segment 11 of kept');
});

test('tricks with the path open nothing', async () => {
  const token = await linkTo('other');
  assert.equal((await get(`/t/${token}/live/other/master.m3u8`)).status, 200);
  const segment = secret.segmentPath('aac-128', 15).slice(1);
  await record('closed', 'secret', null);
  for (const path of [
    `/t/${token}/live/secret/master.m3u8`,
    `/t/${token}/live/other/../secret/master.m3u8`,
    `/t/${token}/../live/secret/master.m3u8`,
    `/t/x/../live/secret/master.m3u8`,
    `/t/${token}/live/other/%2e%2e/secret/master.m3u8`,
    `/t/${token}/live/other%2f..%2fsecret/master.m3u8`,
    `/t/${token}/live/%73ecret/master.m3u8`,
    `/t/${token}/live/secret%2fmaster.m3u8`,
    `/t/${token}/live/other%252f..%252fsecret/master.m3u8`,
    `/t/${token}//live/secret/master.m3u8`,
    `/t//live/secret/master.m3u8`,
    `//t/${token}/live/secret/master.m3u8`,
    `//live/secret/master.m3u8`,
    `/live//secret/master.m3u8`,
    `/live/secret//master.m3u8`,
    `/live/./secret/master.m3u8`,
    `/live/SECRET/master.m3u8`,
    `/live/Secret/${segment.split('/').slice(2).join('/')}`,
    `/LIVE/secret/master.m3u8`,
    `/T/${token}/live/secret/master.m3u8`,
    `/t/${token}/LIVE/secret/master.m3u8`,
    `/t/${token}/t/${token}/live/secret/master.m3u8`,
    `/t/${token}`,
    `/t/${token}/`,
    `/t/`,
    `/t/${token}/time`,
    `/t/${'a'.repeat(7000)}/live/secret/master.m3u8`,
    `/t/${token}\0/live/secret/master.m3u8`.replace('\0', '%00'),
    `/t/${token};/live/secret/master.m3u8`,
    `/t/${token}/live/secret/master.m3u8?token=${token}`,
    `/t/${token}/${segment}`,
    `/t/${token}/vod/other/master.m3u8`,
    `/t/${token}/vod/closed/master.m3u8`,
    `/t/${token}/vod/closed/aac-128/closedr-11.m4s`,
    `/vod/closed/master.m3u8`,
    `/vod/closed/aac-128/closedr-11.m4s`,
    `/vod/CLOSED/master.m3u8`,
    `/vod//closed/master.m3u8`,
    `/live/secret/aac-128/closedr-11.m4s`,
    `/t/${token}/live/secret/aac-128/closedr-11.m4s`,
    `/t/${token}/listen/secret.mp3`,
    `/listen/secret.mp3?token=${token}`,
    `/listen/secret.mp3?token=`,
    `/listen/SECRET.mp3`,
    `/listen/%73ecret.mp3`,
  ]) {
    const { status, code, text } = await get(path);
    assert.ok(status === 403 || status === 404, `${path}: ${status}`);
    assert.ok(code === 'forbidden' || code === 'not_found', `${path}: ${code}`);
    assert.doesNotMatch(text, /EXTM3U|segment \d/, path);
  }
});

test('a token never reaches the log', async () => {
  const token = await linkTo('secret');
  const before = playback;
  lines.length = 0;
  playback = makePlayback({ edge: { view: () => assert.fail('broken'), channels: () => [] } });
  try {
    assert.equal((await get(`/t/${token}/live/secret/master.m3u8`)).status, 500);
    for (const path of ['', '/', '/nothing', '/../live/secret/master.m3u8', '/api/v1/channels']) await get(`/t/${token}${path}`);
    await get(`/listen/secret.mp3?token=${token}`);
    assert.equal((await call('GET', '/channels/secret')).status, 200);
  } finally {
    playback = before;
  }
  assert.ok(lines.some((line) => line.includes('playback request failed')) && lines.some((line) => line.includes('/channels/secret')));
  assert.ok(!lines.some((line) => line.includes(token)));
});

test('an expired link ends at the next playlist, and says so', async () => {
  const token = await linkTo('secret', { expiresInS: 60 });
  const path = `/t/${token}/live/secret/aac-128/index.m3u8`;
  const ear = await listenTo(`/t/${token}/listen/secret.mp3`);
  assert.equal((await get(path)).status, 200);
  clock.advance(60_000);
  const ended = await get(path);
  assert.equal(ended.status, 403);
  assert.equal(ended.code, 'forbidden');
  assert.match(ended.text, /expired/);
  assert.equal(ended.headers['access-control-allow-origin'], '*', 'a player may read it');
  await ear.ended;
});

/** An endless stream, until it ends. */
function listenTo(
  path: string,
  headers: Record<string, string> = {},
): Promise<{ status: number; ended: Promise<void>; leave: () => void }> {
  return new Promise((resolve, reject) => {
    const sent = request(`${app.url}${path}`, { headers, agent: false }, (res) => {
      res.resume();
      res.on('error', () => undefined);
      resolve({ status: res.statusCode ?? 0, ended: new Promise((done) => res.once('close', () => done())), leave: () => sent.destroy() });
    });
    sent.on('error', reject);
    sent.end();
  });
}

test('endless streams take the token in the path or behind the question mark, and end with the right to them', async () => {
  const token = await linkTo('secret');
  for (const path of [`/t/${token}/listen/secret.mp3`, `/listen/secret.aac?token=${token}`, `/listen/secret.opus?x=1&token=${token}`]) {
    const ear = await listenTo(path);
    assert.equal(ear.status, 200, path);
    ear.leave();
  }
  const cookie = { cookie: `a=b; veza_play_live_secret=${token}` };
  const byCookie = await listenTo('/listen/secret.mp3', cookie);
  assert.equal(byCookie.status, 200);

  // Who listens by no link to a channel that becomes private is listening no longer.
  const open = await listenTo('/listen/radio.mp3');
  assert.equal(open.status, 200);
  await call('PATCH', '/channels/radio', { visibility: 'private' });
  clock.advance(1000);
  await open.ended;
  assert.equal((await get('/live/radio/master.m3u8')).status, 404);
  await call('PATCH', '/channels/radio', { visibility: 'public' });
  assert.equal((await get('/live/radio/master.m3u8')).status, 200);

  await app.access.playbackKeys.replace(0);
  await app.access.playbackKeys.replace(0);
  clock.advance(1000);
  await byCookie.ended;
});

test('a cookie does what a token does, for its own channel alone', async () => {
  const { body } = await call('POST', '/channels/secret/links', { expiresInS: 600, listener: 'x' });
  const { cookie, token } = body;
  assert.deepEqual([cookie.name, cookie.value, cookie.path, cookie.maxAgeS], ['veza_play_live_secret', token, '/live/secret/', 600]);
  assert.equal(cookie.setCookie[0], `veza_play_live_secret=${token}; Path=/live/secret/; Max-Age=600; Secure; HttpOnly; SameSite=Lax`);
  assert.deepEqual(
    cookie.cloudFront.map((part: { name: string }) => part.name),
    ['CloudFront-Policy', 'CloudFront-Signature', 'CloudFront-Key-Pair-Id'],
  );
  assert.equal(cookie.setCookie.length, 4);
  const sent = { cookie: `theme=dark; veza_play_live_secret=${token}; z="1"` };
  const reply = await get('/live/secret/aac-128/index.m3u8', sent);
  assert.equal(reply.status, 200);
  assert.match(reply.headers['cache-control'] ?? '', /^private/, 'the address alone is not enough for a cache to give it out');
  assert.equal((await get('/live/other/master.m3u8', { cookie: `veza_play_live_other=${token}` })).code, 'forbidden');
  assert.equal((await get('/live/other/master.m3u8', sent)).code, 'not_found');
  assert.equal((await get('/live/radio/master.m3u8', { cookie: 'veza_play_live_radio=old' })).status, 200, 'none is needed there');
  for (const odd of ['veza_play_live_secret', '=', 'veza_play_live_secret=', `xveza_play_live_secret=${token}`, ';;;'])
    assert.notEqual((await get('/live/secret/master.m3u8', { cookie: odd })).status, 200, odd);
});

test('a link bound to an address is good from there alone', async () => {
  const token = await linkTo('secret', { bind: { address: '203.0.113.9' } });
  const path = `/t/${token}/live/secret/aac-128/index.m3u8`;
  assert.equal((await get(path, { 'x-forwarded-for': '203.0.113.9' })).status, 200);
  assert.equal((await get(path, { 'x-forwarded-for': '203.0.113.10' })).code, 'forbidden');
});

test('a private recording is closed by every address that its segments have', async () => {
  await record('mine', 'radio', 'private');
  const live = '/live/radio/aac-128/miner-11.m4s';
  for (const path of [
    '/vod/mine/master.m3u8',
    '/vod/mine/manifest.mpd',
    '/vod/mine/aac-128/index.m3u8',
    '/vod/mine/aac-128/miner-11.m4s',
    live,
  ])
    assert.equal((await get(path)).code, 'not_found', path);
  assert.equal((await get('/live/radio/aac-128/miner-14.m4s')).status, 200, 'the next show is not private');

  const token = (await call('POST', '/assets/mine/links', {})).body.token;
  assert.equal((await get(`/t/${token}/vod/mine/master.m3u8`)).status, 200);
  const playlist = await get(`/t/${token}/vod/mine/aac-128/index.m3u8`);
  assert.match(playlist.text, /^miner-11\.m4s$/m);
  assert.match(playlist.headers['cache-control'] ?? '', /^private/);
  assert.equal((await get(`/t/${token}/vod/mine/aac-128/miner-11.m4s`)).text, 'segment 11 of mine');
  assert.equal((await get(`/t/${token}/vod/mine/aac-128/miner-init.mp4`)).text, 'init of mine');
  assert.equal((await get(`/t/${token}/vod/mine/aac-128/miner-14.m4s`)).code, 'not_found', 'not of this show');
  assert.equal((await get(`/t/${token}${live}`)).code, 'forbidden', 'a link to a recording is none to its channel');
  assert.equal((await get(`/t/${token}/vod/kept/master.m3u8`)).code, 'forbidden');
  assert.equal((await get('/vod/mine/master.m3u8', { cookie: `veza_play_vod_mine=${token}` })).status, 200);

  await call('PATCH', '/assets/mine', { visibility: 'public' });
  assert.equal((await get(live)).status, 200);
  assert.match((await get('/vod/mine/aac-128/index.m3u8')).text, /^\.\.\/\.\.\/\.\.\/live/m);
  assert.equal((await get(`/t/${token}/vod/mine/aac-128/miner-11.m4s`)).status, 200, 'who has begun by a link goes on');
  const again = await call('PATCH', '/assets/mine', { visibility: null, title: 'Mine' });
  assert.deepEqual([again.body.visibility, again.body.title], ['public', 'Mine']);
});

test('a public recording of a private channel is open, and its channel is not', async () => {
  await record('opened', 'secret', 'public');
  const playlist = await get('/vod/opened/aac-128/index.m3u8');
  assert.match(playlist.text, /^openedr-11\.m4s$/m);
  assert.match(playlist.headers['cache-control'] ?? '', /^public/);
  assert.match((await get('/vod/opened/manifest.mpd')).text, /media="\$RepresentationID\$\/openedr-\$Number\$\.m4s"/);
  assert.equal((await get('/vod/opened/aac-128/openedr-11.m4s')).text, 'segment 11 of opened');
  assert.equal((await get('/live/secret/aac-128/openedr-11.m4s')).code, 'not_found');
});

test('a show that is on air can be rewound in; what has ended is closed though it is still in memory', async () => {
  await call('POST', '/channels', { slug: 'station' });
  const station = edge.start('station');
  station.segments(6);
  await record('morning', 'station', 'private');
  const path = station.segmentPath('aac-128', 11);
  assert.equal((await get(path)).status, 200, 'in the window of the show that goes on');
  station.end();
  assert.equal((await get(path)).code, 'not_found');
  assert.equal((await get(station.segmentPath('aac-128', 15))).status, 200, 'not in the recording');
});

test('what is deleted is silent at once', async () => {
  await record('brief', 'radio', null);
  assert.equal((await get('/vod/brief/master.m3u8')).status, 200);
  assert.equal((await call('DELETE', '/assets/brief')).status, 204);
  assert.equal((await get('/vod/brief/master.m3u8')).code, 'not_found');
});

test('a deleted recording is closed by every address that its segments have', async () => {
  await call('POST', '/channels', { slug: 'archive' });
  await call('POST', '/channels', { slug: 'shop' });
  await record('erased', 'archive', 'private');
  await record('withdrawn', 'shop', null);
  assert.equal((await get('/live/shop/aac-128/withdrawnr-11.m4s')).status, 200);
  for (const id of ['erased', 'withdrawn']) assert.equal((await call('DELETE', `/assets/${id}`)).status, 204);
  for (const path of ['/live/archive/aac-128/erasedr-11.m4s', '/live/shop/aac-128/withdrawnr-13.m4s', '/vod/erased/aac-128/erasedr-11.m4s'])
    assert.equal((await get(path)).code, 'not_found', path);
  assert.equal((await get('/live/archive/aac-128/erasedr-14.m4s')).status, 200, 'the next show is not deleted');

  const archive = edge.start('archive');
  archive.segments(6);
  const path = archive.segmentPath('aac-128', 11);
  assert.equal((await get(path)).status, 200, 'in the window of a show that goes on');
  archive.end();
  assert.equal((await get(path)).code, 'not_found');
});

test('what a deleted channel had is silent at once, by a link too; nobody gets what the link is to', async () => {
  const account = (await call('POST', '/accounts', { email: 'owner@radio.example', name: 'Owner', role: 'broadcaster' })).body.account;
  const settings = { title: 'Radio', visibility: 'private', recording: true } as const;
  await app.channels.create('leaving', settings);
  await app.channels.create('leaving-too', settings, account.id);
  for (const [slug, deletion] of [
    ['leaving', '/channels/leaving'],
    ['leaving-too', `/accounts/${account.id}?channels=delete`],
  ] as const) {
    const id = `of${slug.replaceAll('-', '')}`;
    await record(id, slug, null);
    const asset = (await call('POST', `/assets/${id}/links`, {})).body.token;
    const live = await linkTo(slug);
    const paths = [
      `/t/${asset}/vod/${id}/master.m3u8`,
      `/t/${asset}/vod/${id}/aac-128/${id}r-11.m4s`,
      `/t/${live}/live/${slug}/aac-128/${id}r-11.m4s`,
    ];
    for (const path of paths) assert.equal((await get(path)).status, 200, path);
    assert.equal((await call('DELETE', deletion)).status, 204);
    for (const path of [...paths, `/live/${slug}/aac-128/${id}r-11.m4s`]) assert.equal((await get(path)).code, 'not_found', path);
    for (const visibility of ['public', 'private']) {
      const again = await call('POST', '/channels', { slug, visibility });
      assert.deepEqual([again.status, again.body.code], [409, 'conflict'], 'the administrator neither');
    }
  }

  await call('POST', '/channels', { slug: 'open-once' });
  const token = await linkTo('open-once');
  await call('DELETE', '/channels/open-once');
  assert.equal((await call('POST', '/channels', { slug: 'open-once', visibility: 'private' })).body.code, 'conflict', token);
  await call('POST', '/channels', { slug: 'never-linked' });
  await call('DELETE', '/channels/never-linked');
  assert.equal((await call('POST', '/channels', { slug: 'never-linked', visibility: 'private' })).status, 201);
});

test('recordings that are not public are in no list for everybody', async () => {
  await record('listed', 'radio', null);
  await record('unseen', 'radio', 'unlisted');
  await record('denied', 'radio', 'private');
  const assets = async (path: string, headers?: Record<string, string>) =>
    (await call('GET', path, undefined, headers)).body.items.map(
      (item: { asset?: string; id: string }) => item.asset ?? (path === '/assets' ? item.id : null),
    );
  const anonymous = { authorization: '' };
  const shown = await assets('/channels/radio/broadcasts', anonymous);
  assert.deepEqual([shown.includes('listed'), shown.includes('unseen'), shown.includes('denied')], [true, false, false]);
  const own = await assets('/channels/radio/broadcasts');
  assert.deepEqual([own.includes('listed'), own.includes('unseen'), own.includes('denied')], [true, true, true]);
  const all = await assets('/assets', anonymous);
  assert.deepEqual([all.includes('listed'), all.includes('unseen'), all.includes('denied')], [true, false, false]);
  assert.equal((await call('GET', '/assets/denied', undefined, anonymous)).status, 404);
  assert.equal((await call('GET', '/assets/unseen', undefined, anonymous)).status, 200);
  assert.equal((await call('GET', '/assets/denied')).body.visibility, 'private');
});

test('nothing tells a private channel or recording from none, whatever is asked of it', async () => {
  await record('quiet', 'empty', null);
  const answer = async (path: string) => {
    const { status, headers, text } = await get(path);
    return { status, text, headers: Object.keys(headers).sort() };
  };
  for (const path of [
    'master.m3u8',
    'manifest.mpd',
    'aac-128/index.m3u8',
    'aac-128/dvr.m3u8',
    'aac-9999/index.m3u8',
    'words/index.m3u8',
    'words/aac',
    'aac-128/words',
    'aac-128/',
    'aac-128/r-1.m4s',
    'aac-128/r-1.0.m4s',
    'aac-128/r-init.mp4',
    'words/r-1.m4s',
    'words',
    '',
    '-/-.m3u8',
    'a/b/c',
  ]) {
    for (const slug of ['secret', 'empty'])
      assert.deepEqual(await answer(`/live/${slug}/${path}`), await answer(`/live/nowhere/${path}`), path);
    assert.deepEqual(await answer(`/vod/quiet/${path}`), await answer(`/vod/nowhere/${path}`), `vod ${path}`);
  }
  for (const path of ['mp3', 'opus', 'wav', ''])
    assert.deepEqual(await answer(`/listen/secret.${path}`), await answer(`/listen/nowhere.${path}`));
});

test('who knows the id of a private recording learns neither that there is one nor of which channel', async () => {
  await record('whispered', 'secret', null);
  await record('withheld', 'radio', 'private');
  const stranger = { authorization: `Bearer ${(await personOf(app, 'broadcaster', false)).token}` };
  const told = async (method: string, id: string, more: string, headers: Record<string, string>) => {
    const { status, body } = await call(method, `/assets/${id}${more}`, method === 'PATCH' || more !== '' ? {} : undefined, headers);
    return [status, body.code, body.detail, body.details];
  };
  for (const headers of [{ authorization: '' }, stranger])
    for (const [method, more] of [
      ['GET', ''],
      ['PATCH', ''],
      ['DELETE', ''],
      ['POST', '/links'],
      ['POST', '/play'],
    ] as const) {
      const none = await told(method, 'nosuchrecord', more, headers);
      for (const id of ['whispered', 'withheld']) assert.deepEqual(await told(method, id, more, headers), none, `${method} ${id}${more}`);
    }
});

test('as many listeners as a channel may have: decided when the link is issued, and held to', async () => {
  await app.database.query('delete from playback_grants');
  const asked = (listener?: string) => call('POST', '/channels/other/links', listener === undefined ? {} : { listener });
  const tokens: string[] = [];
  for (let i = 0; i < maxListenersPerStream; i++) tokens.push((await asked(`listener-${i}`)).body.token);
  const full = await asked();
  assert.deepEqual([full.status, full.body.code], [503, 'busy']);
  assert.equal((await asked('listener-0')).status, 201, 'a new link for the same listener');
  // Whatever is counted by address and agent, who has a link is let in.
  for (let i = 0; i < 9; i++) await get(`/t/${tokens[0]}/live/other/aac-128/index.m3u8`, { 'user-agent': `agent ${i}` });
  assert.equal((await get(`/t/${tokens[1]}/live/other/master.m3u8`)).status, 200);
  assert.equal(playback.listeners('other'), 1, 'one link is one listener');
  app.live.shows.set('radio', { state: 'live', listeners: maxListenersPerStream, nowPlaying: undefined });
  assert.equal((await call('POST', '/channels/radio/links', {})).body.code, 'busy', 'those without a link have taken all places');
  app.live.shows.delete('radio');
});

test('country rules are asked for with every manifest, segment and stream, and fail closed', async () => {
  const token = await linkTo('secret');
  assert.equal((await call('PATCH', '/channels/secret', { countriesAllowed: ['DE'] })).body.countriesAllowed[0], 'DE');
  assert.equal((await call('PATCH', '/channels/radio', { countriesDenied: ['US'] })).status, 200);
  const paths = (slug: string, prefix: string) =>
    ['master.m3u8', 'opus.m3u8', 'dvr.m3u8', 'manifest.mpd', 'aac-128/index.m3u8', 'aac-128/dvr.m3u8']
      .map((file) => `${prefix}/live/${slug}/${file}`)
      .concat(`${prefix}/listen/${slug}.mp3`, `${prefix}/live/${slug}/aac-128/r1x-12.m4s`, `${prefix}/live/${slug}/aac-128/r1x-init.mp4`);
  for (const [from, secretAnswer, radioAnswer] of [
    [{ 'x-country': 'DE' }, 200, 200],
    [{ 'x-country': 'US' }, 451, 451],
    [{ 'x-country': 'AT' }, 451, 200],
    [{ 'x-country': 'XX' }, 451, 451],
    [{ 'x-country': 'DE, US' }, 451, 451],
    [{}, 451, 451],
    [{ 'x-forwarded-for': '203.0.113.9' }, 200, 200],
    [{ 'x-country': 'US', 'x-forwarded-for': '203.0.113.9' }, 451, 451],
    [{ 'x-forwarded-for': '203.0.113.10' }, 451, 451],
  ] as [Record<string, string>, number, number][]) {
    for (const [path, expected] of [
      ...paths('secret', `/t/${token}`).map((path) => [path, secretAnswer] as const),
      ...paths('radio', '').map((path) => [path, radioAnswer] as const),
    ]) {
      const stream = path.includes('/listen/') ? await listenTo(path, from) : undefined;
      const { status, headers } = stream ? { ...stream, headers: {} as Record<string, string> } : await get(path, from);
      stream?.leave();
      assert.equal(status, expected, `${path} from ${JSON.stringify(from)}`);
      if (expected === 200 && !stream) assert.match(headers['cache-control'] ?? '', /^private/, `${path}: not for listeners elsewhere`);
    }
  }
  assert.equal((await get('/live/radio/master.m3u8')).code, 'country_blocked');
  assert.equal((await get('/live/secret/master.m3u8', { 'x-country': 'DE' })).status, 404, 'the rule is no link');

  const link = (bind?: object) => call('POST', '/channels/secret/links', { bind, listener: 'x' });
  assert.equal((await link({ country: 'US' })).body.code, 'country_blocked');
  assert.equal((await link({ address: '203.0.113.10' })).body.code, 'country_blocked');
  assert.equal((await link({ address: '203.0.113.9' })).status, 201);
  assert.equal((await link({ country: 'DE' })).status, 201);
  assert.equal((await call('POST', '/channels/secret/play', undefined, { 'x-country': 'US' })).status, 451);
  assert.equal((await call('POST', '/channels/secret/play')).status, 451);
  assert.equal((await call('POST', '/channels/secret/play', undefined, { 'x-country': 'DE' })).status, 200);
  await record('german', 'secret', 'public');
  assert.equal((await get('/vod/german/master.m3u8')).code, 'country_blocked');
  assert.equal((await get('/vod/german/master.m3u8', { 'x-country': 'DE' })).status, 200);
  assert.equal((await get('/vod/german/aac-128/germanr-11.m4s', { 'x-country': 'US' })).code, 'country_blocked');
  const segment = await get('/vod/german/aac-128/germanr-11.m4s', { 'x-country': 'DE' });
  assert.deepEqual([segment.status, segment.headers['cache-control']], [200, 'private, max-age=31536000, immutable']);
  assert.equal((await call('POST', '/assets/german/play', undefined, { 'x-country': 'US' })).status, 451);

  const ear = await listenTo('/listen/radio.mp3', { 'x-country': 'AT' });
  await call('PATCH', '/channels/radio', { countriesDenied: ['AT'] });
  clock.advance(1000);
  await ear.ended;
  for (const slug of ['secret', 'radio']) await call('PATCH', `/channels/${slug}`, { countriesAllowed: null, countriesDenied: null });
  assert.equal((await get('/live/radio/master.m3u8')).status, 200);
  for (const body of [{ countriesAllowed: ['XX'] }, { countriesDenied: [] }, { countriesAllowed: ['DE'], countriesDenied: ['US'] }])
    assert.equal((await call('PATCH', '/channels/radio', body)).status, 400, JSON.stringify(body));
});

test('a header that anybody could have written says nothing', () => {
  const req = { headers: { 'x-country': 'DE' } } as unknown as IncomingMessage;
  const reader = (trustProxyHops: number) => countryReader({ header: 'x-country', trustProxyHops, lookup: undefined, addressOf: () => '' });
  assert.equal(reader(0)(req), undefined);
  assert.equal(reader(1)(req), 'DE');
});

test('who may see a channel gets addresses to hear it', async () => {
  const open = await call('POST', '/channels/radio/play', undefined, { authorization: '' });
  assert.deepEqual(open.body, {
    hls: 'https://cdn.example/live/radio/master.m3u8',
    dash: 'https://cdn.example/live/radio/manifest.mpd',
    listen: 'http://radio.example:8080/listen/radio.mp3',
    expiresAt: null,
  });
  assert.equal((await call('POST', '/channels/secret/play', undefined, { authorization: '' })).body.code, 'not_found');
  const own = await call('POST', '/channels/secret/play');
  assert.equal(own.status, 200);
  assert.equal((await get(new URL(own.body.hls).pathname)).status, 200);
  assert.ok(Date.parse(own.body.expiresAt) > clock.wallMs());
  const { rows } = await app.database.query(`select 1 from audit_log where action = 'playChannel'`);
  assert.equal(rows.length, 0, 'to listen is nothing for the audit log');

  await record('session', 'secret', null);
  assert.equal((await call('POST', '/assets/session/play', undefined, { authorization: '' })).body.code, 'not_found');
  const asset = await call('POST', '/assets/session/play');
  assert.equal((await get(new URL(asset.body.dash).pathname)).status, 200);
});

test('links are given out by those who may, within what they may ask', async () => {
  for (const path of ['/channels/secret/links', '/assets/kept/links'])
    assert.equal((await call('POST', path, {}, { authorization: '' })).status, 401);
  assert.equal((await call('POST', '/assets/none/links', {})).status, 404);
  for (const body of [
    { expiresInS: 59 },
    { expiresInS: 30 * 86_400 + 1 },
    { expiresInS: 60.5 },
    { expiresInS: '60' },
    { bind: { address: '1.2.3' } },
    { bind: { address: '1.2.3.4/8' } },
    { bind: { country: 'de' } },
    { bind: { country: 'XX' } },
    { bind: { host: 'x' } },
    { listener: '' },
    { listener: 'x'.repeat(129) },
    { scope: 'live/other' },
  ])
    assert.equal((await call('POST', '/channels/secret/links', body)).status, 400, JSON.stringify(body));
  const { body } = await call('POST', '/channels/empty/links', {});
  assert.ok(body.urls.hls.startsWith(`https://cdn.example/t/${body.token}/live/empty/`));
  const { rows } = await app.database.query<{ details: object; channel: string }>(
    `select details, channel from audit_log where action = 'issueChannelLink' order by id desc limit 1`,
  );
  assert.equal(rows[0]?.channel, 'empty');
  assert.ok(!JSON.stringify(rows[0]).includes(body.token));
});

test('playback keys over the API: two at most; secrets only where they are asked for', async () => {
  const replaced = await call('POST', '/service/playback-keys', { signsInS: 0 });
  assert.equal(replaced.status, 201);
  assert.equal(replaced.body.items.length, 2);
  const listed = await call('GET', '/service/playback-keys');
  const exported = await call('POST', '/service/playback-keys/export');
  assert.deepEqual(Object.keys(exported.body.keys).sort(), listed.body.items.map(({ id }: { id: string }) => id).sort());
  for (const secretText of Object.values(exported.body.keys)) {
    assert.ok(!JSON.stringify(listed.body).includes(String(secretText)));
    const { rows } = await app.database.query('select 1 from audit_log where details::text like $1', [`%${secretText}%`]);
    assert.equal(rows.length, 0);
  }
  const { rows } = await app.database.query(`select 1 from audit_log where action = 'exportPlaybackKeys'`);
  assert.equal(rows.length, 1, 'who took them is known');
  for (const [method, path] of [
    ['GET', ''],
    ['POST', ''],
    ['POST', '/export'],
  ] as const)
    assert.equal((await call(method, `/service/playback-keys${path}`, undefined, { authorization: '' })).status, 401);
});
