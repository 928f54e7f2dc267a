import { chunk, packedAudioTag, titleEvent } from '../media/cmaf.js';
import { type Codec, FRAME_SAMPLES, type Rendition, SAMPLE_RATE_HZ } from '../media/ladder.js';
import {
  framesPerPart,
  framesPerSegment,
  mediaTimeOf,
  partDurationSamples,
  partsPerSegment,
  type Run,
  wallMsOf,
} from '../media/timeline.js';
import type { LiveWindow } from './window.js';

export interface PackagerEvents {
  /**
   * Makes a number durable. Called before the first part of its segment is published; parts wait
   * for the promise, in order. It must always resolve, within a deadline of its own.
   */
  reserve(number: number): Promise<void>;
  onPart(number: number, codecs: readonly Codec[]): void;
  /** Called when a rendition's segment is complete and published. */
  onSegment(rendition: Rendition, number: number): void;
}

/** Renditions whose parts are cut at the same samples; their parts are published in one step. */
interface AlignedRenditions {
  readonly codecs: Codec[];
  readonly members: Rendition[];
  readonly ready: Map<string, Map<Rendition, Uint8Array>>;
}

interface Open {
  readonly rendition: Rendition;
  readonly group: AlignedRenditions;
  frames: Buffer[];
  /** The number of frames of the run that have been packaged. */
  packaged: number;
}

/**
 * Cuts the frames of one run into parts and segments by counting them, and publishes these in the
 * live window.
 */
export class Packager {
  readonly #window: LiveWindow;
  readonly #run: Run;
  readonly #events: PackagerEvents;
  readonly #open: Open[];
  #sequence = 0;
  #reserved: number | undefined;
  #waiting: (() => void)[] = [];
  #idle: (() => void)[] = [];
  #closed = false;

  constructor(window: LiveWindow, run: Run, events: PackagerEvents) {
    this.#window = window;
    this.#run = run;
    this.#events = events;
    const groups: AlignedRenditions[] = [];
    this.#open = window.renditions.map((rendition) => {
      let group = groups.find((candidate) => sameParts(window, candidate, rendition));
      if (!group) {
        group = { codecs: [], members: [], ready: new Map() };
        groups.push(group);
      }
      if (!group.codecs.includes(rendition.codec)) group.codecs.push(rendition.codec);
      group.members.push(rendition);
      return { rendition, group, frames: [], packaged: 0 };
    });
  }

  /**
   * Appends a frame of the rendition at `index` of the ladder. The buffer is kept until its part is
   * made.
   */
  frame(index: number, frame: Buffer): void {
    const open = this.#open[index];
    if (!open || this.#closed) return;
    open.frames.push(frame);
    const { codec } = open.rendition;
    const { grid } = this.#window;
    const perSegment = framesPerSegment(grid, codec);
    const inSegment = open.packaged % perSegment;
    const wanted = codec === 'mp3' ? perSegment : Math.min(framesPerPart(grid, codec), perSegment - inSegment);
    if (open.frames.length < wanted) return;
    const number = this.#run.firstNumber + Math.floor(open.packaged / perSegment);
    const part = codec === 'mp3' ? 0 : inSegment / framesPerPart(grid, codec);
    const bytes = this.#pack(open, number, inSegment);
    open.packaged += wanted;
    open.frames = [];
    this.#ready(open, number, part, bytes);
  }

  /** Resolves when all complete parts are published. */
  settled(): Promise<void> {
    return this.#waiting.length === 0 ? Promise.resolve() : new Promise((resolve) => this.#idle.push(resolve));
  }

  close(): void {
    this.#closed = true;
    this.#waiting = [];
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  #pack(open: Open, number: number, inSegment: number): Uint8Array {
    const { codec } = open.rendition;
    const segmentTime = mediaTimeOf(this.#window, number);
    if (codec === 'mp3') return Buffer.concat([packedAudioTag(segmentTime), ...open.frames]);
    const mediaTime = segmentTime + inSegment * FRAME_SAMPLES[codec];
    const samples = open.frames.length * FRAME_SAMPLES[codec];
    this.#sequence += 1;
    return chunk({
      codec,
      sequence: this.#sequence,
      mediaTime,
      frames: open.frames,
      events: this.#titleEvents(number, inSegment === 0, mediaTime, samples),
    });
  }

  /**
   * Returns the titles that begin in this part. The first part of a segment also has the title that
   * is playing, for players that start here.
   */
  #titleEvents(number: number, first: boolean, mediaTime: number, samples: number): Buffer[] {
    const { titles } = this.#window;
    const events: Buffer[] = [];
    const segmentWallMs = wallMsOf(this.#window, number);
    const segmentTime = mediaTimeOf(this.#window, number);
    for (let index = titles.length - 1; index >= 0; index -= 1) {
      const title = titles[index];
      if (!title) break;
      const startsAt = segmentTime + Math.round(((title.startWallMs - segmentWallMs) * SAMPLE_RATE_HZ) / 1000);
      if (startsAt >= mediaTime + samples) continue;
      if (startsAt >= mediaTime || first) {
        events.unshift(titleEvent({ id: eventId(title.id), mediaTime: startsAt, title: title.title, artist: title.artist }));
      }
      if (startsAt < mediaTime) break;
    }
    return events;
  }

  #ready(open: Open, number: number, part: number, bytes: Uint8Array): void {
    const { group, rendition } = open;
    const key = `${number}.${part}`;
    let chunks = group.ready.get(key);
    if (!chunks) {
      chunks = new Map();
      group.ready.set(key, chunks);
    }
    chunks.set(rendition, bytes);
    if (chunks.size < group.members.length) return;
    group.ready.delete(key);
    const complete = chunks;
    const publish = () => {
      this.#window.appendPart(group.codecs, number, part, complete);
      this.#events.onPart(number, group.codecs);
      for (const member of group.members) {
        if (member.codec === 'mp3' || part === partsPerSegment(this.#window.grid, member.codec) - 1) this.#events.onSegment(member, number);
      }
    };
    if (this.#waiting.length === 0 && this.#reserved !== undefined && this.#reserved >= number) {
      publish();
      return;
    }
    this.#waiting.push(publish);
    if (this.#reserved === undefined || this.#reserved < number) this.#reserve(number);
  }

  #reserve(number: number): void {
    this.#reserved = number;
    void this.#events.reserve(number).finally(() => {
      if (this.#closed) return;
      const waiting = this.#waiting;
      this.#waiting = [];
      for (const publish of waiting) publish();
      for (const resolve of this.#idle.splice(0)) resolve();
    });
  }
}

function sameParts(window: LiveWindow, group: AlignedRenditions, rendition: Rendition): boolean {
  const [codec] = group.codecs;
  if (!codec || (codec === 'mp3') !== (rendition.codec === 'mp3')) return false;
  const parts = partsPerSegment(window.grid, codec);
  if (partsPerSegment(window.grid, rendition.codec) !== parts) return false;
  return partDurationSamples(window.grid, codec, 0) === partDurationSamples(window.grid, rendition.codec, 0);
}

/**
 * Returns a 32-bit event id made of the title's id (FNV-1a). It is the same in every rendition and
 * at each repetition.
 */
function eventId(id: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < id.length; index += 1) hash = Math.imul(hash ^ id.charCodeAt(index), 0x01000193);
  return hash >>> 0;
}
