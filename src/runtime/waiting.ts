import type { Clock } from './clock.js';

/**
 * Resolves after `ms`. It cannot be cancelled: use it for short waits, or where the caller checks
 * its state afterwards.
 */
export function sleep(clock: Clock, ms: number): Promise<void> {
  return new Promise((resolve) => void clock.after(ms, resolve));
}

const LATE = Symbol('late');

/**
 * Settles as `work` does. If `work` has not settled after `ms`, settles with what `onLate` returns
 * or throws. `work` itself goes on, and a later rejection of it is ignored. No timer is left
 * behind.
 */
export async function withDeadline<T, L>(clock: Clock, ms: number, work: Promise<T>, onLate: () => L): Promise<T | L> {
  let cancel = () => {};
  const late = new Promise<typeof LATE>((resolve) => {
    cancel = clock.after(ms, () => resolve(LATE));
  });
  try {
    const first = await Promise.race([work, late]);
    return first === LATE ? onLate() : first;
  } finally {
    cancel();
  }
}

/** Returns an `onLate` that throws an error with this message. */
export function rejectLate(message: string): () => never {
  return () => {
    throw new Error(message);
  };
}
