import type { Codec, Rendition } from '../../src/media/ladder.js';
import { LADDER } from '../../src/media/ladder.js';
import { type Grid, type MediaTimeline, makeGrid, partsPerSegment, type Run, type Title, wallMsOf } from '../../src/media/timeline.js';

export const START_MS = Date.UTC(2030, 0, 1);
const CODECS: readonly Codec[] = ['aac', 'opus', 'mp3'];

/** A broadcast that is moved by hand: publish parts, crash, set titles, end. Its timeline is a snapshot at each call. */
export class World {
  readonly grid: Grid;
  readonly renditions: readonly Rendition[];
  readonly firstNumber: number;
  runs: Run[];
  gaps = new Set<number>();
  titles: Title[] = [];
  ended = false;
  /** Media published in the open segment, in samples; codecs follow it at their own parts. */
  open: number;
  openSamples = 0;

  constructor(options: { partMs?: number; firstNumber?: number; segmentMs?: number; renditions?: readonly Rendition[] } = {}) {
    this.grid = makeGrid(options.segmentMs ?? 1920, options.partMs ?? 320);
    this.renditions = options.renditions ?? LADDER;
    this.firstNumber = options.firstNumber ?? 1000;
    this.open = this.firstNumber;
    this.runs = [{ id: 'run0', firstNumber: this.firstNumber, discontinuity: 7, startWallMs: START_MS }];
  }

  /** Six gaps before anything, as a first playlist is given to players that want six segments. */
  leadingGaps(count: number): this {
    for (let number = this.firstNumber; number < this.firstNumber + count; number++) this.gaps.add(number);
    this.open = this.firstNumber + count;
    return this;
  }

  publish(ms: number): this {
    this.openSamples += (ms * 48_000) / 1000;
    while (this.openSamples >= this.grid.segmentSamples) {
      this.openSamples -= this.grid.segmentSamples;
      this.open += 1;
    }
    return this;
  }

  segments(count: number): this {
    return this.publish((count * this.grid.segmentSamples) / 48);
  }

  crash(downMs: number): this {
    const resumeMs = this.nowMs() + downMs;
    this.gaps.add(this.open);
    this.open += 1;
    this.openSamples = 0;
    const before = this.runs.at(-1)!;
    this.runs = [
      ...this.runs,
      { id: `run${this.runs.length}`, firstNumber: this.open, discontinuity: before.discontinuity + 1, startWallMs: resumeMs },
    ];
    return this;
  }

  title(title: string, artist?: string): this {
    const startWallMs = Math.max(this.nowMs() + 100, (this.titles.at(-1)?.startWallMs ?? 0) + 1);
    this.titles = [...this.titles, { id: `t${this.titles.length}`, startWallMs, title, ...(artist === undefined ? {} : { artist }) }];
    return this;
  }

  end(): this {
    if (this.openSamples > 0) {
      this.open += 1;
      this.openSamples = 0;
    }
    this.ended = true;
    return this;
  }

  nowMs(): number {
    return wallMsOf(this.timeline(), this.open) + this.openSamples / 48;
  }

  timeline(): MediaTimeline {
    const progress: Partial<Record<Codec, { openNumber: number; openParts: number }>> = {};
    for (const codec of CODECS) progress[codec] = { openNumber: this.open, openParts: this.#parts(codec) };
    const { grid, firstNumber, runs, titles, ended } = this;
    return { broadcastId: 'b1', grid, firstNumber, runs: [...runs], gaps: new Set(this.gaps), titles, progress, ended };
  }

  #parts(codec: Codec): number {
    if (codec === 'mp3') return 0;
    const frame = codec === 'aac' ? 1024 : 960;
    const perPart = Math.floor(this.grid.partSamples / frame) * frame;
    return Math.min(partsPerSegment(this.grid, codec) - 1, Math.floor(this.openSamples / perPart));
  }
}

export const rendition = (name: string): Rendition => LADDER.find((rung) => rung.name === name)!;
