import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { decode, RATE_HZ } from '../support/audio.js';
import { type Running, run, start } from '../support/process.js';

/**
 * What is published in the measurements: AAC made beforehand, sent frame by frame by a process of its own.
 *
 * "Sound into RTMP" is the moment at which the last sample that a frame decodes to is due, and at that moment the frame is sent. So a
 * broadcaster's own encoder is not in the figures; `encoderDelay` measures it beside them.
 */

/** Beeps a second apart; the pitch tells which one it is, so a delay is certain up to eight seconds. */
export const BEEP_HZ = [800, 1200, 1700, 2400, 3300, 4500, 6000, 7800] as const;
export const BEEP_PERIOD_S = 1;
const BEEP_S = 0.08;
export const AAC_FRAME = 1024;
export const FRAME_MS = (AAC_FRAME * 1000) / RATE_HZ;

/** Stereo s16le with a beep at the middle of each second, quiet noise below it (a codec that sees digital silence is not at work). */
export function beepPcm(seconds: number): Buffer {
  const samples = Math.round(seconds * RATE_HZ);
  const pcm = Buffer.alloc(samples * 4);
  const ramp = RATE_HZ / 1000;
  const length = BEEP_S * RATE_HZ;
  let noise = 1;
  for (let at = 0; at < samples; at++) {
    noise = (Math.imul(noise, 1_103_515_245) + 12_345) | 0;
    let x = (noise / 2 ** 31) * 0.0005;
    const beep = Math.floor(at / (BEEP_PERIOD_S * RATE_HZ));
    const into = at - (beep + 0.5) * BEEP_PERIOD_S * RATE_HZ;
    if (into >= 0 && into < length) {
      const gain = Math.min(1, into / ramp, (length - into) / ramp);
      x += 0.5 * gain * Math.sin((2 * Math.PI * BEEP_HZ[beep % BEEP_HZ.length]! * into) / RATE_HZ);
    }
    const value = Math.round(x * 32_767);
    pcm.writeInt16LE(value, at * 4);
    pcm.writeInt16LE(value, at * 4 + 2);
  }
  return pcm;
}

/** Something like music for an encoder: voices that move, and noise. */
const MUSIC =
  'aevalsrc=0.12*sin(2*PI*(220+8*sin(t*0.7))*t)+0.1*sin(2*PI*331*t)*sin(2*PI*1.9*t)+0.08*sin(2*PI*(1250+300*sin(t*1.3))*t)+0.05*sin(2*PI*5200*t)*exp(-8*mod(t\\,0.5))|' +
  '0.12*sin(2*PI*(277+6*sin(t*0.9))*t)+0.1*sin(2*PI*415*t)*sin(2*PI*1.4*t)+0.08*sin(2*PI*(1830+200*sin(t*1.1))*t)+0.05*sin(2*PI*6400*t)*exp(-8*mod(t\\,0.37)):s=48000';

const ENCODE = ['-c:a', 'aac', '-b:a', '160k', '-f', 'adts'];

export interface PreparedSound {
  readonly path: string;
  readonly seconds: number;
  remove(): Promise<void>;
}

async function prepared(seconds: number, make: (path: string) => Promise<unknown>): Promise<PreparedSound> {
  const dir = await mkdtemp(join(tmpdir(), 'veza-bench-'));
  const path = join(dir, 'sound.aac');
  await make(path);
  return { path, seconds, remove: () => rm(dir, { recursive: true, force: true }) };
}

export function prepareMusic(seconds: number): Promise<PreparedSound> {
  const noise = ['-f', 'lavfi', '-i', `anoisesrc=c=pink:a=0.15:r=48000:d=${seconds}`];
  return prepared(seconds, (path) =>
    run('/usr/bin/ffmpeg', [
      ...['-v', 'error', '-nostdin', '-y', '-f', 'lavfi', '-i', MUSIC, ...noise],
      ...['-filter_complex', '[0:a][1:a]amix=inputs=2:duration=shortest[out]', '-map', '[out]', '-ac', '2', '-t', `${seconds}`],
      ...[...ENCODE, path],
    ]),
  );
}

export interface PreparedBeeps extends PreparedSound {
  /** Samples, in what the frames decode to, at which beeps begin. */
  readonly onsets: readonly Onset[];
  /** Length of one turn of the file. */
  readonly samples: number;
}

export async function prepareBeeps(seconds: number): Promise<PreparedBeeps> {
  const sound = await prepared(seconds, async (path) => {
    const raw = `${path}.pcm`;
    await writeFile(raw, beepPcm(seconds));
    await run('/usr/bin/ffmpeg', ['-v', 'error', '-nostdin', '-y', '-f', 's16le', '-ar', '48000', '-ac', '2', '-i', raw, ...ENCODE, path]);
  });
  const { left } = await decode(sound.path);
  return { ...sound, onsets: findBeeps(left), samples: left.length };
}

export interface Onset {
  readonly at: number;
  /** Index into `BEEP_HZ`. */
  readonly pitch: number;
}

/**
 * Where beeps begin: the first sample above a fifth of full beep level after 100 ms of quiet. Used on what is sent and on what is heard
 * alike, so that what it is late by cancels out.
 */
export function findBeeps(samples: Float32Array): Onset[] {
  const threshold = 0.1;
  const quiet = RATE_HZ / 10;
  const look = Math.round(RATE_HZ * 0.03);
  const onsets: Onset[] = [];
  let loudAt = 0;
  for (let at = 0; at + look < samples.length; at++) {
    if (Math.abs(samples[at]!) < threshold) continue;
    if (at - loudAt > quiet) {
      const pitch = pitchOf(samples.subarray(at, at + look));
      if (pitch !== undefined) onsets.push({ at, pitch });
    }
    loudAt = at;
  }
  return onsets;
}

function pitchOf(samples: Float32Array): number | undefined {
  const powers = BEEP_HZ.map((hz) => {
    let re = 0;
    let im = 0;
    samples.forEach((x, at) => {
      re += x * Math.cos((2 * Math.PI * hz * at) / RATE_HZ);
      im += x * Math.sin((2 * Math.PI * hz * at) / RATE_HZ);
    });
    return re * re + im * im;
  });
  const best = powers.indexOf(Math.max(...powers));
  const rest = powers.reduce((sum, power) => sum + power, 0) - powers[best]!;
  return rest < powers[best]! / 2 ? best : undefined;
}

export interface Publishing {
  /** Wall clock at which the first sample of the first frame was due. */
  readonly startWallMs: number;
  /** The latest that any frame was sent after it was due. */
  latenessMs(): number;
  stop(): Promise<void>;
}

/** Sends the sound again and again to each of the stream keys, from a process of its own. */
export async function publish(port: number, keys: readonly string[], sound: PreparedSound): Promise<Publishing> {
  const child: Running = start(process.execPath, [
    ...['--import', 'tsx', new URL('./publisher.ts', import.meta.url).pathname],
    ...[String(port), sound.path, ...keys],
  ]);
  let latenessMs = 0;
  child.child.stdout?.on('data', (text: Buffer) => {
    for (const match of text.toString().matchAll(/late (\S+)/g)) latenessMs = Math.max(latenessMs, Number(match[1]));
  });
  const startWallMs = Number(await child.printed(/start (\S+)/));
  return {
    startWallMs,
    latenessMs: () => latenessMs,
    stop: async () => {
      await child.kill('SIGTERM');
    },
  };
}

/**
 * What a broadcaster's encoder adds before RTMP: ffmpeg's AAC fed with 10 ms of PCM every 10 ms. For each frame, from the last sample that
 * it decodes to, to its arrival here; milliseconds.
 */
export async function encoderDelay(seconds = 10): Promise<number[]> {
  const encoder = start('/usr/bin/ffmpeg', [
    ...['-v', 'error', '-probesize', '32', '-analyzeduration', '0', '-f', 's16le', '-ar', '48000', '-ac', '2', '-i', 'pipe:0'],
    ...['-c:a', 'aac', '-b:a', '160k', '-flush_packets', '1', '-f', 'adts', 'pipe:1'],
  ]);
  const pcm = beepPcm(seconds);
  const blockMs = 10;
  const blockBytes = (RATE_HZ / 100) * 4;
  const delays: number[] = [];
  let frames = 0;
  let carry = Buffer.alloc(0);
  let startMs = 0;
  encoder.child.stdout?.on('data', (bytes: Buffer) => {
    carry = Buffer.concat([carry, bytes]);
    while (carry.length >= 7) {
      const size = (carry.readUIntBE(3, 3) >> 5) & 0x1fff;
      if (carry.length < size) break;
      carry = carry.subarray(size);
      // The encoder's priming is one frame: frame n decodes to the samples up to n × 1024 of what went in.
      if (frames > 50) delays.push(performance.now() - startMs - frames * FRAME_MS);
      frames++;
    }
  });
  startMs = performance.now();
  for (let block = 0; (block + 1) * blockBytes <= pcm.length; block++) {
    const dueMs = startMs + (block + 1) * blockMs;
    const waitMs = dueMs - performance.now();
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    encoder.child.stdin?.write(pcm.subarray(block * blockBytes, (block + 1) * blockBytes));
  }
  await encoder.kill();
  return delays;
}
