import type { Clock } from './clock.js';

/** Resolves after `ms`. It cannot be cancelled: for a wait that is short, or that its caller checks afterwards. */
export function sleep(clock: Clock, ms: number): Promise<void> {
  return new Promise((resolve) => void clock.after(ms, resolve));
}
