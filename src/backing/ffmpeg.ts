import { Readable, Writable } from 'node:stream';
import installer from '@ffmpeg-installer/ffmpeg';
import fluent from 'fluent-ffmpeg';
import { CHANNELS, type Codec, PRIMING_SAMPLES, type Rendition, SAMPLE_RATE_HZ } from '../media/ladder.js';
import type { Clock } from '../runtime/clock.js';
import { messageOf } from '../runtime/errors.js';
import { reportUnexpected } from '../runtime/unexpected.js';

/**
 * The only file that knows ffmpeg. A decoder turns a broadcaster's bytes into PCM; an encoder turns
 * PCM into every rendition, in one Matroska stream. Both run as child processes that use pipes only
 * (`-protocol_whitelist pipe`), so that a broadcaster's bytes cannot make them open a file or an
 * address. They end when their standard input closes, however this process ended.
 */

/**
 * The accepted source formats with ffmpeg's names of the demuxers. `-f` is always given, so ffmpeg
 * never guesses a format.
 */
const DEMUXERS = { adts: 'aac', loas: 'loas', mp3: 'mp3', ogg: 'ogg', matroska: 'matroska', flac: 'flac', wav: 'wav' } as const;
export type DecodableFormat = keyof typeof DEMUXERS;

/** The codecs of WAV: little-endian and 8-bit PCM, and G.711. */
const WAV_DECODERS = ['pcm_u8', 'pcm_s16le', 'pcm_s24le', 'pcm_s32le', 'pcm_f32le', 'pcm_f64le', 'pcm_alaw', 'pcm_mulaw'] as const;

/**
 * ffmpeg's names of the decoders that may run for each demuxer: exactly those that `docs/limits.md`
 * lists. Without this list ffmpeg opens whatever a container names (WMA, TrueHD, pictures), which
 * would expose a hundred parsers that the service does not need. Where ffmpeg has two names for a
 * decoder, both are listed. ffmpeg of 2018 and 5.1 support the option.
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
 * Bytes of a single allocation in a child, at most. The largest that valid audio needs is a FLAC
 * picture block, 16 MiB by its format. A WAV of 1 Hz asked for 0.5 to 1.8 GB.
 */
const MAX_ALLOC_BYTES = 32 * 1024 * 1024;

/**
 * libopus has a delay of 312 samples at 48 kHz. The filter adds the rest, so that every CMAF
 * rendition has the same delay.
 */
const OPUS_LOOKAHEAD_SAMPLES = 312;

/** The time limit of `check`: the first start of ffmpeg reads the binary from a cold disk. */
const CHECK_DEADLINE_MS = 20_000;

const ENCODER_OPTIONS: Readonly<Record<Codec, (stream: number) => string[]>> = {
  aac: (stream) => [`-c:a:${stream}`, 'aac'],
  opus: (stream) => {
    const delay = PRIMING_SAMPLES - OPUS_LOOKAHEAD_SAMPLES;
    // Unconstrained, libopus makes 128 kbit/s of music at a nominal 96, more than the multivariant
    // playlist declares (rule 29).
    const rate = [`-vbr:a:${stream}`, 'constrained', `-frame_duration:a:${stream}`, '20'];
    return [`-c:a:${stream}`, 'libopus', ...rate, `-filter:a:${stream}`, `adelay=${delay}S|${delay}S`];
  },
  // Without the bit reservoir each frame can be decoded alone. With it, a segment's first frame
  // would be silent when it is decoded alone.
  mp3: (stream) => [`-c:a:${stream}`, 'libmp3lame', `-reservoir:a:${stream}`, '0', `-abr:a:${stream}`, '0'],
};

export interface TransformEvents {
  /** Output of the child. The receiver may keep the buffer. */
  onData(bytes: Buffer): void;
  /** After `write` has returned false: the caller may write again. */
  onDrain?(): void;
  /**
   * Called once, after the last `onData`. `error` is ffmpeg's last line when it failed, else
   * undefined.
   */
  onExit(error: string | undefined): void;
}

/** A running ffmpeg with bytes in and bytes out. */
export interface Transform {
  /**
   * Writes input. The bytes are accepted in any case; false asks the caller to wait for `onDrain`.
   */
  write(bytes: Uint8Array): boolean;
  /** Ends the input. The remaining output still arrives. */
  end(): void;
  /** Ends the child at once. `onExit` is still called. */
  kill(): void;
  /**
   * Stops reading the child's output, so that the child stops reading input too. `resume` starts
   * again.
   */
  pause(): void;
  resume(): void;
  /** The child's process id, for tests and metrics; undefined before the child runs. */
  readonly pid: number | undefined;
}

export class Ffmpeg {
  readonly path: string;
  readonly #environment: Readonly<Record<string, string>>;

  /**
   * `path`: an ffmpeg (≥ 4.1 with libopus and libmp3lame) to use instead of the one from npm.
   * `environment`: all variables that a child gets, because the service's own environment has
   * secrets.
   */
  constructor(path: string | undefined, environment: Readonly<Record<string, string>> = {}) {
    this.path = path ?? installer.path;
    this.#environment = environment;
  }

  /**
   * Encodes a fifth of a second of silence in every rendition. Rejects with the reason when the
   * configured ffmpeg cannot do it.
   */
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

  /** Decodes a broadcaster's bytes to PCM: s16le, 48 kHz, stereo. */
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

  /**
   * Encodes PCM to Matroska with one track per rendition, in the order given. Each block is flushed
   * as soon as it is made.
   */
  encoder(renditions: readonly Rendition[], events: TransformEvents): Transform {
    const output: string[] = [];
    for (const [stream, rendition] of renditions.entries()) {
      output.push('-map', '0:a', ...ENCODER_OPTIONS[rendition.codec](stream), `-b:a:${stream}`, `${rendition.bitrateKbps}k`);
    }
    // By default the muxer sorts frames, so a frame waits until every other rendition has one as
    // late: 20 ms more at the median. Frames are counted here, so their order between renditions
    // does not matter. The muxer also holds a cluster back until it is complete. A cluster of 21 ms
    // comes out once per tick, and needs half the wake-ups (55 per second) of a cluster with a
    // single frame, without a measurable delay.
    output.push('-max_interleave_delta', '1', '-flush_packets', '1', '-cluster_time_limit', '21', '-f', 'matroska');
    const input = ['-probesize', '32', '-analyzeduration', '0', '-f', 's16le', '-ar', String(SAMPLE_RATE_HZ), '-ac', String(CHANNELS)];
    return this.#run(input, output, events);
  }

  #run(inputOptions: string[], outputOptions: string[], events: TransformEvents): Transform {
    // The input buffer holds half a second of PCM, or several seconds of compressed audio.
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
          // An exception here would be unhandled, and the child would wait for ever to be read.
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
    /** Why the child's output cannot be used. */
    let fault: string | undefined;
    let exited = false;
    let hasRun = false;
    const exit = (error: string | undefined) => {
      if (exited) return;
      exited = true;
      // `onExit` is never called before the caller has the transform, although a child that cannot
      // start fails at once.
      queueMicrotask(() => events.onExit(fault ?? error));
    };
    // All output has passed through `stdout` when `stdout` has finished, and not before. This also
    // applies to a decoder that fails, for example after too much undecodable input: its earlier
    // output is good. A child that was killed or never ran has no output to wait for.
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
      .on('error', (error: Error, _stdout: string | null, stderr: string | null) => exitAfterOutput(lastLine(stderr) ?? error.message))
      .on('end', () => exitAfterOutput(undefined));
    const child = command as unknown as { ffmpegProc?: { pid?: number } };
    // A child that dies breaks the pipe; only its exit is reported.
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
 * fluent-ffmpeg 2.1 assumes that a child could be started. If it could not (no more processes or
 * descriptors, the file replaced), fluent-ffmpeg throws in an event handler, which would end every
 * broadcast of the process. This function reports such a failure as an ordinary exit. All children
 * are started here, including those that list ffmpeg's formats and encoders, so here they also get
 * their environment.
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

function lastLine(stderr: string | null): string | undefined {
  const refused = /Codec \((\w+)\) not on whitelist/.exec(stderr ?? '');
  if (refused) return `the codec ${refused[1]} is not taken`;
  const lines = (stderr ?? '').split('\n').filter((line) => line.trim().length > 0);
  return lines.at(-1)?.trim().slice(0, 300);
}
