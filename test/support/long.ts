import { randomInt } from 'node:crypto';

/** How long a file of `test/long` looks for faults; `npm run test:long` sets it. */
export const LONG_MS = Number(process.env.VEZA_LONG_MINUTES ?? 1) * 60_000;

/** Of all that is random in this run. Say it in the message of a failure. */
export const SEED = Number(process.env.VEZA_SEED ?? randomInt(2 ** 31));

/** mulberry32: the same numbers for the same seed, from 0 to below 1. */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
