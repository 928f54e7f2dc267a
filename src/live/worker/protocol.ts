import { z } from 'zod';

/**
 * The protocol between app and worker on the worker's internal port, HTTP/1.1 with keep-alive:
 *
 *   GET  /v1/feed                             endless JSON lines: what is on air, and each change
 *   GET  /v1/media/{slug}/{rendition}/{name}  a segment or init segment in frames, or 404
 *   POST /v1/channels/{slug}/end              {reason}           → {done, sequence}
 *   POST /v1/channels/{slug}/title            {title, artist?}   → {done, sequence}
 *
 * 404 means that the media is not in memory. The two POST requests are called acts.
 *
 * The feed begins with `hello`, then a `show` with all fields for each channel that has a view, then
 * `synced`. After that a `show` has the fields that have changed. When an app has read the feed up
 * to the `sequence` of an act, it has read its result.
 */

/** The version of the protocol. App and worker must have the same one. */
export const PROTOCOL = 1;

/** The feed sends at least one line per this time. */
export const BEAT_MS = 1000;
/** A line of the feed is at most this long. The longest lines have all titles of a broadcast. */
export const MAX_LINE_BYTES = 8 * 1024 * 1024;
/** A frame is at most this large: a part, or a whole segment of packed audio. */
export const MAX_FRAME_BYTES = 4 * 1024 * 1024;

/** Header of an answer with media: the number of frames that existed when it was requested. */
export const FRAMES_HEADER = 'veza-frames';
/** Header of an answer with media: `1` when these frames are all there will be, otherwise `0`. */
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

/** The fields of a view that never change. */
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

const showSchema = z.object({
  channel: z.string().max(128),
  /** Another id is another presentation: nothing of the earlier one is valid. */
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
  /** Numbers of the segments that can be requested in at least one rendition. */
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

export type FeedBroadcast = z.infer<typeof showSchema>;
export type Line = z.infer<typeof lineSchema>;

export const endSchema = z.object({ reason: z.string().max(200) });
export const titleUpdateSchema = z.object({ title: z.string().min(1).max(2000), artist: z.string().min(1).max(2000).exactOptional() });
export const doneSchema = z.object({ done: z.boolean(), sequence: int });

/**
 * Returns a frame: its length in four bytes, big-endian, and its bytes. A length of 0 ends the
 * media; without it the media was never finished.
 */
export function frameOf(bytes: Uint8Array): Uint8Array[] {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(bytes.length);
  return [head, bytes];
}

export const END_FRAME: Uint8Array = Buffer.alloc(4);

/**
 * Reads frames from pieces of any size. Calls back with each whole frame, and with undefined at the
 * end. Throws for a frame above MAX_FRAME_BYTES.
 */
export class EdgeFrameReader {
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
