import type { Registry } from '../backing/registry/registry.js';
import type { Clock } from '../runtime/clock.js';
import { rejectLate, withDeadline } from '../runtime/deadline.js';
import { messageOf } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import type { LiveWindow, TimelineSnapshot } from './window.js';

/** How long listing a segment waits until its number is durable. After that the stream goes on, and a metric and the log name the fault. */
const RESERVE_DEADLINE_MS = 250;
/** How long the end of a broadcast waits for its document: a disk that does not answer must not keep the channel from its next show. */
const SAVE_DEADLINE_MS = 5000;

/** A recording that the database does not have yet: enough for another process to write it down, should this one die first. */
export interface UnwrittenRecording {
  readonly assetId: string;
  readonly title: string;
  readonly recording: boolean;
  readonly from: number;
  readonly to: number;
  /** Its `openNumber` is the first that was not finished. */
  readonly timeline: TimelineSnapshot;
  readonly renditions: readonly string[];
}

/** A channel's document in the registry. The numbers rise for the channel's life, whatever becomes of its broadcasts. */
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
    /** The process ended in order: every number below `nextNumber` is finished. */
    readonly clean: boolean;
    readonly savedMs: number;
    /** `ChannelInfo.keyVoids` when the show began. Unset: an earlier version wrote the document. */
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
  /** Recordings of this channel that the database does not have yet. */
  readonly unwritten: () => readonly UnwrittenRecording[];
  readonly from: { readonly nextNumber: number; readonly nextDiscontinuity: number; readonly resume?: OnAirDocument };
}

/** The part of the document about a broadcast that is on air. */
export type OnAirDocument = NonNullable<ChannelDocument['onAir']>;

/**
 * A broadcast's place on its channel's timeline, and the document that makes it durable: a number is written down before a
 * segment with it is listed, so that a process that takes over never uses it again.
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

  /** Where the channel's next run or broadcast goes on. */
  get next(): { nextNumber: number; nextDiscontinuity: number } {
    return { nextNumber: this.#reserved + 1, nextDiscontinuity: this.#nextDiscontinuity };
  }

  /** The recording under way: its id and its first segment. */
  get recording(): { assetId: string; from: number } {
    return { assetId: this.#assetId, from: this.#assetFrom };
  }

  /** The last segment in which a source was heard. */
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

  /** The process ends in order and the broadcast goes on elsewhere: every number is finished. Never rejects. */
  async saveSuspended(): Promise<void> {
    await this.#save(() => this.#onAirDocument(true), SAVE_DEADLINE_MS).catch((error) =>
      this.#options.log.error(
        { event: 'show.timeline_not_saved', error: messageOf(error) },
        'could not save the place on the timeline; a crash now would repeat segment numbers',
      ),
    );
  }

  /** The broadcast is over; the numbers and the recordings that are not written down stay. Never rejects. */
  async saveEnded(): Promise<void> {
    const { channel, log, metrics, unwritten } = this.#options;
    const document = (): ChannelDocument => ({ version: 1, channelId: channel.id, ...this.next, unwritten: unwritten() });
    await this.#save(document, SAVE_DEADLINE_MS).catch((error) => {
      metrics.timelineNotDurable();
      log.error({ event: 'show.end_not_saved', error: messageOf(error) }, 'could not save the end of a show');
    });
  }

  async #save(document: () => ChannelDocument, deadlineMs: number): Promise<void> {
    const { registry, clock, channel } = this.#options;
    await withDeadline(clock, deadlineMs, registry.save(channel.slug, document()), rejectLate('saving it', deadlineMs));
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
