import type { Clock } from './clock.js';

/**
 * Shares one answer among many callers. Work that is under way is shared, and `work` begins at most
 * twice in `windowMs`; further calls get the last answer. Twice, and not once, so that a caller
 * that rarely asks gets a fresh answer. A rejection is shared by those who wait for it, and is not
 * kept.
 */
export function recent<T>(clock: Clock, windowMs: number, work: () => Promise<T>): () => Promise<T> {
  let answer: Promise<T> | undefined;
  let isUnderWay = false;
  let lastMs = Number.NEGATIVE_INFINITY;
  let beforeLastMs = Number.NEGATIVE_INFINITY;
  return () => {
    const nowMs = clock.monotonicMs();
    if (answer && (isUnderWay || nowMs - beforeLastMs < windowMs)) return answer;
    beforeLastMs = lastMs;
    lastMs = nowMs;
    isUnderWay = true;
    answer = work().finally(() => {
      isUnderWay = false;
    });
    answer.catch(() => {
      answer = undefined;
    });
    return answer;
  };
}

/**
 * Shares work among callers: a call during the work gets the same promise, and a call after it has
 * settled starts the work again. No answer is kept. `recent` also keeps an answer for a time.
 */
export function singleFlight<T>(work: () => Promise<T>): () => Promise<T> {
  let underWay: Promise<T> | undefined;
  return () => {
    underWay ??= work().finally(() => {
      underWay = undefined;
    });
    return underWay;
  };
}
