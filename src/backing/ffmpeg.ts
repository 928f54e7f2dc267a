import { Readable, Writable } from 'node:stream';
import installer from '@ffmpeg-installer/ffmpeg';
import fluent from 'fluent-ffmpeg';
import { CHANNELS, type Codec, PRIMING_SAMPLES, type Rendition, SAMPLE_RATE_HZ } from '../media/ladder.js';
import type { Clock } from '../runtime/clock.js';
import { messageOf } from '../runtime/errors.js';
import { reportUnexpected } from '../runtime/unexpected.js';

/**
 * The only file that knows ffmpeg. A decoder turns a broadcaster's bytes into PCM, an encoder turns PCM into every rung of
 * the ladder in one Matroska stream. Both run as children that live on pipes alone (`-protocol_whitelist pipe`), so nothing
 * that a broadcaster sends can make them open a file or an address; with their standard input they end, however we died.
 */

/** What is accepted from broadcasters; ffmpeg's own names of the demuxers. `-f` is always given: nothing is probed. */
const DEMUXERS = { adts: 'aac', loas: 'loas', mp3: 'mp3', ogg: 'ogg', matroska: 'matroska', flac: 'flac', wav: 'wav' } as const;
export type DecodableFormat = keyof typeof DEMUXERS;

/** Little-endian and 8 bit, as WAV has it, and G.711. */
const WAV_DECODERS = ['pcm_u8', 'pcm_s16le', 'pcm_s24le', 'pcm_s32le', 'pcm_f32le', 'pcm_f64le', 'pcm_alaw', 'pcm_mulaw'] as const;

/**
 * ffmpeg's own names of the decoders that may run, for each demuxer: what `docs/limits.md` lists and nothing else. Without it ffmpeg opens
 * whatever a container names (WMA, TrueHD, pictures), a hundred parsers that nobody asked for. Both spellings of a decoder stand here where
 * ffmpeg has two; 2018's and 5.1 take the option.
 */
const DECODERS: Readonly<Record<DecodableFormat, readonly string[]>> = {
  adts: ['aac'],
  loas: ['aac_latm'],
  mp3: ['mp3float', 'mp3'],
  ogg: ['opus', 'libopus', 'vorbis', 'libvorbis', 'flac'],
  matroska: ['opus', 'libopus', 'vorbis', 'libvorbis', 'flac', 'aac', 'mp3float', 'mp3', ...WAV_DECODERS],
  flac: ['flac'],
  wav: WAV_DECODERS,
};

/**
 * One allocation of a child. The largest that honest audio needs is a FLAC picture block, 16 MiB by its format; a WAV of 1 Hz asked for 0.5 to
 * 1.8 GB.
 */
const MAX_ALLOC_BYTES = 32 * 1024 * 1024;

/** libopus looks ahead 312 samples at 48 kHz; the rest is added so that every CMAF rendition has the same delay. */
const OPUS_LOOKAHEAD_SAMPLES = 312;

/** A first start reads the binary from a cold disk. */
const CHECK_DEADLINE_MS = 20_000;

const ENCODER_OPTIONS: Readonly<Record<Codec, (stream: number) => string[]>> = {
  aac: (stream) => [`-c:a:${stream}`, 'aac'],
  opus: (stream) => {
    const delay = PRIMING_SAMPLES - OPUS_LOOKAHEAD_SAMPLES;
    // Unconstrained it makes 128 kbit/s of music at a nominal 96; the multivariant playlist promises less (rule 29).
    const rate = [`-vbr:a:${stream}`, 'constrained', `-frame_duration:a:${stream}`, '20'];
    return [`-c:a:${stream}`, 'libopus', ...rate, `-filter:a:${stream}`, `adelay=${delay}S|${delay}S`];
  },
  // Without a reservoir every frame stands alone: a segment's first frame would otherwise be silent by itself.
  mp3: (stream) => [`-c:a:${stream}`, 'libmp3lame', `-reservoir:a:${stream}`, '0', `-abr:a:${stream}`, '0'],
};

export interface TransformEvents {
  /** Output of the child; the buffer may be kept. */
  onData(bytes: Buffer): void;
  /** `write` may be called again after it returned false. */
  onDrain?(): void;
  /** Called once, after the last `onData`. `error` is ffmpeg's last words when it did not end well. */
  onExit(error: string | undefined): void;
}

/** A running ffmpeg with bytes in and bytes out. */
export interface Transform {
  /** Bytes are taken in any case; false asks to wait for `onDrain`. */
  write(bytes: Uint8Array): boolean;
  /** No more input; what is inside still comes out. */
  end(): void;
  /** Ends it now. `onExit` still comes. */
  kill(): void;
  /** Stops (and resumes) reading what the child puts out, so that it stops reading too. */
  pause(): void;
  resume(): void;
  /** For tests and metrics; undefined before the child runs. */
  readonly pid: number | undefined;
}

export class Ffmpeg {
  readonly path: string;
  readonly #environment: Readonly<Record<string, string>>;

  /**
   * `path`: another ffmpeg (≥ 4.1 with libopus and libmp3lame) than the one from npm. `environment` is all that children see: the service's own
   * has its secrets.
   */
  constructor(path: string | undefined, environment: Readonly<Record<string, string>> = {}) {
    this.path = path ?? installer.path;
    this.#environment = environment;
  }

  /** Encodes a fifth of a second of silence in every rung. Rejects with what is wrong with the ffmpeg that is configured. */
  async check(renditions: readonly Rendition[], clock: Clock): Promise<void> {
    let bytes = 0;
    const error = await new Promise<string | undefined>((resolve) => {
      let cancel = () => {};
      const encoder = this.encoder(renditions, {
        onData: (data) => {
          bytes += data.length;
        },
        onExit: (reason) => {
          cancel();
          resolve(reason ?? (bytes > 0 ? undefined : 'it puts nothing out'));
        },
      });
      cancel = clock.after(CHECK_DEADLINE_MS, () => {
        encoder.kill();
        resolve(`a fifth of a second of silence is not encoded after ${CHECK_DEADLINE_MS / 1000} s`);
      });
      encoder.write(new Uint8Array((SAMPLE_RATE_HZ / 5) * CHANNELS * 2));
      encoder.end();
    });
    if (error === undefined) return;
    throw new Error(`FFMPEG_PATH: ${this.path} does not work (${error}); it must be ffmpeg 4.1 or later with libopus and libmp3lame`);
  }

  /** Broadcaster's bytes → PCM s16le, 48 kHz, stereo. */
  decoder(format: DecodableFormat, events: TransformEvents): Transform {
    return this.#run(
      [
        ...['-codec_whitelist', DECODERS[format].join(',')],
        ...['-probesize', format === 'matroska' || format === 'ogg' ? '65536' : '2048'],
        ...['-analyzeduration', '0', '-f', DEMUXERS[format]],
      ],
      [
        '-map',
        '0:a:0',
        '-vn',
        '-c:a',
        'pcm_s16le',
        '-ar',
        String(SAMPLE_RATE_HZ),
        '-ac',
        String(CHANNELS),
        '-flush_packets',
        '1',
        '-f',
        's16le',
      ],
      events,
    );
  }

  /** PCM → Matroska with one track a rendition, in their order, each block flushed as it is made. */
  encoder(renditions: readonly Rendition[], events: TransformEvents): Transform {
    const output: string[] = [];
    for (const [stream, rendition] of renditions.entries()) {
      output.push('-map', '0:a', ...ENCODER_OPTIONS[rendition.codec](stream), `-b:a:${stream}`, `${rendition.bitrateKbps}k`);
    }
    // By default a frame waits until every other rung has one as late (the muxer sorts them): 20 ms more at the median. Frames are
    // counted here, so their order between rungs means nothing. The muxer holds a cluster back until it is whole; one of 21 ms
    // comes out once a tick, and costs half the wake-ups (55 a second) of one that holds a single frame, and no delay that was measured.
    output.push('-max_interleave_delta', '1', '-flush_packets', '1', '-cluster_time_limit', '21', '-f', 'matroska');
    const input = ['-probesize', '32', '-analyzeduration', '0', '-f', 's16le', '-ar', String(SAMPLE_RATE_HZ), '-ac', String(CHANNELS)];
    return this.#run(input, output, events);
  }

  #run(inputOptions: string[], outputOptions: string[], events: TransformEvents): Transform {
    // Half a second of PCM, or several of anything compressed.
    let full = false;
    const stdin = new Readable({
      highWaterMark: 96 * 1024,
      read() {
        if (!full) return;
        full = false;
        events.onDrain?.();
      },
    });
    let resumeOutput: (() => void) | undefined;
    let paused = false;
    const stdout = new Writable({
      highWaterMark: 256 * 1024,
      write(bytes: Buffer, _encoding, done) {
        try {
          events.onData(bytes);
        } catch (error) {
          // Thrown on, it would be nobody's, and the child would wait for ever to be read from.
          reportUnexpected(error);
          fault ??= messageOf(error);
          command.kill('SIGKILL');
        }
        if (paused) resumeOutput = done;
        else done();
      },
    });
    let ended = false;
    let killed = false;
    /** Why what it puts out cannot be used. */
    let fault: string | undefined;
    let exited = false;
    let hasRun = false;
    const exit = (error: string | undefined) => {
      if (exited) return;
      exited = true;
      // Never before the caller has the transform, though a child that cannot be started is known of at once.
      queueMicrotask(() => events.onExit(fault ?? error));
    };
    // Everything has passed through `stdout` when it is finished, not before; also of a decoder that ends badly, as one does that met too much
    // it could not decode: what it made before is good. One that was killed, or never ran, has nothing to say.
    const exitAfterOutput = (error: string | undefined) => {
      if (killed || stdout.writableFinished || stdout.destroyed || !hasRun) exit(error);
      else stdout.once('finish', () => exit(error)).once('error', () => exit(error));
    };
    const command = fluent({ logger: undefined })
      .setFfmpegPath(this.path)
      .input(stdin)
      .inputOptions([
        '-hide_banner',
        '-nostats',
        '-v',
        'error',
        '-max_alloc',
        String(MAX_ALLOC_BYTES),
        '-protocol_whitelist',
        'pipe',
        ...inputOptions,
      ])
      .output(stdout, { end: true })
      .outputOptions(outputOptions)
      .on('start', () => {
        hasRun = child.ffmpegProc?.pid !== undefined;
        if (killed) command.kill('SIGKILL');
      })
      .on('error', (error: Error, _stdout: string | null, stderr: string | null) => exitAfterOutput(lastWords(stderr) ?? error.message))
      .on('end', () => exitAfterOutput(undefined));
    const child = command as unknown as { ffmpegProc?: { pid?: number } };
    // A child that dies breaks the pipe; its exit is what is reported.
    stdout.on('error', () => undefined);
    guardSpawn(command, this.#environment);
    command.run();

    return {
      write: (bytes) => {
        if (ended || stdin.destroyed) return true;
        full = !stdin.push(bytes);
        return !full;
      },
      end: () => {
        if (!ended) stdin.push(null);
        ended = true;
      },
      kill: () => {
        killed = true;
        command.kill('SIGKILL');
      },
      pause: () => {
        paused = true;
      },
      resume: () => {
        paused = false;
        const done = resumeOutput;
        resumeOutput = undefined;
        done?.();
      },
      get pid() {
        return child.ffmpegProc?.pid;
      },
    };
  }
}

/**
 * fluent-ffmpeg 2.1 takes it for granted that a child could be started, and throws out of an event handler when it could not (no more
 * processes or descriptors, the file replaced): that would end every stream of the process. It is told as any other exit instead.
 * Every child, also those that list ffmpeg's formats and encoders, is started here, so here it gets its environment.
 */
function guardSpawn(command: object, env: Readonly<Record<string, string>>): void {
  const inner = command as { _spawnFfmpeg(...args: unknown[]): void };
  const spawn = inner._spawnFfmpeg;
  const noLines = { get: () => '' };
  inner._spawnFfmpeg = (childArguments, ...args) => {
    const ended = args.at(-1) as (...results: unknown[]) => void;
    const end = (error: unknown, stdout: unknown = noLines, stderr: unknown = noLines) => ended(error, stdout, stderr);
    const given = args.slice(0, -1);
    const options = typeof given[0] === 'object' ? given.shift() : {};
    try {
      spawn.call(command, childArguments, { ...(options as object), env }, ...given, end);
    } catch (error) {
      end(error);
    }
  };
}

function lastWords(stderr: string | null): string | undefined {
  const refused = /Codec \((\w+)\) not on whitelist/.exec(stderr ?? '');
  if (refused) return `the codec ${refused[1]} is not taken`;
  const lines = (stderr ?? '').split('\n').filter((line) => line.trim().length > 0);
  return lines.at(-1)?.trim().slice(0, 300);
}
