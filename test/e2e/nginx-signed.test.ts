import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { expiryOf, sign, signedText } from '../../src/access/playback/playback-token.js';
import { NginxEdge } from '../support/nginx.js';
import { ensurePackages } from '../support/packages.js';
import { eventually, type Running } from '../support/process.js';
import { publishRtmp } from '../support/publishers.js';
import { readPlaylist, Server } from '../support/server.js';

let dir: string;
let keysFile: string;
let server: Server;
let edge: NginxEdge;
let publisher: Running;
/** A private channel, whose name has a hyphen, which variables of nginx have not. */
const slug = 'inner-circle';
const base = `/live/${slug}/aac-128`;

before(async () => {
  await ensurePackages('nginx', 'libnginx-mod-http-js', 'openssl', 'ffmpeg');
  dir = await mkdtemp(join(tmpdir(), 'veza-keys-'));
  keysFile = join(dir, 'playback-keys.json');
  server = await Server.start({ env: { TRUST_PROXY: '1', COUNTRY_HEADER: 'X-Country', PLAYBACK_KEYS_FILE: keysFile } });
  edge = await NginxEdge.start(server, keysFile);
  publisher = publishRtmp(server.rtmpUrl(await server.createChannel(slug)));
  await server.onAir(slug, 3);
  await server.createChannel('other');
  for (const name of [slug, 'other']) await server.api('PATCH', `/channels/${name}`, { visibility: 'private' });
});
after(async () => {
  await publisher?.kill();
  await edge?.stop();
  await server?.stop();
  await rm(dir, { recursive: true, force: true });
});

const link = async (body: object = {}, name = slug) => (await server.api<{ token: string }>('POST', `/channels/${name}/links`, body)).token;

/** Names of segments that are whole and can be had, the oldest first. */
async function wholeSegments(token: string): Promise<string[]> {
  const answer = await edge.get(`/t/${token}${base}/index.m3u8`);
  assert.equal(answer.status, 200);
  const { segments, mediaSequence, gaps } = readPlaylist(answer.bytes.toString());
  return segments.filter((_, index) => !gaps.includes(mediaSequence + index));
}

/** Signed by a key that the service has, with whatever else is asked for. */
async function signedBy(secret: Buffer, keyId: string, more: { name?: string; kind?: 'live' | 'vod'; expiresAtMs?: number } = {}) {
  const token = { keyId, expiry: expiryOf(more.expiresAtMs ?? Date.now() + 60_000), listener: 'somebody' };
  const text = signedText(token, { kind: more.kind ?? 'live', name: more.name ?? slug, address: '', country: '' });
  return `${keyId}.${token.expiry}.${token.listener}.${sign(secret, text)}`;
}

async function currentKey(): Promise<{ id: string; secret: Buffer }> {
  const { keys } = await server.api<{ keys: Record<string, string> }>('POST', '/service/playback-keys/export');
  const [id = '', text = ''] = Object.entries(keys)[0] ?? [];
  return { id, secret: Buffer.from(text, 'base64url') };
}

test('two listeners share one copy of a segment, by address or by cookie, and nobody else has it', async () => {
  const [one, two] = [await link(), await link()];
  const [segment = ''] = await wholeSegments(one);
  const first = await edge.get(`/t/${one}${base}/${segment}`);
  assert.deepEqual([first.status, first.header('x-cache-status')], [200, 'MISS']);
  const requests = await server.metric('playback_requests_total');
  for (const path of [`/t/${two}${base}/${segment}`, `/t/${one}${base}/${segment}?CMCD=sid%3D%22x%22`, `/t/${two}${base}/${segment}?a=1`]) {
    const again = await edge.get(path);
    assert.equal(again.header('x-cache-status'), 'HIT', path);
    assert.deepEqual(again.bytes, first.bytes);
  }
  const cookie = { cookie: `x=y; veza_play_live_${slug}=${two}` };
  assert.equal((await edge.get(`${base}/${segment}`, cookie)).header('x-cache-status'), 'HIT');
  assert.deepEqual((await edge.get(`/t/${two}${base}/${segment}`, { range: 'bytes=4-7' })).bytes, first.bytes.subarray(4, 8));
  assert.equal(await server.metric('playback_requests_total'), requests, 'none of these reached the service');

  // What is kept for those with a link is not found without one.
  for (const headers of [{}, { cookie: `veza_play_live_${slug}=${two}x` }, { cookie: `veza_play_live_other=${two}` }]) {
    const stranger = await edge.get(`${base}/${segment}`, headers as Record<string, string>);
    assert.ok([403, 404].includes(stranger.status), String(stranger.status));
    assert.notEqual(stranger.header('x-cache-status'), 'HIT');
  }
  assert.equal((await edge.get(`${base}/index.m3u8`, cookie)).status, 200);
});

test('a cookie fills the shared copy as well', async () => {
  const token = await link();
  const segment = (await wholeSegments(token)).at(-1);
  const cookie = { cookie: `veza_play_live_${slug}=${token}` };
  assert.equal((await edge.get(`${base}/${segment}`, cookie)).header('x-cache-status'), 'MISS');
  assert.equal((await edge.get(`/t/${await link()}${base}/${segment}`)).header('x-cache-status'), 'HIT');
  assert.equal((await edge.get(`${base}/${segment}`)).status, 404);
});

test('players find everything behind the token: playlists, parts, MPD, endless stream', async () => {
  const token = await link();
  for (const path of ['master.m3u8', 'manifest.mpd', 'dvr.m3u8', 'aac-128/index.m3u8', 'aac-128/dvr.m3u8'])
    assert.equal((await edge.get(`/t/${token}/live/${slug}/${path}`)).status, 200, path);
  const text = (await edge.get(`/t/${token}${base}/index.m3u8`)).bytes.toString();
  const part = [...text.matchAll(/EXT-X-PART:.*URI="([^"]+)"/g)].at(-1)?.[1];
  assert.equal((await edge.get(`/t/${token}${base}/${part}`)).status, 200);
  assert.equal((await edge.get(`/t/${token}/listen/${slug}.nothing`)).status, 404);
});

test('links bound to an address or a country are good from there alone, here too', async () => {
  const token = await link({ bind: { address: '127.0.0.1' } });
  const [segment] = await wholeSegments(await link());
  const path = `/t/${token}${base}/${segment}`;
  assert.equal((await edge.get(path)).status, 200);
  assert.equal((await edge.get(path, {}, '127.0.0.2')).status, 403);
  assert.equal((await edge.get(path, { 'x-forwarded-for': '127.0.0.1' }, '127.0.0.2')).status, 403);
  const abroad = await link({ bind: { country: 'DE' } });
  assert.equal((await edge.get(`/t/${abroad}${base}/${segment}`, { 'x-country': 'DE' })).status, 403, 'nobody says of himself where he is');
  await server.api('PATCH', `/channels/${slug}`, { countriesAllowed: ['DE'] });
  assert.equal((await edge.get(`/t/${token}${base}/index.m3u8`, { 'x-country': 'DE' })).status, 451, 'not to the service either');
  await server.api('PATCH', `/channels/${slug}`, { countriesAllowed: null });
  assert.equal((await edge.get(`/t/${token}${base}/index.m3u8`)).status, 200);
});

test('a new key is known here without a reload', async () => {
  await server.api('POST', '/service/playback-keys', { signsInS: 0 });
  const token = await link();
  assert.equal((await wholeSegments(token)).length > 0, true);
});

test('a private recording of a public channel: all of it by a link, shared, and none of it without', async () => {
  const show = publishRtmp(server.rtmpUrl(await server.createChannel('daily')));
  await server.onAir('daily', 3);
  await server.api('POST', '/channels/daily/end');
  await show.kill();
  const asset = await eventually('the recording is there', async () => {
    const { items } = await server.api<{ items: { id: string; channel: string }[] }>('GET', '/assets');
    return items.find(({ channel }) => channel === 'daily')?.id;
  });
  const listed = (await edge.get(`/vod/${asset}/aac-128/index.m3u8`)).bytes.toString();
  const [open = ''] = readPlaylist(listed).segments;
  assert.match(open, /^\.\.\/\.\.\/\.\.\/live\/daily\/aac-128\//);
  await server.api('PATCH', `/assets/${asset}`, { visibility: 'private' });

  const [one, two] = await Promise.all(
    [0, 1].map(async () => (await server.api<{ token: string }>('POST', `/assets/${asset}/links`, {})).token),
  );
  const folder = `/vod/${asset}/aac-128`;
  for (const path of [`/vod/${asset}/master.m3u8`, `/vod/${asset}/manifest.mpd`, `${folder}/index.m3u8`]) {
    assert.equal((await edge.get(path)).status, 404, path);
    assert.equal((await edge.get(`/t/${one}${path}`)).status, 200, path);
  }
  const playlist = (await edge.get(`/t/${one}${folder}/index.m3u8`)).bytes.toString();
  const files = [/URI="([^"]+)"/.exec(playlist)?.[1] ?? '', ...readPlaylist(playlist).segments];
  assert.ok(files.length >= 4);
  for (const file of files) {
    const first = await edge.get(`/t/${one}${folder}/${file}`);
    assert.deepEqual([first.status, first.header('x-cache-status')], [200, 'MISS'], file);
    assert.equal((await edge.get(`/t/${two}${folder}/${file}`)).header('x-cache-status'), 'HIT', file);
    assert.equal((await edge.get(`${folder}/${file}`)).status, 404, file);
  }
  const name = open.split('/').at(-1);
  assert.equal(await server.text(`/live/daily/aac-128/${name}`), undefined);
  assert.equal((await edge.get(`/t/${one}/live/daily/aac-128/${name}`)).status, 403);
});

test('with the service stopped, wrong links are refused, and right ones still have what is kept', async () => {
  const token = await link();
  const other = await link({}, 'other');
  const [segment] = await wholeSegments(token);
  const path = `${base}/${segment}`;
  assert.equal((await edge.get(`/t/${token}${path}`)).status, 200);
  const { id, secret } = await currentKey();
  const good = await signedBy(secret, id);
  const wrong: [what: string, token: string][] = [
    ['expired', await signedBy(secret, id, { expiresAtMs: Date.now() - 1000 })],
    ['of another channel', other],
    ['of another channel, by our key', await signedBy(secret, id, { name: 'other' })],
    ['of a recording of that name', await signedBy(secret, id, { kind: 'vod' })],
    ['changed', `${token.slice(0, -2)}${token.endsWith('AA') ? 'BB' : 'AA'}`],
    ['longer', `${token}A`],
    ['by a key that nobody knows', await signedBy(secret, 'deadbeef')],
    ['by a key with an inherited name', await signedBy(Buffer.alloc(0), 'constructor')],
    ['by an empty key', await signedBy(Buffer.alloc(0), id)],
    ['of capitals', token.toUpperCase()],
    ['nothing', 'x'],
    ['too long', 'x'.repeat(100)],
  ];
  await server.kill9();
  assert.deepEqual([(await edge.get(`/t/${good}${path}`)).status, (await edge.get(`/t/${token}${path}`)).status], [200, 200]);
  for (const [what, text] of wrong) {
    for (const file of [path, `${base}/index.m3u8`, `/live/${slug}/master.m3u8`, `/listen/${slug}.mp3`]) {
      const refused = await edge.get(`/t/${text}${file}`);
      assert.equal(refused.status, 403, `${what}: ${file}`);
      assert.equal(refused.header('content-type'), 'application/problem+json');
      assert.equal(refused.header('cache-control'), 'no-store');
      assert.equal(refused.header('access-control-allow-origin'), '*');
      assert.equal(JSON.parse(refused.bytes.toString()).code, 'forbidden');
    }
  }
  for (const trick of [
    `/t/${other}/live/other/../${slug}/aac-128/${segment}`,
    `/t/${other}/live/other/%2e%2e/${slug}/aac-128/${segment}`,
    `/t/${other}/live%2fother%2f..%2f${slug}/aac-128/${segment}`,
    `/t/${other}/../${other}/live/${slug}/aac-128/${segment}`,
    `/t/${other}//live/${slug}//aac-128/${segment}`,
    `/t/x/../live/${slug}/aac-128/${segment}`,
    `/t/${other}/t/${token}/live/${slug}/aac-128/${segment}`,
    `/T/${token}/live/${slug}/aac-128/${segment}`,
    `/t/${other}/live/${slug}/aac-128/${segment}?x=/t/${token}${path}`,
  ]) {
    const { status, header } = await edge.get(trick);
    assert.ok(status === 403 || status === 503 || status === 404, `${trick}: ${status}`);
    assert.notEqual(header('x-cache-status'), 'HIT', trick);
  }
  // Without keys nobody is let in.
  await writeFile(keysFile, 'no JSON');
  for (const text of [token, await signedBy(Buffer.alloc(0), id)]) assert.equal((await edge.get(`/t/${text}${path}`)).status, 403);
  await rm(keysFile);
  assert.equal((await edge.get(`/t/${token}${path}`)).status, 403);
  await server.restart();
  await eventually('the keys are written again', async () => ((await edge.get(`/t/${token}${path}`)).status === 200 ? true : undefined));
});
