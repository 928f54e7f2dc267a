import { z } from 'zod';

/**
 * What app and worker say to each other on the worker's internal port, HTTP/1.1 with keep-alive:
 *
 *   GET  /v1/feed                             lines of JSON without end: what is on air, and each change of it
 *   GET  /v1/media/{slug}/{rendition}/{name}  a segment or init segment in frames; 404: not in memory
 *   POST /v1/channels/{slug}/end              {reason}           → {done, sequence}
 *   POST /v1/channels/{slug}/title            {title, artist?}   → {done, sequence}
 *
 * The feed begins with `hello`, then a `show` with everything about each channel that has a view, then `synced`; from there on a `show` has
 * what has changed. An app that reads up to `sequence` knows what its act has done.
 */
export const PROTOCOL = 1;

/** How often the feed says something, if only that it is there. */
export const BEAT_MS = 1000;
/** One line of the feed; the longest hold all the titles of a show. */
export const MAX_LINE_BYTES = 8 * 1024 * 1024;
/** One frame: a part, or a whole segment of packed audio. */
export const MAX_FRAME_BYTES = 4 * 1024 * 1024;

/** Of a media answer: how many frames there were when it was asked for, and whether these are all. */
export const FRAMES_HEADER = 'veza-frames';
export const COMPLETE_HEADER = 'veza-complete';

const int = z.int().min(0);

const renditionSchema = z.object({
  name: z.string().regex(/^(aac|opus|mp3)-\d{1,4}$/),
  codec: z.enum(['aac', 'opus', 'mp3']),
  bitrateKbps: int,
  codecs: z.string().max(64),
  lowLatency: z.boolean(),
  score: z.number(),
});

const progressSchema = z.object({ openNumber: int, openParts: int });

/** What never changes in a view. */
const viewSchema = z.object({
  broadcastId: z.string().max(64),
  renditions: z.array(renditionSchema).min(1).max(32),
  grid: z.object({ segmentSamples: int.min(1), partSamples: int.min(1) }),
  firstNumber: int,
});

const runSchema = z.object({ id: z.string().regex(/^[0-9a-z]{1,64}$/), firstNumber: int, discontinuity: int, startWallMs: z.number() });

const titleSchema = z.object({
  id: z.string().max(64),
  startWallMs: z.number(),
  title: z.string(),
  artist: z.string().exactOptional(),
});

export const showSchema = z.object({
  channel: z.string().max(128),
  /** Another one is another presentation: nothing of the one before holds. */
  viewId: z.string().max(64),
  view: viewSchema.exactOptional(),
  runs: z.array(runSchema).min(1).exactOptional(),
  gaps: z.array(int).exactOptional(),
  titles: z.array(titleSchema).exactOptional(),
  progress: z.object({
    aac: progressSchema.exactOptional(),
    opus: progressSchema.exactOptional(),
    mp3: progressSchema.exactOptional(),
  }),
  ended: z.boolean(),
  /** Segments that can be asked for, in some rendition at least. */
  held: z.array(int),
  state: z.enum(['offline', 'live', 'holding']),
  title: z.string().exactOptional(),
  startWallMs: z.number().exactOptional(),
});

export const lineSchema = z.union([
  z.object({ show: showSchema, sequence: int }),
  z.object({ beat: int }),
  z.object({ gone: z.string().max(128), sequence: int }),
  z.object({ hello: z.object({ protocol: int, worker: z.string().max(64) }) }),
  z.object({ synced: z.literal(true), sequence: int }),
]);

export type Show = z.infer<typeof showSchema>;
export type Line = z.infer<typeof lineSchema>;

export const endSchema = z.object({ reason: z.string().max(200) });
export const titleUpdateSchema = z.object({ title: z.string().min(1).max(2000), artist: z.string().min(1).max(2000).exactOptional() });
export const doneSchema = z.object({ done: z.boolean(), sequence: int });

/** Length in four bytes, big-endian, and the bytes. A length of 0 is the end: without it, the media was never finished. */
export function frameOf(bytes: Uint8Array): Uint8Array[] {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(bytes.length);
  return [head, bytes];
}

export const END_FRAME: Uint8Array = Buffer.alloc(4);

/** Takes bytes as they come and calls back with whole frames; undefined at the end. Throws on one that is too long. */
export class FrameReader {
  readonly #onFrame: (frame: Buffer | undefined) => void;
  #waiting: Buffer[] = [];
  #sizeBytes = 0;

  constructor(onFrame: (frame: Buffer | undefined) => void) {
    this.#onFrame = onFrame;
  }

  push(bytes: Buffer): void {
    this.#waiting.push(bytes);
    this.#sizeBytes += bytes.length;
    while (this.#sizeBytes >= 4) {
      const first = this.#waiting[0]!.length >= 4 ? this.#waiting[0]! : this.#joined();
      const length = first.readUInt32BE(0);
      if (length > MAX_FRAME_BYTES) throw new Error(`a frame of ${length} bytes`);
      if (this.#sizeBytes < 4 + length) return;
      const all = this.#joined();
      const rest = all.subarray(4 + length);
      this.#waiting = rest.length > 0 ? [rest] : [];
      this.#sizeBytes = rest.length;
      this.#onFrame(length === 0 ? undefined : all.subarray(4, 4 + length));
    }
  }

  #joined(): Buffer {
    if (this.#waiting.length > 1) this.#waiting = [Buffer.concat(this.#waiting)];
    return this.#waiting[0]!;
  }
}
