import type { Edge, LiveView } from '../../live/edge.js';
import type { Clock } from '../../runtime/clock.js';
import type { LiveChannel } from './live-channel.js';

/** How often channels that went off air are looked for. */
const SWEEP_MS = 10_000;

export interface ChannelStatesOptions {
  readonly edge: Edge;
  readonly clock: Clock;
  readonly make: (view: LiveView) => LiveChannel;
  /** The channel went off air: nothing is kept for it any more. */
  readonly onForgotten: (name: string) => void;
}

/** What playback keeps for each channel that is on air: rendered manifests and waiting requests. */
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

  /** The state of a channel that has a view, made or refreshed; undefined when it has none. */
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

  /** Forgets channels that went off air without a further request. */
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
