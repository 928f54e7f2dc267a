import { reportUnexpected } from '../../runtime/unexpected.js';

/** An item of a timing wheel. Only the wheel sets its place. */
export interface InTimingWheel {
  readonly wheelSlot: number;
  readonly wheelIndex: number;
  setWheelPlace(slot: number, index: number): void;
}

/**
 * A timing wheel: each step visits the items of one slot, so that 100,000 deadlines need one timer.
 * Items are spread over the slots at random, so that all steps have about the same work.
 */
export class TimingWheel<T extends InTimingWheel> {
  readonly #slots: T[][];
  #at = 0;

  constructor(slots: number) {
    this.#slots = Array.from({ length: slots }, () => []);
  }

  add(item: T): void {
    const at = (Math.random() * this.#slots.length) | 0;
    const slot = this.#slots[at]!;
    item.setWheelPlace(at, slot.length);
    slot.push(item);
  }

  /** Removes an item, which must be in the wheel. */
  remove(item: T): void {
    const slot = this.#slots[item.wheelSlot]!;
    const last = slot.pop()!;
    if (last !== item) {
      slot[item.wheelIndex] = last;
      last.setWheelPlace(item.wheelSlot, item.wheelIndex);
    }
  }

  advance(): void {
    this.#at = (this.#at + 1) % this.#slots.length;
  }

  /**
   * Visits the items that are due now when each is due once every `steps` steps. `visit` may remove
   * any item.
   */
  visitDue(steps: number, visit: (item: T) => void): void {
    for (let slot = this.#at % steps; slot < this.#slots.length; slot += steps) {
      const items = this.#slots[slot]!;
      for (let index = items.length - 1; index >= 0; index--) {
        const item = items[index];
        if (!item) continue;
        // An error in one item's visit must not keep the other items of the slot from being
        // visited.
        try {
          visit(item);
        } catch (error) {
          reportUnexpected(error);
        }
      }
    }
  }

  all(): T[] {
    return this.#slots.flat();
  }
}
