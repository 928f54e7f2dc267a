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
