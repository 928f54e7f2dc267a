import assert from 'node:assert/strict';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { renderMpd, renderVodMpd } from '../../src/media/dash.js';
import { decideReload, isReached, renderDvr, renderMedia, renderMultivariant, renderVod } from '../../src/media/hls.js';
import type { Codec } from '../../src/media/ladder.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { main } from '../../src/validator/validate.js';
import { mediaBytes } from '../media/hls-session.js';
import { rendition, START_MS, World } from '../media/manifest-world.js';

const servers: Server[] = [];
after(() => {
  for (const server of servers) {
    server.closeAllConnections();
    server.close();
  }
});

const TYPES: Readonly<Record<string, string>> = {
  m3u8: 'application/vnd.apple.mpegurl',
  mpd: 'application/dash+xml',
  m4s: 'audio/mp4',
  mp4: 'audio/mp4',
  mp3: 'audio/mpeg',
};

/**
 * A small origin over a World whose time passes only while somebody waits: a part is made as soon as a request is blocked on
 * one, or the validator sleeps. `spoil` may change any text.
 */
async function origin(options: { spoil?: (text: string, url: URL) => string; followers?: number; idleMs?: number } = {}) {
  const renditions = ['aac-64', 'opus-96', 'mp3-128'].map(rendition);
  const world = new World({ renditions }).leadingGaps(6).segments(30).title('One').publish(640);
  // The MPD trusts a part 0.2 s after it is due.
  const clock = new FakeClock(world.nowMs());
  const blocked = new Set<{ url: URL; codec: Codec; msn: number; part: number | undefined; response: ServerResponse }>();
  const held = new Set<{ url: URL; response: ServerResponse }>();

  const send = (response: ServerResponse, url: URL, status: number, body: string | Uint8Array = '') => {
    const extension = url.pathname.split('.').pop() ?? '';
    const text = typeof body === 'string';
    const bytes = text ? gzipSync(options.spoil?.(body, url) ?? body) : body;
    const age = extension.startsWith('m4') || extension.startsWith('mp') ? '31536000, immutable' : url.searchParams.has('_HLS_msn') ? 6 : 1;
    response.writeHead(status, {
      'access-control-allow-origin': '*',
      'cache-control': status >= 400 ? 'no-store' : `max-age=${extension === 'mpd' ? 1 : age}`,
      'content-type': TYPES[extension] ?? 'text/plain',
      ...(text && { 'content-encoding': 'gzip', vary: 'Accept-Encoding' }),
    });
    return response.end(bytes);
  };
  const answer = (url: URL, response: ServerResponse): unknown => {
    const [channel, folder = '', name = ''] = url.pathname.split('/').slice(-3);
    const timeline = world.timeline();
    const rung = renditions.find((candidate) => candidate.name === folder);
    if (url.pathname === '/time') return send(response, url, 200, new Date(world.nowMs()).toISOString());
    if (name === 'master.m3u8') return send(response, url, 200, renderMultivariant(renditions));
    if (name === 'manifest.mpd') {
      return channel === 'vod'
        ? send(response, url, 200, renderVodMpd(timeline, renditions, { uriPrefix: '/live/a/' }))
        : send(response, url, 200, renderMpd(timeline, renditions, { utcTimingUrl: '/time', windowSamples: 60 * 48_000 }));
    }
    if (!rung) return send(response, url, 404);
    if (name === 'dvr.m3u8') return send(response, url, 200, renderDvr(timeline, rung, 120 * 48_000));
    if (name === 'vod.m3u8') return send(response, url, 200, renderVod(timeline, rung, ''));
    if (name === 'index.m3u8') {
      const query = { msn: url.searchParams.get('_HLS_msn') ?? undefined, part: url.searchParams.get('_HLS_part') ?? undefined };
      const reload = decideReload(timeline, rung.codec, query);
      if (reload.kind === 'bad') return send(response, url, 400, reload.message);
      if (reload.kind === 'now') {
        const skip = url.searchParams.get('_HLS_skip') === 'YES';
        return send(response, url, 200, renderMedia(timeline, rung, renditions, { skip }));
      }
      const waiter = { url, codec: rung.codec, msn: reload.msn, part: reload.part, response };
      blocked.add(waiter);
      return response.on('close', () => blocked.delete(waiter));
    }
    const [, number, part] = /-(\d+)(?:\.(\d+))?\.m/.exec(name) ?? [];
    const wanted = part === undefined ? Number(number ?? -1) : Number(number);
    if (
      rung.lowLatency &&
      !isReached(timeline, rung.codec, wanted, part === undefined ? undefined : Number(part)) &&
      number !== undefined
    ) {
      const waiter = { url, response };
      held.add(waiter);
      return response.on('close', () => held.delete(waiter));
    }
    return send(response, url, 200, mediaBytes(world, rung, name));
  };

  let made = 0;
  const tick = () => {
    world.publish(320);
    clock.advance(320);
    made += 1;
    if (made === 8) world.crash(700);
    if (made === 20) world.title('Two', 'Bo');
    const timeline = world.timeline();
    for (const waiter of [...blocked]) {
      if (!isReached(timeline, waiter.codec, waiter.msn, waiter.part)) continue;
      blocked.delete(waiter);
      answer(waiter.url, waiter.response);
    }
    for (const waiter of [...held]) {
      held.delete(waiter);
      answer(waiter.url, waiter.response);
    }
  };
  // A part is made when all followers wait for one; for whoever sleeps or probes, when nothing was asked for a while.
  // Twenty seconds of parts on, only probes are left.
  const enough = () => blocked.size >= (made > 62 ? 1 : (options.followers ?? 1));
  let timer: NodeJS.Timeout | undefined;
  const arm = () => {
    clearTimeout(timer);
    timer = setTimeout(
      () => {
        tick();
        arm();
      },
      enough() ? 0 : (options.idleMs ?? 1000),
    );
  };
  const server = createServer((request, response) => {
    answer(new URL(request.url ?? '/', 'http://x'), response);
    arm();
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    world,
    run: async (path: string, ...args: string[]) => {
      const lines: string[] = [];
      arm();
      const status = await main([`${base}${path}`, ...args], (line) => lines.push(line), clock);
      clearTimeout(timer);
      return { status, text: lines.join('\n') };
    },
  };
}

test('a live stream that keeps the rules: over a crash, every rendition, deltas, probes', async () => {
  const { run } = await origin({ followers: 2 });
  const { status, text } = await run('/live/a/master.m3u8', '--duration', '20');
  assert.equal(status, 0, text);
  for (const what of ['delta updates', 'blocking reloads', 'abandoned reloads', 'segments and parts', 'init segments'])
    assert.match(text, new RegExp(what));
});

test('a single media playlist', async () => {
  const { run } = await origin();
  const { status, text } = await run('/live/a/opus-96/index.m3u8', '--duration', '6');
  assert.equal(status, 0, text);
});

test('the rewind list, packed audio', async () => {
  const { run } = await origin({ idleMs: 20 });
  for (const path of ['aac-64/dvr.m3u8', 'mp3-128/index.m3u8']) {
    const { status, text } = await run(`/live/a/${path}`, '--duration', '6');
    assert.equal(status, 0, `${path}: ${text}`);
  }
});

test('recordings, by HLS and DASH', async () => {
  const { run, world } = await origin();
  world.crash(500).segments(4).end();
  for (const path of ['/live/a/aac-64/vod.m3u8', '/vod/a/manifest.mpd', '/live/a/master.m3u8']) {
    const { status, text } = await run(path, '--duration', '4');
    assert.equal(status, 0, `${path}: ${text}`);
  }
});

test('a live MPD', async () => {
  const { run } = await origin({ idleMs: 50 });
  const { status, text } = await run('/live/a/manifest.mpd', '--duration', '12');
  assert.equal(status, 0, text);
  assert.match(text, /clock readings/);
});

test('a breach is one line with its rule, and exit status 1; --json says the same', async () => {
  const { run } = await origin({ spoil: (text) => text.replace('INDEPENDENT=YES,', '') });
  const plain = await run('/live/a/aac-64/index.m3u8', '--duration', '3');
  assert.equal(plain.status, 1);
  assert.match(plain.text, /^rule 18: part 0 without INDEPENDENT=YES \(\/live\/a\/aac-64\/index\.m3u8 segment \d+\)$/m);
  const json = JSON.parse((await run('/live/a/aac-64/index.m3u8', '--duration', '3', '--json')).text);
  assert.equal(json.breaches[0].rule, '18');
  assert.ok(json.checked['media playlists'] > 0);
});

test('wrong arguments, nothing there, something else there', async () => {
  const { run } = await origin();
  const silent = () => undefined;
  for (const args of [
    [],
    ['x'],
    ['file:///etc/passwd'],
    ['http://a/b', 'c'],
    ['http://a/b', '--duration', '0'],
    ['http://a/b', '--duration', '3601'],
    ['http://a', '--no'],
  ]) {
    assert.equal(await main(args, silent), 2, args.join(' '));
  }
  assert.equal((await run('/nothing/here/at.all')).status, 1);
  assert.match((await run('/time')).text, /neither a playlist nor an MPD/);
});

test('a hostile server: endless answers, redirects for ever and floods of variants end', async () => {
  const endless = createServer((request, response) => {
    if (request.url === '/loop.m3u8') {
      response.writeHead(302, { location: '/loop.m3u8' }).end();
      return;
    }
    if (request.url === '/flood.m3u8') {
      response.end(`#EXTM3U\n${Array.from({ length: 5000 }, (_, n) => `#EXT-X-STREAM-INF:BANDWIDTH=1\n\u001b[2J${n}.m3u8\n`).join('')}`);
      return;
    }
    if (request.url?.startsWith('/endless')) {
      const more = () => {
        while (!response.destroyed && response.write(Buffer.alloc(65_536, '#\n')));
      };
      response.on('drain', more);
      more();
      return;
    }
    response.writeHead(404).end();
  });
  servers.push(endless);
  await new Promise<void>((resolve) => endless.listen(0, '127.0.0.1', resolve));
  const base = `http://127.0.0.1:${(endless.address() as AddressInfo).port}`;
  for (const path of ['/endless.m3u8', '/loop.m3u8', '/flood.m3u8']) {
    const lines: string[] = [];
    assert.equal(await main([`${base}${path}`], (line) => lines.push(line), new FakeClock(START_MS)), 1, path);
    assert.ok(!lines.join('\n').includes('\u001b'));
  }
});
