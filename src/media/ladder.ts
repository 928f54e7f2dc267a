/** All media in Veza is 48 kHz stereo: only at this rate AAC, Opus and MP3 share a grid. */
export const SAMPLE_RATE_HZ = 48_000;
export const CHANNELS = 2;

export type Codec = 'aac' | 'opus' | 'mp3';

/** Samples per frame of each codec at 48 kHz. */
export const FRAME_SAMPLES: Readonly<Record<Codec, number>> = { aac: 1024, opus: 960, mp3: 1152 };

/**
 * 960 ms, the shortest time that is a whole number of AAC, Opus and MP3 frames (45, 48 and 40).
 * After 320 ms, which AAC and Opus have in common, an MP3 frame is not complete.
 */
export const COMMON_FRAME_SAMPLES = 46_080;

/**
 * Samples of encoder delay at the start of a run, the same in every CMAF rendition, so that a
 * player can change rendition without a jump. AAC has 1,024 by itself; Opus has 312 and is delayed
 * by the rest. The init segment declares them as an edit list.
 */
export const PRIMING_SAMPLES = 1024;

export interface Rendition {
  /** `{codec}-{kbit/s}`; part of every media address. */
  readonly name: string;
  readonly codec: Codec;
  readonly bitrateKbps: number;
  /** The codec by RFC 6381. */
  readonly codecs: string;
  /**
   * True for CMAF with parts. False for packed audio, which is not in the multivariant playlist.
   */
  readonly lowLatency: boolean;
  /**
   * RFC 8216bis SCORE: a higher one is preferred. AAC rises with its bitrate. Opus is the lowest,
   * because some players change from one codec to another.
   */
  readonly score: number;
}

/** All renditions that Veza can make, in the order of the multivariant playlist. */
export const LADDER: readonly Rendition[] = [
  { name: 'aac-64', codec: 'aac', bitrateKbps: 64, codecs: 'mp4a.40.2', lowLatency: true, score: 2 },
  { name: 'aac-128', codec: 'aac', bitrateKbps: 128, codecs: 'mp4a.40.2', lowLatency: true, score: 3 },
  { name: 'aac-256', codec: 'aac', bitrateKbps: 256, codecs: 'mp4a.40.2', lowLatency: true, score: 4 },
  { name: 'opus-96', codec: 'opus', bitrateKbps: 96, codecs: 'opus', lowLatency: true, score: 1 },
  { name: 'mp3-128', codec: 'mp3', bitrateKbps: 128, codecs: 'mp4a.40.34', lowLatency: false, score: 0 },
];

export interface LadderOptions {
  codecs: readonly Codec[];
  /** False keeps one rendition per codec: the one nearest to `defaultKbps`. */
  adaptive: boolean;
  defaultKbps: number;
}

/** The renditions that a configuration asks for, in the order of `LADDER`. */
export function chooseLadder(options: LadderOptions): Rendition[] {
  const wanted = LADDER.filter((rendition) => options.codecs.includes(rendition.codec));
  if (options.adaptive) return wanted;
  return options.codecs
    .map((codec) => wanted.filter((rendition) => rendition.codec === codec))
    .filter((renditions) => renditions.length > 0)
    .map((renditions) =>
      renditions.reduce((best, rendition) =>
        Math.abs(rendition.bitrateKbps - options.defaultKbps) < Math.abs(best.bitrateKbps - options.defaultKbps) ? rendition : best,
      ),
    )
    .sort((a, b) => LADDER.indexOf(a) - LADDER.indexOf(b));
}
