import type { Registry } from '../backing/registry/registry.js';
import type { Clock } from '../runtime/clock.js';
import { messageOf } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import { rejectLate, withDeadline } from '../runtime/waiting.js';
import type { LiveWindow, TimelineSnapshot } from './window.js';

/**
 * A segment is listed when its number is durable, or after this long. In the second case a metric
 * and the log name the fault.
 */
const RESERVE_DEADLINE_MS = 250;
/**
 * The end of a broadcast waits at most this long until its document is saved: a disk that does not
 * answer must not keep the channel from its next broadcast.
 */
const SAVE_DEADLINE_MS = 5000;

/**
 * A recording that the database does not have yet, with everything that another process needs to
 * write it there if this one dies first.
 */
export interface UnwrittenRecording {
  readonly assetId: string;
  readonly title: string;
  readonly recording: boolean;
  readonly from: number;
  readonly to: number;
  /**
   * The timeline when the recording ended. Its `openNumber` is the first segment that was not
   * finished.
   */
  readonly timeline: TimelineSnapshot;
  readonly renditions: readonly string[];
}

/**
 * The document of a channel in the registry. Its numbers rise as long as the channel exists, also
 * across broadcasts.
 */
export interface ChannelDocument {
  readonly version: 1;
  readonly channelId: string;
  readonly nextNumber: number;
  readonly nextDiscontinuity: number;
  readonly unwritten?: readonly UnwrittenRecording[];
  readonly onAir?: {
    readonly timeline: TimelineSnapshot;
    readonly renditions: readonly string[];
    readonly assetId: string;
    readonly assetFrom: number;
    readonly lastSound: number;
    /** True when the process stopped in order: every segment below `nextNumber` is finished. */
    readonly clean: boolean;
    readonly savedMs: number;
    /**
     * `LiveChannelInfo.keyVoids` when the broadcast began. Undefined in documents of earlier
     * versions.
     */
    readonly keyVoids?: number;
  };
}

export interface ChannelPlaceOptions {
  readonly channel: { readonly id: string; readonly slug: string; readonly keyVoids: number };
  readonly window: LiveWindow;
  readonly registry: Registry;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: { timelineNotDurable(): void };
  /** Returns the recordings of this channel that the database does not have yet. */
  readonly unwritten: () => readonly UnwrittenRecording[];
  readonly from: { readonly nextNumber: number; readonly nextDiscontinuity: number; readonly resume?: OnAirDocument };
}

/** The part of the document about the broadcast that is on air. */
export type OnAirDocument = NonNullable<ChannelDocument['onAir']>;

/**
 * The place of a broadcast on the timeline of its channel, and the document that makes it durable.
 * A number is saved before a segment with it is listed, so that the next process never uses it
 * again.
 */
export class ChannelPlace {
  readonly #options: ChannelPlaceOptions;
  #reserved: number;
  #nextDiscontinuity: number;
  #assetId: string;
  #assetFrom: number;
  #lastSound: number;

  constructor(options: ChannelPlaceOptions) {
    const { nextNumber, nextDiscontinuity, resume } = options.from;
    this.#options = options;
    this.#reserved = nextNumber - 1;
    this.#nextDiscontinuity = nextDiscontinuity;
    this.#assetId = resume?.assetId ?? options.window.broadcastId;
    this.#assetFrom = resume?.assetFrom ?? nextNumber;
    this.#lastSound = resume?.lastSound ?? nextNumber - 1;
  }

  /** The numbers with which the channel's next run or broadcast begins. */
  get next(): { nextNumber: number; nextDiscontinuity: number } {
    return { nextNumber: this.#reserved + 1, nextDiscontinuity: this.#nextDiscontinuity };
  }

  /** The current recording: its id and its first segment. */
  get recording(): { assetId: string; from: number } {
    return { assetId: this.#assetId, from: this.#assetFrom };
  }

  /** The number of the last segment in which a source was heard. */
  get lastSound(): number {
    return this.#lastSound;
  }

  takeDiscontinuity(): number {
    this.#nextDiscontinuity += 1;
    return this.#nextDiscontinuity - 1;
  }

  noteSound(number: number): void {
    if (number > this.#lastSound) this.#lastSound = number;
  }

  beginRecording(assetId: string, from: number): void {
    this.#assetId = assetId;
    this.#assetFrom = from;
  }

  /** Resolves when the number is durable, or after RESERVE_DEADLINE_MS. Never rejects. */
  async reserveNumber(number: number): Promise<void> {
    const { log, metrics } = this.#options;
    this.#reserved = Math.max(this.#reserved, number);
    try {
      await this.#save(() => this.#onAirDocument(false), RESERVE_DEADLINE_MS);
    } catch (error) {
      metrics.timelineNotDurable();
      log.error(
        { event: 'show.timeline_not_saved', number, error: messageOf(error) },
        'could not save the place on the timeline; a crash now would repeat segment numbers',
      );
    }
  }

  /**
   * Saves that every number is finished, because the process stops and another one resumes the
   * broadcast. Never rejects.
   */
  async saveSuspended(): Promise<void> {
    await this.#save(() => this.#onAirDocument(true), SAVE_DEADLINE_MS).catch((error) =>
      this.#options.log.error(
        { event: 'show.timeline_not_saved', error: messageOf(error) },
        'could not save the place on the timeline; a crash now would repeat segment numbers',
      ),
    );
  }

  /**
   * Saves that the broadcast has ended. The numbers stay, and the recordings that are not in the
   * database. Never rejects.
   */
  async saveEnded(): Promise<void> {
    const { channel, log, metrics, unwritten } = this.#options;
    const document = (): ChannelDocument => ({ version: 1, channelId: channel.id, ...this.next, unwritten: unwritten() });
    await this.#save(document, SAVE_DEADLINE_MS).catch((error) => {
      metrics.timelineNotDurable();
      log.error({ event: 'show.end_not_saved', error: messageOf(error) }, 'could not save the end of a broadcast');
    });
  }

  async #save(document: () => ChannelDocument, deadlineMs: number): Promise<void> {
    const { registry, clock, channel } = this.#options;
    await withDeadline(clock, deadlineMs, registry.save(channel.slug, document()), rejectLate(`not done in ${deadlineMs} ms`));
  }

  #onAirDocument(clean: boolean): ChannelDocument {
    const { channel, window, clock, unwritten } = this.#options;
    return {
      version: 1,
      channelId: channel.id,
      ...this.next,
      unwritten: unwritten(),
      onAir: {
        timeline: window.snapshot(this.#reserved),
        renditions: window.renditions.map((rendition) => rendition.name),
        assetId: this.#assetId,
        assetFrom: this.#assetFrom,
        lastSound: this.#lastSound,
        clean,
        savedMs: clock.wallMs(),
        keyVoids: channel.keyVoids,
      },
    };
  }
}
