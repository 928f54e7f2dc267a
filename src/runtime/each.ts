import { reportUnexpected } from './unexpected.js';

/**
 * Calls `act` for each item. If `act` throws for one item, the error is reported as an unexpected
 * error and the other items still have their turn. A timer that checks all connections, or a change
 * that is sent to all listeners, must not end at the first failure, and the code that made the
 * change must not fail either.
 */
export function each<T>(items: Iterable<T>, act: (item: T) => void): void {
  for (const item of items) {
    try {
      act(item);
    } catch (error) {
      reportUnexpected(error);
    }
  }
}

/**
 * Calls `act` once. If `act` throws, the error is reported as an unexpected error and the caller
 * goes on.
 */
export const apart = (act: () => void): void => each([act], (one) => one());
