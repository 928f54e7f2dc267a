import type { Clock } from './clock.js';
import { messageOf } from './errors.js';
import type { Log } from './log.js';
import { withDeadline } from './waiting.js';

export interface Component {
  readonly name: string;
  start?(): Promise<void> | void;
  /** Stops gracefully. A second call is harmless. */
  stop?(): Promise<void> | void;
}

/**
 * Starts components in order and stops them in reverse. After a failed `start`, `stop` stops the
 * component that failed and those before it. `stop` gives all of them together `timeoutMs`; after
 * that it logs which component is still stopping, and leaves the rest to the end of the process.
 */
export class Lifecycle {
  readonly #started: Component[] = [];
  readonly #clock: Clock;
  readonly #log: Log;
  #stopping: Promise<boolean> | undefined;

  constructor(clock: Clock, log: Log) {
    this.#clock = clock;
    this.#log = log;
  }

  async start(components: readonly Component[]): Promise<void> {
    for (const component of components) {
      this.#started.push(component);
      await component.start?.();
    }
  }

  /** Resolves to true when every component stopped in time. */
  stop(timeoutMs: number): Promise<boolean> {
    this.#stopping ??= this.#stopAll(timeoutMs);
    return this.#stopping;
  }

  async #stopAll(timeoutMs: number): Promise<boolean> {
    let current = '';
    const all = (async () => {
      for (const component of this.#started.reverse()) {
        current = component.name;
        try {
          await component.stop?.();
        } catch (error) {
          this.#log.error(
            { event: 'service.stop_failed', component: component.name, error: messageOf(error) },
            'a component failed to stop',
          );
        }
      }
      return true;
    })();
    const inTime = await withDeadline(this.#clock, timeoutMs, all, () => false);
    if (!inTime)
      this.#log.error({ event: 'service.stop_timed_out', component: current, timeoutMs }, 'stopping took too long; the process exits now');
    return inTime;
  }
}
