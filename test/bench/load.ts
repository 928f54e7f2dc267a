import { Ffmpeg } from '../../src/backing/ffmpeg.js';
import { LADDER } from '../../src/media/ladder.js';
import { median } from '../support/audio.js';
import { cpuSeconds, ownCpuSeconds, rssBytes } from '../support/cpu.js';
import { type PlayerKind, Players } from '../support/players.js';
import { type Running, start } from '../support/process.js';
import { Server } from '../support/server.js';
import { listenWith } from './latency.js';
import { type Figure, figure, say, sleep } from './report.js';
import { type PreparedSound, prepareMusic, publish } from './sound.js';

/** From on air to the first measurement: V8 compiles what is hot in the first half minute, which costs half as much again. */
const WARM_UP_S = 30;
const SOUND_S = 60;

export interface CpuOptions {
  /** Of each measurement. */
  readonly seconds: number;
  readonly rounds: number;
}

/**
 * CPU of the whole service (Node, decoders, encoders) with so many streams on air, beside as many bare ffmpegs with `-re` that decode the same
 * AAC and encode the same five rungs. Both at the same time: what one and the same encoder costs changes by a fifth from one minute to
 * the next on a machine that is shared, and by as much with what its other half of a core is doing. The median of the ratios.
 */
export async function measureCpu(streams: number, most: number, options: CpuOptions): Promise<Figure[]> {
  const sound = await prepareMusic(SOUND_S);
  const server = await Server.start({ embeddedDatabase: true });
  try {
    const channels = Array.from({ length: streams }, (_, index) => `bench-${index + 1}`);
    const keys = await Promise.all(channels.map((channel) => server.createChannel(channel)));
    const publishing = await publish(server.rtmpPort, keys, sound);
    await Promise.all(channels.map((channel) => server.onAir(channel, 3)));
    const bare = startBare(sound, streams);
    const rounds: { service: number; node: number; bare: number }[] = [];
    try {
      await sleep(WARM_UP_S * 1000);
      for (let round = 0; round < options.rounds; round++) {
        const encodedFrom = bare.encodedS();
        const used = await usedMs(options.seconds * 1000, [() => cpuSeconds(server.pid), () => ownCpuSeconds(server.pid), bare.cpuS]);
        const [service = 0, node = 0, ffmpeg = 0] = used.map((ms) => ms / streams);
        // On a machine that is too busy `-re` falls behind, and would look cheap.
        const share = (bare.encodedS() - encodedFrom) / streams / options.seconds;
        if (share < 0.95)
          say(`the bare ffmpeg kept up with ${(share * 100).toFixed(0)} % of real time only: this machine is too busy to measure on`);
        rounds.push({ service, node, bare: ffmpeg / share });
        say(
          `${streams} streams, round ${round + 1}: service ${service.toFixed(1)} ms a stream-second, of it Node ${node.toFixed(1)}; ` +
            `ffmpeg ${(ffmpeg / share).toFixed(1)}; ratio ${((service / ffmpeg) * share).toFixed(3)}`,
        );
      }
    } finally {
      await bare.stop();
      await publishing.stop();
    }
    const of = (key: 'service' | 'node' | 'bare') => median(rounds.map((round) => round[key]));
    const ratio = median(rounds.map(({ service, bare }) => service / bare));
    const streamsText = streams === 1 ? 'one stream' : `${streams} streams`;
    return [
      figure(`CPU of the service, ${streamsText}, five rungs ÷ bare ffmpeg -re`, ratio, '×', { most }, { name: 'ffmpeg', value: 1 }),
      figure(`CPU of the service, ${streamsText}`, of('service'), 'ms/stream-s', undefined, { name: 'ffmpeg', value: of('bare') }),
      figure(`of it Node, ${streamsText}`, of('node'), 'ms/stream-s', undefined),
    ];
  } finally {
    await server.stop();
    await sound.remove();
  }
}

/** What each counter rose by, in ms a second of this machine's time. */
async function usedMs(durationMs: number, counters: readonly (() => number)[]): Promise<number[]> {
  const before = counters.map((count) => count());
  const fromMs = performance.now();
  await sleep(durationMs);
  const passedS = (performance.now() - fromMs) / 1000;
  return counters.map((count, index) => ((count() - before[index]!) * 1000) / passedS);
}

const BARE_ENCODERS = {
  aac: () => ['aac'],
  opus: (stream: number) => ['libopus', `-frame_duration:a:${stream}`, '20'],
  mp3: (stream: number) => ['libmp3lame', `-reservoir:a:${stream}`, '0'],
} as const;

interface Bare {
  /** CPU seconds of all of them. */
  cpuS(): number;
  /** Seconds of audio that they have put out, added up. */
  encodedS(): number;
  stop(): Promise<void>;
}

function startBare(sound: PreparedSound, streams: number): Bare {
  const rungs = LADDER.flatMap(({ codec, bitrateKbps }, stream) => [
    ...['-map', '0:a', `-c:a:${stream}`, ...BARE_ENCODERS[codec](stream)],
    ...[`-b:a:${stream}`, `${bitrateKbps}k`],
  ]);
  const args = [
    '-progress',
    'pipe:2',
    '-v',
    'error',
    '-nostdin',
    '-nostats',
    '-re',
    '-stream_loop',
    '-1',
    '-f',
    'aac',
    '-i',
    sound.path,
    ...rungs,
    '-f',
    'matroska',
    'pipe:1',
  ];
  const children: Running[] = Array.from({ length: streams }, () =>
    start(new Ffmpeg(undefined).path, args, { stdio: ['ignore', 'ignore', 'pipe'] }),
  );
  const running = () => {
    const gone = children.find(({ child }) => child.exitCode !== null);
    if (gone) throw new Error(`the bare ffmpeg ended: ${gone.stderr()}`);
    return children;
  };
  return {
    cpuS: () => running().reduce((sum, { child }) => sum + cpuSeconds(child.pid!), 0),
    encodedS: () => running().reduce((sum, child) => sum + encodedS(child), 0),
    stop: async () => void (await Promise.all(children.map((child) => child.kill()))),
  };
}

/** Seconds of audio that an ffmpeg has put out, by its `-progress`. */
function encodedS(ffmpeg: Running): number {
  const [time] = [...ffmpeg.stderr().matchAll(/out_time_ms=(\d+)/g)].slice(-1);
  // Microseconds, in spite of its name.
  return Number(time?.[1] ?? 0) / 1e6;
}

/** What a listener would notice in so many minutes: stalls, jumps, restarts. All players at once, on one stream. */
export async function measureStalls(minutes: number): Promise<Figure[]> {
  const sound = await prepareMusic(SOUND_S);
  const server = await Server.start({ embeddedDatabase: true });
  const players = await Players.start();
  try {
    const key = await server.createChannel('bench');
    const publishing = await publish(server.rtmpPort, [key], sound);
    await server.onAir('bench', 6);
    const kinds: readonly (readonly [PlayerKind, string])[] = [
      ['hls.js', 'master.m3u8'],
      ['dash.js', 'manifest.mpd'],
      ['shaka', 'manifest.mpd'],
    ];
    const listeners = await Promise.all(kinds.map(([kind, path]) => listenWith(players, kind, `${server.url}/live/bench/${path}`)));
    // A player that finds its place is not yet one that stalls.
    await sleep(10_000);
    const before = await Promise.all(
      listeners.map(async (player) => ({ heard: await player.disturbances(), at: (await player.state()).currentTimeS })),
    );
    const fromMs = performance.now();
    await sleep(minutes * 60_000);
    const passedS = (performance.now() - fromMs) / 1000;
    const figures: Figure[] = [];
    for (const [index, player] of listeners.entries()) {
      const noticed = (await player.disturbances()).slice(before[index]!.heard.length);
      const played = (await player.state()).currentTimeS - before[index]!.at;
      const name = kinds[index]![0];
      say(
        `${name}: ${played.toFixed(1)} s played in ${passedS.toFixed(1)} s; ${noticed.map(({ type, detail }) => `${type} ${detail}`).join(', ') || 'undisturbed'}`,
      );
      if (played < passedS * 0.9) throw new Error(`${name} did not go on playing`);
      figures.push(figure(`stalls and jumps in ${minutes} min, ${name}`, noticed.length, '', { most: 0 }));
    }
    await publishing.stop();
    return figures;
  } finally {
    await players.stop();
    await server.stop();
    await sound.remove();
  }
}

/** Resident memory of the Node process after so many minutes on air, ÷ that at a sixth of the time. */
export async function measureMemory(minutes: number): Promise<Figure[]> {
  const sound = await prepareMusic(SOUND_S);
  const server = await Server.start({ embeddedDatabase: true });
  try {
    const key = await server.createChannel('bench');
    const publishing = await publish(server.rtmpPort, [key], sound);
    await server.onAir('bench', 3);
    // The mean over the last tenth of each stretch: a single reading depends on when the garbage was collected last.
    const mean = async (seconds: number) => {
      const readings: number[] = [];
      for (let left = seconds; left > 0; left--) {
        await sleep(1000);
        readings.push(rssBytes(server));
      }
      return readings.reduce((sum, bytes) => sum + bytes, 0) / readings.length / 2 ** 20;
    };
    const early = (minutes / 6) * 60;
    await sleep(early * 900);
    const first = await mean(Math.max(1, early / 10));
    await sleep((minutes * 60 - early - early / 10) * 1000);
    const last = await mean(Math.max(1, early / 10));
    await publishing.stop();
    return [
      figure(`memory after ${minutes} min on air ÷ after ${minutes / 6} min`, last / first, '×', { most: 1.1 }),
      figure(`memory after ${minutes} min on air`, last, 'MiB', undefined),
    ];
  } finally {
    await server.stop();
    await sound.remove();
  }
}
