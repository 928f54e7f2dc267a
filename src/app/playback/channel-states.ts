import type { Edge, LiveView } from '../../live/edge.js';
import type { Clock } from '../../runtime/clock.js';
import type { LiveChannel } from './live-channel.js';

/** How often channels that went off air are removed. */
const SWEEP_MS = 10_000;

export interface ChannelStatesOptions {
  readonly edge: Edge;
  readonly clock: Clock;
  readonly make: (view: LiveView) => LiveChannel;
  /** Called when the state of a channel that went off air is removed. */
  readonly onForgotten: (name: string) => void;
}

/** Keeps the state of each channel that is on air: rendered manifests and waiting requests. */
export class ChannelStates {
  readonly #options: ChannelStatesOptions;
  readonly #channels = new Map<string, LiveChannel>();
  #sweptMs = 0;

  constructor(options: ChannelStatesOptions) {
    this.#options = options;
  }

  values(): Iterable<LiveChannel> {
    return this.#channels.values();
  }

  /**
   * Returns the state of a channel that has a view, made or refreshed; undefined without a view.
   */
  find(name: string): LiveChannel | undefined {
    const view = this.#options.edge.view(name);
    let channel = this.#channels.get(name);
    if (!view) {
      if (channel?.waiting.isEmpty) {
        this.#forget(name);
      }
      return undefined;
    }
    if (channel) {
      channel.refresh(view);
      return channel;
    }
    this.#sweep();
    channel = this.#options.make(view);
    this.#channels.set(name, channel);
    return channel;
  }

  /** Removes channels that went off air and were not requested again. */
  #sweep(): void {
    const nowMs = this.#options.clock.monotonicMs();
    if (nowMs - this.#sweptMs < SWEEP_MS) return;
    this.#sweptMs = nowMs;
    for (const [name, channel] of this.#channels) {
      if (!channel.waiting.isEmpty || this.#options.edge.view(name)) continue;
      this.#forget(name);
    }
  }

  #forget(name: string): void {
    this.#channels.delete(name);
    this.#options.onForgotten(name);
  }
}
