import type { LiveView } from '../../live/edge.js';
import { renderMpd } from '../../media/dash.js';
import { renderDvr, renderMedia, renderMultivariant, targetDurationS } from '../../media/hls.js';
import { type Codec, type Rendition, SAMPLE_RATE_HZ } from '../../media/ladder.js';
import { type MediaTimeline, partsPerSegment } from '../../media/timeline.js';
import type { Clock } from '../../runtime/clock.js';
import { MEDIA_TYPE, TextResponse } from './media-response.js';
import { WaitingRoom } from './waiting.js';

/** The parts of a media file's address. */
export interface MediaName {
  readonly name: string;
  readonly run: string;
  /** Undefined for an init segment. */
  readonly number: number | undefined;
  /** Undefined for a whole segment. */
  readonly part: number | undefined;
}

interface LiveChannelOptions {
  readonly clock: Clock;
  readonly dvrWindowS: number;
  readonly utcTimingUrl?: string;
}

interface LiveChannelCounters {
  renders: number;
  waiting: number;
}

/** The rendered texts of one channel and the requests that wait for it. */
export class LiveChannel {
  view: LiveView;
  readonly waiting: WaitingRoom;
  readonly #windowSamples: number;
  readonly #utcTimingUrl: string;
  readonly #counters: LiveChannelCounters;
  #version: number;
  /** Texts of the current version of the timeline. */
  #texts = new Map<string, TextResponse>();
  /** Texts that stay valid as long as their stamp: they change per segment, or never. */
  #slow = new Map<string, { stamp: string; text: TextResponse }>();

  constructor(view: LiveView, options: LiveChannelOptions, counters: LiveChannelCounters) {
    this.view = view;
    this.#version = view.version;
    this.#windowSamples = options.dvrWindowS * SAMPLE_RATE_HZ;
    this.#utcTimingUrl = options.utcTimingUrl ?? '/time';
    this.#counters = counters;
    this.waiting = new WaitingRoom(
      options.clock,
      (listener) => this.view.onChange(listener),
      (change) => {
        counters.waiting += change;
      },
    );
  }

  refresh(view: LiveView): void {
    if (view === this.view && view.version === this.#version) return;
    if (view !== this.view) this.#slow.clear();
    this.view = view;
    this.#version = view.version;
    this.#texts.clear();
  }

  playlist(rendition: Rendition, skip: boolean): TextResponse {
    return this.#text(skip ? `${rendition.name}+skip` : rendition.name, MEDIA_TYPE.hls, () =>
      renderMedia(this.view.timeline, rendition, this.view.renditions, { skip: skip && rendition.lowLatency && !this.view.timeline.ended }),
    );
  }

  mpd(): TextResponse {
    return this.#text('mpd', MEDIA_TYPE.dash, () =>
      renderMpd(this.view.timeline, this.view.renditions, { utcTimingUrl: this.#utcTimingUrl, windowSamples: this.#windowSamples }),
    );
  }

  multivariant(file: string, only: Codec | undefined): TextResponse {
    return this.#slowText(file, this.view.timeline.broadcastId, () =>
      renderMultivariant(this.view.renditions, { only, playlist: file === 'dvr.m3u8' ? file : undefined }),
    );
  }

  dvr(rendition: Rendition): TextResponse {
    const { progress, ended, runs, gaps, titles } = this.view.timeline;
    const stamp = `${progress[rendition.codec]?.openNumber} ${ended} ${runs.length} ${gaps.size} ${titles.length} ${titles.at(-1)?.id}`;
    return this.#slowText(`${rendition.name}/dvr`, stamp, () => renderDvr(this.view.timeline, rendition, this.#windowSamples));
  }

  #text(key: string, contentType: string, render: () => string): TextResponse {
    let text = this.#texts.get(key);
    if (!text) {
      this.#counters.renders++;
      text = new TextResponse(render(), contentType);
      this.#texts.set(key, text);
    }
    return text;
  }

  #slowText(key: string, stamp: string, render: () => string): TextResponse {
    const kept = this.#slow.get(key);
    if (kept?.stamp === stamp) return kept.text;
    this.#counters.renders++;
    const text = new TextResponse(render(), MEDIA_TYPE.hls);
    this.#slow.set(key, { stamp, text });
    return text;
  }
}

/** Milliseconds that a request may wait: 3 target durations (rule 27). */
export const waitMs = (timeline: MediaTimeline) => 3 * targetDurationS(timeline) * 1000;

/**
 * Whether the edge will have this file soon: a part that is the next of the open segment or the
 * first of the following one (rule 22), or one of these segments. A part or segment of an older
 * run, or farther ahead, will not come.
 */
export function isComing(view: LiveView, rendition: string, wanted: MediaName): boolean {
  const { timeline } = view;
  const codec = view.renditions.find((candidate) => candidate.name === rendition)?.codec;
  const progress = codec && timeline.progress[codec];
  if (!codec || !progress || wanted.number === undefined || timeline.ended || timeline.runs.at(-1)?.id !== wanted.run) return false;
  const ahead = wanted.number - progress.openNumber;
  if (wanted.part === undefined) return ahead === 0 || ahead === 1;
  if (ahead === 1) return wanted.part === 0;
  return ahead === 0 && wanted.part === progress.openParts && wanted.part < partsPerSegment(timeline.grid, codec);
}

/**
 * Whether the segment belongs to the current run and has not begun; then no store has it either.
 */
export function isAhead(view: LiveView, rendition: string, wanted: MediaName): boolean {
  const codec = view.renditions.find((candidate) => candidate.name === rendition)?.codec;
  const progress = codec && view.timeline.progress[codec];
  return (
    progress !== undefined &&
    wanted.number !== undefined &&
    wanted.number > progress.openNumber &&
    view.timeline.runs.at(-1)?.id === wanted.run
  );
}
