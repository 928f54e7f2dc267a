import { reportUnexpected } from './unexpected.js';

/**
 * Acts on each of them. What one throws is reported as an error that nobody took, and keeps none of the others from their turn: a timer that looks at
 * all connections, or a change that is told to all listeners, must not end at the first that fails, and not fail whoever made the change.
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

/** The same for one that is told something: whoever tells goes on. */
export const apart = (act: () => void): void => each([act], (one) => one());
