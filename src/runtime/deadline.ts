import type { Clock } from './clock.js';

/**
 * What `work` resolves or rejects with, or what `onLate` returns or throws when `work` has not settled after `ms`. Late work
 * goes on; what it rejects with then is dropped. No timer is left behind.
 */
export async function withDeadline<T, L>(clock: Clock, ms: number, work: Promise<T>, onLate: () => L): Promise<T | L> {
  let cancel = () => {};
  const late = new Promise<'late'>((resolve) => {
    cancel = clock.after(ms, () => resolve('late'));
  });
  try {
    const first = await Promise.race([work.then((value) => ({ value })), late]);
    return first === 'late' ? onLate() : first.value;
  } finally {
    cancel();
  }
}

/** An `onLate` that rejects: "… took longer than 250 ms". */
export function rejectLate(what: string, ms: number): () => never {
  return () => {
    throw new Error(`${what} took longer than ${ms} ms`);
  };
}
