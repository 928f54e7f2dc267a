import { chunk, initSegment, packedAudioTag } from '../../src/media/cmaf.js';
import { isReached, renderMedia, renderMultivariant } from '../../src/media/hls.js';
import { FRAME_SAMPLES, type Rendition } from '../../src/media/ladder.js';
import { mediaTimeOf, partDurationSamples, partsPerSegment } from '../../src/media/timeline.js';
import type { Observation } from '../../src/validator/report.js';
import { rendition, World } from './manifest-world.js';

export const BASE = 'http://radio.example/live/a/';
const TYPES: Readonly<Record<string, string>> = {
  m3u8: 'application/vnd.apple.mpegurl',
  m4s: 'audio/mp4',
  mp4: 'audio/mp4',
  mp3: 'audio/mpeg',
};

/**
 * A clean broadcast as the validator would observe it: a server without bytes on a wire. It is followed part by part with
 * delta updates through a crash, has removed media fetched, refuses what must be refused, and ends.
 */
export function cleanSession(): Observation[] {
  const renditions = ['aac-64', 'opus-96', 'mp3-128'].map(rendition);
  const world = new World({ renditions }).leadingGaps(6).title('First', 'Ann').segments(28);
  const followed = renditions.filter((rung) => rung.lowLatency);
  const observations: Observation[] = [];
  let nowMs = 100_000;

  const body = (url: URL): { status: number; body: Uint8Array } => {
    const [folder = '', name = ''] = url.pathname.split('/').slice(-2);
    const rung = renditions.find((candidate) => candidate.name === folder);
    if (name === 'master.m3u8') return ok(renderMultivariant(renditions));
    if (!rung) return { status: 404, body: new Uint8Array() };
    if (name === 'index.m3u8') {
      const skip = url.searchParams.get('_HLS_skip') === 'YES';
      return ok(renderMedia(world.timeline(), rung, renditions, { skip }));
    }
    return { status: 200, body: mediaBytes(world, rung, name) };
  };
  const get = (address: string, waitMs = 5, during: () => void = () => undefined, status?: number) => {
    const url = new URL(address, BASE);
    const sentMs = nowMs;
    nowMs += waitMs;
    during();
    const answer = status === undefined ? body(url) : { status, body: new Uint8Array() };
    const extension = url.pathname.split('.').pop() ?? '';
    const blocked = url.searchParams.has('_HLS_msn');
    const seconds = extension !== 'm3u8' ? '31536000, immutable' : url.pathname.endsWith('master.m3u8') ? 30 : blocked ? 6 : 1;
    const headers: Record<string, string> = {
      'access-control-allow-origin': '*',
      'cache-control': answer.status >= 400 ? 'no-store' : `public, max-age=${seconds}`,
      'content-type': TYPES[extension] ?? '',
      'content-length': String(answer.body.byteLength),
    };
    observations.push({ url: url.href, sentMs, atMs: nowMs, status: answer.status, headers, body: answer.body });
  };

  get('master.m3u8');
  for (const rung of renditions) {
    get(`${rung.name}/index.m3u8`);
    if (rung.lowLatency) get(`${rung.name}/run0-init.mp4`);
  }
  const step = (during: () => void, withMedia: boolean) => {
    const { openNumber, openParts } = world.timeline().progress.aac!;
    if (isReached(world.timeline(), 'aac', openNumber, openParts)) throw new Error('nothing to wait for');
    const sentMs = nowMs;
    for (const [index, rung] of followed.entries()) {
      // All are asked together; the part comes 300 ms later.
      nowMs = sentMs;
      const skip = index === 0 ? '&_HLS_skip=YES' : '';
      get(`${rung.name}/index.m3u8?_HLS_msn=${openNumber}&_HLS_part=${openParts}${skip}`, 300, index === 0 ? during : undefined);
      nowMs += index;
    }
    nowMs = sentMs + 310;
    if (withMedia && !world.gaps.has(openNumber)) {
      const run = world.runs.at(-1)!.id;
      for (const rung of followed) {
        get(`${rung.name}/${run}-${openNumber}.${openParts}.m4s`, 1);
        if (openParts === partsPerSegment(world.grid, rung.codec) - 1) get(`${rung.name}/${run}-${openNumber}.m4s`, 1);
      }
    }
    nowMs = sentMs + 320;
  };
  for (let part = 0; part < 12; part++) step(() => world.publish(320), true);
  world.title('Second');
  get('mp3-128/index.m3u8');
  get('aac-64/index.m3u8');
  get('opus-96/index.m3u8');
  get('aac-64/run0-1006.m4s');
  for (let part = 0; part < 8; part++) step(() => world.publish(320), true);
  world.crash(1000);
  for (const rung of renditions) get(`${rung.name}/index.m3u8`);
  for (const rung of followed) get(`${rung.name}/run1-init.mp4`);
  for (let part = 0; part < 14; part++) step(() => world.publish(320), true);
  // Removed a moment ago: a segment, and parts that are no longer listed.
  get('aac-64/run0-1007.m4s');
  get('aac-64/run0-1034.5.m4s');

  const { openNumber, openParts } = world.timeline().progress.aac!;
  get(`aac-64/index.m3u8?_HLS_msn=${openNumber - 1}`);
  get('aac-64/index.m3u8?_HLS_msn=3&_HLS_part=1');
  for (const query of ['_HLS_part=1', '_HLS_msn=x', `_HLS_msn=${openNumber + 2}`, `_HLS_msn=${openNumber}&_HLS_part=${openParts + 40}`]) {
    get(`aac-64/index.m3u8?${query}`, 5, undefined, 400);
  }
  const abandonedMs = nowMs + 50;
  observations.push({
    url: `${BASE}aac-64/index.m3u8?_HLS_msn=${openNumber + 1}`,
    sentMs: nowMs,
    atMs: abandonedMs,
    status: 0,
    headers: {},
    body: new Uint8Array(),
    abandoned: true,
  });
  nowMs = abandonedMs;
  get('opus-96/index.m3u8');
  get('mp3-128/run1-1038.mp3');
  world.end();
  nowMs += 300;
  for (const rung of renditions) get(`${rung.name}/index.m3u8`);
  for (const rung of renditions) get(`${rung.name}/index.m3u8`);
  get('master.m3u8');
  return observations;
}

const ok = (text: string) => ({ status: 200, body: new TextEncoder().encode(text) });

export function mediaBytes(world: World, rung: Rendition, name: string): Uint8Array {
  if (name.endsWith('-init.mp4')) return initSegment(rung);
  const [, number = 0, part] = /^\w+-(\d+)(?:\.(\d+))?\.m/.exec(name)?.map(Number) ?? [];
  const timeline = world.timeline();
  if (rung.codec === 'mp3') return packedAudioTag(mediaTimeOf(timeline, number));
  const parts = Number.isNaN(part) || part === undefined ? [...Array(partsPerSegment(world.grid, rung.codec)).keys()] : [part];
  return Buffer.concat(
    parts.map((index) => {
      let mediaTime = mediaTimeOf(timeline, number);
      for (let before = 0; before < index; before++) mediaTime += partDurationSamples(world.grid, rung.codec, before);
      const count = partDurationSamples(world.grid, rung.codec, index) / FRAME_SAMPLES[rung.codec];
      const frame = new Uint8Array(Math.round((rung.bitrateKbps * 1000 * FRAME_SAMPLES[rung.codec]) / 48_000 / 8));
      return chunk({ codec: rung.codec, sequence: number * 10 + index, mediaTime, frames: Array(count).fill(frame) });
    }),
  );
}
