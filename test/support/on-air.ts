import { spawnSync } from 'node:child_process';
import { readlinkSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { setPriority } from 'node:os';
import { decode, findClicks, findHoles, RATE_HZ, type Sound } from './audio.js';
import { eventually, type Running } from './process.js';
import { readPlaylist, Server, type ServerOptions } from './server.js';

/** One line of a media playlist: where it is, and what stands before it. */
export interface Listed {
  readonly number: number;
  readonly uri: string;
  readonly run: string;
  readonly gap: boolean;
  readonly discontinuity: boolean;
}

/** The segments that a playlist lists. */
export function listed(text: string): Listed[] {
  const { mediaSequence } = readPlaylist(text);
  const segments: Listed[] = [];
  let gap = false;
  let discontinuity = false;
  for (const line of text.split('\n')) {
    if (line === '#EXT-X-GAP') gap = true;
    if (line === '#EXT-X-DISCONTINUITY') discontinuity = true;
    if (line === '' || line.startsWith('#')) continue;
    const name = line.split('/').at(-1) ?? '';
    segments.push({ number: mediaSequence + segments.length, uri: line, run: name.split('-')[0] ?? '', gap, discontinuity });
    gap = false;
    discontinuity = false;
  }
  return segments;
}

/** Waits until so many segments with sound are listed (a broadcast begins with gaps), and gives the playlist. */
export function sounding(server: Server, slug: string, count = 1, rendition = 'aac-128'): Promise<string> {
  return eventually(`${slug} has ${count} segments`, async () => {
    const text = await server.text(`/live/${slug}/${rendition}/index.m3u8`);
    return text && listed(text).filter(({ gap }) => !gap).length >= count ? text : undefined;
  });
}

/** Discontinuities, and gaps other than those before the first sound, that a playlist lists. */
export function breaksOf(text: string): { discontinuities: number[]; gaps: number[] } {
  const segments = listed(text);
  const first = segments.find(({ gap }) => !gap)?.number ?? 0;
  return {
    discontinuities: segments.filter(({ discontinuity }) => discontinuity).map(({ number }) => number),
    gaps: segments.filter(({ gap, number }) => gap && number > first).map(({ number }) => number),
  };
}

export const UNBROKEN = { discontinuities: [], gaps: [] } as const;

/** Waits until `count` more segments than now are out, what a length of time is to somebody who listens; gives the number of the open one. */
export async function moreSegments(server: Server, slug: string, count: number, rendition = 'aac-128'): Promise<number> {
  const now = readPlaylist(await server.onAir(slug, 0, rendition)).openNumber;
  return eventually(
    `${count} more segments of ${slug}`,
    async () => {
      const text = await server.text(`/live/${slug}/${rendition}/index.m3u8`);
      const open = text === undefined ? 0 : readPlaylist(text).openNumber;
      return open >= now + count ? open : undefined;
    },
    count * 1920 + 20_000,
  );
}

export function reachesState(server: Server, slug: string, state: 'offline' | 'live' | 'holding', timeoutMs?: number): Promise<true> {
  return eventually(`${slug} is ${state}`, async () => ((await server.channel(slug)).state === state ? true : undefined), timeoutMs);
}

export interface Recorded {
  readonly text: string;
  readonly segments: Listed[];
  /** Decoded from `segments[0]` on. */
  readonly sound: Sound;
}

/** Fetches every segment that a playlist lists, and decodes them as one. A gap is left out; a segment that is not there fails. */
export async function hearPlaylist(base: string, path: string, from = 0): Promise<Recorded> {
  const url = new URL(path, base);
  const response = await fetch(url);
  const text = await response.text();
  if (!response.ok) throw new Error(`${path}: ${response.status} ${text.slice(0, 200)}`);
  const segments = listed(text).filter(({ number }) => number >= from);
  const pieces: Uint8Array[] = [];
  const get = async (uri: string) => {
    const answer = await fetch(new URL(uri, url));
    if (!answer.ok) throw new Error(`${uri} of ${path}: ${answer.status}`);
    return new Uint8Array(await answer.arrayBuffer());
  };
  const map = /#EXT-X-MAP:URI="([^"]+)"/.exec(text)?.[1];
  // Every run has the same init segment.
  if (map !== undefined) pieces.push(await get(map));
  for (const segment of segments) {
    if (segment.gap) continue;
    const bytes = await get(segment.uri);
    pieces.push(map === undefined ? withoutId3(bytes) : bytes);
  }
  return { text, segments, sound: await decode(Buffer.concat(pieces), { inputArgs: ['-f', map === undefined ? 'mp3' : 'mp4'] }) };
}

/** How many runs made these segments. Names of gaps before the first sound do not count. */
export const runsOf = (segments: readonly Listed[]) => new Set(segments.filter(({ gap }) => !gap).map(({ run }) => run)).size;

/** What a listener of a rendition heard since the broadcast began, or since segment `from`. */
export function hear(server: Server, slug: string, rendition: string, from?: number): Promise<Recorded> {
  return hearPlaylist(server.url, `/live/${slug}/${rendition}/${rendition.startsWith('mp3') ? 'index' : 'dvr'}.m3u8`, from);
}

function withoutId3(bytes: Uint8Array): Uint8Array {
  if (bytes[0] !== 0x49 || bytes[1] !== 0x44 || bytes[2] !== 0x33) return bytes;
  const size = (bytes[6]! << 21) | (bytes[7]! << 14) | (bytes[8]! << 7) | bytes[9]!;
  return bytes.subarray(10 + size);
}

export interface Stretch {
  readonly from: number;
  readonly to: number;
}

/** Where there is sound: what lies between the holes, from the first sound to the last. */
export function soundStretches(samples: Float32Array, minHoleMs = 20): Stretch[] {
  const floor = 10 ** (-50 / 20);
  let from = 0;
  while (from < samples.length && Math.abs(samples[from]!) < floor) from++;
  let to = samples.length;
  while (to > from && Math.abs(samples[to - 1]!) < floor) to--;
  const stretches: Stretch[] = [];
  for (const hole of findHoles(samples, { minMs: minHoleMs })) {
    stretches.push({ from, to: hole.at });
    from = hole.at + hole.samples;
  }
  stretches.push({ from, to });
  return stretches;
}

/**
 * Clicks of a tone in samples [from, to), with a margin of silence left on both sides so that a hard edge shows. A codec leaves up to 15 times
 * the background where a tone begins after silence, with however soft an edge; a hard splice of the tone 700 times.
 */
export function clicksIn(samples: Float32Array, tonesHz: readonly number[], { from, to }: Stretch, times = 25) {
  const margin = RATE_HZ / 100;
  const start = Math.max(0, from - margin);
  const clicks = findClicks(samples.subarray(start, Math.min(samples.length, to + margin)), tonesHz, { times });
  return clicks.map((click) => ({ ...click, at: click.at + start, s: Number(((click.at + start) / RATE_HZ).toFixed(3)) }));
}

/** Process ids of the service's ffmpegs: the encoder reads PCM, a decoder writes it. */
export async function ffmpegsOf(pid: number): Promise<{ encoders: number[]; decoders: number[] }> {
  const encoders: number[] = [];
  const decoders: number[] = [];
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const stat = await readFile(`/proc/${entry}/stat`, 'utf8');
      const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
      if (parent !== pid || !readlinkSync(`/proc/${entry}/exe`).includes('ffmpeg')) continue;
      const args = (await readFile(`/proc/${entry}/cmdline`, 'utf8')).split('\0');
      (args.includes('matroska') && args.indexOf('matroska') > args.indexOf('-i') ? encoders : decoders).push(Number(entry));
    } catch {
      // It ended while we looked.
    }
  }
  return { encoders, decoders };
}

/** Resident memory of a process, bytes. */
export async function residentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
}

/**
 * What is tested here is what the service does, not how late a busy machine lets it and its publishers run; so both are scheduled before
 * everything else, the players too. A machine that does not allow that has to be a quiet one.
 */
const realTime = spawnSync('chrt', ['-r', '1', 'true']).status === 0;

// Players, which inherit it, come next.
try {
  setPriority(-10);
} catch {
  // Not root.
}

/** Before the command of a service. */
export const UNDER: readonly string[] = realTime ? ['chrt', '-r', '2'] : [];

export const startServer = (
  env: Readonly<Record<string, string>> = {},
  options: Pick<ServerOptions, 'embeddedDatabase'> = {},
): Promise<Server> => Server.start({ ...options, env, under: UNDER });

/** A publisher whose lateness would be taken for a fault of the service. */
export function punctual(publisher: Running): Running {
  if (realTime) spawnSync('chrt', ['-r', '-p', '2', String(publisher.child.pid)]);
  return publisher;
}

/** For a test that is the publisher itself; what it starts from then on is scheduled like it. */
export function bePunctual(): void {
  if (realTime) spawnSync('chrt', ['-r', '-p', '1', String(process.pid)]);
}

/** Runs the body of a test; when it fails, the last words of the service go with it. */
export async function told(server: Server, body: () => Promise<void>): Promise<void> {
  try {
    await body();
  } catch (error) {
    console.log(server.logTail(40));
    throw error;
  }
}
