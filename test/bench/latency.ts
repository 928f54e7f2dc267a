import { readFile } from 'node:fs/promises';
import { transformWithOxc } from 'vite';
import { liveConfig } from '../../player-demo/src/player/hls-config.js';
import { percentile, RATE_HZ } from '../support/audio.js';
import { type Heard, type Player, type PlayerKind, Players, SHAKA_LOW_LATENCY } from '../support/players.js';
import { eventually } from '../support/process.js';
import { Server } from '../support/server.js';
import { type Figure, figure, say, sleep } from './report.js';
import { BEEP_HZ, BEEP_PERIOD_S, beepPcm, encoderDelay, findBeeps, type PreparedBeeps, prepareBeeps, publish } from './sound.js';

/** Seconds of beeps; a multiple of the pitches, so that the row of them goes on where the file begins again. */
const FILE_S = 64;
/** From `playing` to the first beep that counts: what was late at the start has been caught up, code is compiled. */
const WARM_UP_S = 40;
/** No stream is heard sooner than this after it was sent; a beep is looked for from here to eight periods later. */
const LEAST_MS = 150;

export interface LatencyOptions {
  readonly beeps: number;
  readonly runs: number;
}

interface Case {
  readonly name: string;
  readonly player: PlayerKind;
  readonly path: string;
  readonly env: Readonly<Record<string, string>>;
  readonly p95MostMs: number;
}

const HLS = { player: 'hls.js', path: 'master.m3u8' } as const;
const CASES: readonly Case[] = [
  { name: 'hls.js, parts of 320 ms', ...HLS, env: {}, p95MostMs: 1600 },
  { name: 'hls.js, parts of 214 ms', ...HLS, env: { PART_MS: '214' }, p95MostMs: 1250 },
  { name: 'hls.js, parts of 107 ms', ...HLS, env: { PART_MS: '107' }, p95MostMs: 950 },
  { name: 'dash.js', player: 'dash.js', path: 'manifest.mpd', env: {}, p95MostMs: 2000 },
  { name: 'Shaka', player: 'shaka', path: 'manifest.mpd', env: {}, p95MostMs: 2000 },
];

/** What each player is told; hls.js the settings of our own page. Its retry policies are functions, which do not go into a page. */
export function playerSettings(kind: PlayerKind): object {
  if (kind === 'hls.js') return JSON.parse(JSON.stringify(liveConfig())) as object;
  return kind === 'shaka' ? SHAKA_LOW_LATENCY : {};
}

const HLS_CONFIG = new URL('../../player-demo/src/player/hls-config.ts', import.meta.url);

/** A player as our page would set it up. */
export async function listenWith(players: Players, kind: PlayerKind, url: string): Promise<Player> {
  const player = await players.play(kind, url, playerSettings(kind));
  if (kind === 'hls.js') {
    const { code } = await transformWithOxc(await readFile(HLS_CONFIG, 'utf8'), HLS_CONFIG.pathname);
    await player.page.addScriptTag({ type: 'module', content: `${code}\nfollowLiveEdge(player);` });
  }
  return player;
}

/** From sound into RTMP to the ear: P50 and P95 of each player, milliseconds. */
export async function measureLatency(options: LatencyOptions, only?: string): Promise<Figure[]> {
  const cases = CASES.filter(({ name }) => only === undefined || name.includes(only));
  const figures: Figure[] = [];
  const beeps = await prepareBeeps(FILE_S);
  const players = await Players.start();
  try {
    const chain = await chainOffsets(players);
    figures.push(
      figure('measuring chain: tap against the clock of a local file, P50', percentile(chain, 0.5), 'ms', undefined),
      figure('measuring chain: the same, P95', percentile(chain, 0.95), 'ms', undefined),
    );
    for (const one of cases) figures.push(...(await measureCase(players, beeps, one, options)));
  } finally {
    await players.stop();
    await beeps.remove();
  }
  const encoder = await encoderDelay();
  figures.push(figure("a broadcaster's own AAC encoder (ffmpeg), not in the above, P50", percentile(encoder, 0.5), 'ms', undefined));
  figures.push(figure('the same, P95', percentile(encoder, 0.95), 'ms', undefined));
  return figures;
}

async function measureCase(players: Players, beeps: PreparedBeeps, one: Case, options: LatencyOptions): Promise<Figure[]> {
  const server = await Server.start({ embeddedDatabase: true, env: one.env });
  try {
    const key = await server.createChannel('bench');
    const publishing = await publish(server.rtmpPort, [key], beeps);
    const runs: number[][] = [];
    try {
      await server.onAir('bench', 6);
      for (let run = 0; run < options.runs; run++) {
        const player = await listenWith(players, one.player, `${server.url}/live/bench/${one.path}`);
        try {
          await player.playedOn(WARM_UP_S);
          await player.take();
          await sleep(options.beeps * BEEP_PERIOD_S * 1000 + 2000);
          const heard = await player.take();
          const delays = delaysOf(heard, beeps, publishing.startWallMs);
          runs.push(delays);
          const disturbed = (await player.disturbances()).map(({ type }) => type);
          const { latencyS } = await player.state();
          say(
            `${one.name}, run ${run + 1}: ${delays.length} beeps, P50 ${percentile(delays, 0.5).toFixed(0)} ms, P95 ${percentile(delays, 0.95).toFixed(0)} ms; ` +
              `the player says ${(latencyS * 1000).toFixed(0)} ms; disturbances: ${disturbed.join(' ') || 'none'}`,
          );
        } finally {
          await player.close();
        }
      }
    } finally {
      await publishing.stop();
    }
    const part = (await server.metric('part_publish_delay_seconds_sum'))! / (await server.metric('part_publish_delay_seconds_count'))!;
    say(
      `${one.name}: parts out ${(part * 1000).toFixed(0)} ms after their end on average; the publisher at most ${publishing.latenessMs()} ms late`,
    );
    const fewest = Math.min(...runs.map((delays) => delays.length));
    if (fewest < options.beeps * 0.9) throw new Error(`${one.name}: only ${fewest} of ${options.beeps} beeps were heard`);
    // The worst of the runs, not their mean.
    const worst = (share: number) => Math.max(...runs.map((delays) => percentile(delays, share)));
    return [
      figure(`${one.name}: sound into RTMP to ear, P50`, worst(0.5), 'ms', undefined),
      figure(`${one.name}: sound into RTMP to ear, P95`, worst(0.95), 'ms', { most: one.p95MostMs }),
    ];
  } finally {
    await server.stop();
  }
}

/** When sample `at` of what was heard left the loudspeaker: blocks are contiguous, so the median of those around it counts. */
function heardAtMs(heard: Heard, at: number): number {
  const block = at / 480;
  const from = Math.max(0, Math.floor(block) - 25);
  const near = heard.blockWallMs.slice(from, from + 50).map((wallMs, index) => wallMs - (from + index) * 10);
  return percentile(near, 0.5) + (at * 1000) / RATE_HZ;
}

function delaysOf(heard: Heard, beeps: PreparedBeeps, startWallMs: number): number[] {
  const fileMs = (beeps.samples * 1000) / RATE_HZ;
  return findBeeps(heard.samples).flatMap(({ at, pitch }) => {
    const heardMs = heardAtMs(heard, at);
    const round = Math.floor((heardMs - startWallMs) / fileMs);
    const sent = [round - 1, round].flatMap((turn) =>
      beeps.onsets.filter((onset) => onset.pitch === pitch).map((onset) => startWallMs + turn * fileMs + (onset.at * 1000) / RATE_HZ),
    );
    const candidates = sent.map((sentMs) => heardMs - sentMs).filter((delayMs) => delayMs >= LEAST_MS);
    return candidates.length === 0 ? [] : [Math.min(...candidates)];
  });
}

/**
 * The chain against itself: a file of beeps in a media element, heard by the same tap. Where each beep should be heard is known from
 * `currentTime`, read on every frame of the page; what is left is the tap's error (with that of `currentTime`).
 */
async function chainOffsets(players: Players): Promise<number[]> {
  const seconds = 12;
  const pcm = beepPcm(seconds);
  const page = await players.blank();
  try {
    await page.evaluate(
      `(async () => {
        const bytes = Uint8Array.from(atob(${JSON.stringify(wav(pcm).toString('base64'))}), (c) => c.charCodeAt(0));
        await listen();
        media.src = URL.createObjectURL(new Blob([bytes], { type: 'audio/wav' }));
        window.clock = [];
        setInterval(() => { if (!media.paused) clock.push([Date.now(), media.currentTime]); }, 5);
        await media.play();
      })()`,
    );
    await eventually('the file is played', async () => ((await page.evaluate('media.ended')) ? true : undefined), 60_000);
    await sleep(300);
    const { pcm: text, wallMs } = (await page.evaluate('take()')) as { pcm: string; wallMs: number[] };
    const clock = (await page.evaluate('clock')) as [number, number][];
    const bytes = Buffer.from(text, 'base64');
    const samples = Float32Array.from({ length: bytes.length / 2 }, (_, at) => bytes.readInt16LE(at * 2) / 32_768);
    // Which instant is media time 0, by each reading that is not at an end; the median.
    const zeroMs = percentile(
      clock.filter(([, s]) => s > 2 && s < seconds - 1).map(([wall, s]) => wall - s * 1000),
      0.5,
    );
    const beeps = findBeeps(Float32Array.from({ length: pcm.length / 4 }, (_, at) => pcm.readInt16LE(at * 4) / 32_768));
    return findBeeps(samples).flatMap(({ at, pitch }) => {
      const heardMs = heardAtMs({ samples, blockWallMs: wallMs }, at) - zeroMs;
      const errors = beeps.filter((beep) => beep.pitch === pitch).map((beep) => heardMs - (beep.at * 1000) / RATE_HZ);
      const nearest = errors.reduce((best, error) => (Math.abs(error) < Math.abs(best) ? error : best), Number.POSITIVE_INFINITY);
      return Math.abs(nearest) < (BEEP_HZ.length * BEEP_PERIOD_S * 1000) / 2 ? [nearest] : [];
    });
  } finally {
    await page.context().close();
  }
}

function wav(pcm: Buffer): Buffer {
  const head = Buffer.alloc(44);
  head.write('RIFF', 0, 'latin1');
  head.writeUInt32LE(36 + pcm.length, 4);
  head.write('WAVEfmt ', 8, 'latin1');
  head.writeUInt32LE(16, 16);
  head.writeUInt16LE(1, 20);
  head.writeUInt16LE(2, 22);
  head.writeUInt32LE(RATE_HZ, 24);
  head.writeUInt32LE(RATE_HZ * 4, 28);
  head.writeUInt16LE(4, 32);
  head.writeUInt16LE(16, 34);
  head.write('data', 36, 'latin1');
  head.writeUInt32LE(pcm.length, 40);
  return Buffer.concat([head, pcm]);
}
