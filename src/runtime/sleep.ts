import type { Clock } from './clock.js';

/**
 * Resolves after `ms`. It cannot be cancelled: use it for short waits, or where the caller checks
 * its state afterwards.
 */
export function sleep(clock: Clock, ms: number): Promise<void> {
  return new Promise((resolve) => void clock.after(ms, resolve));
}
