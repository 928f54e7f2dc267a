/**
 * Work that several callers share: a call while it is under way gets the same promise, a call after it has settled begins it
 * again. Nothing is kept. `recent` also keeps an answer for a while.
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
