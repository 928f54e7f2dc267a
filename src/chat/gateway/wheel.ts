import { reportUnexpected } from '../../runtime/unexpected.js';

/** What stands in a wheel; both are the wheel's. */
export interface InTimingWheel {
  slot: number;
  slotIndex: number;
}

/**
 * A timing wheel: what stands in it is looked at in turn, a slot at a step, so that a hundred thousand deadlines need one timer. Spread by chance, so that no
 * step has more to do than others.
 */
export class TimingWheel<T extends InTimingWheel> {
  readonly #slots: T[][];
  #at = 0;

  constructor(slots: number) {
    this.#slots = Array.from({ length: slots }, () => []);
  }

  add(one: T): void {
    one.slot = (Math.random() * this.#slots.length) | 0;
    const slot = this.#slots[one.slot]!;
    one.slotIndex = slot.length;
    slot.push(one);
  }

  /** Once, of what stands there. */
  remove(one: T): void {
    const slot = this.#slots[one.slot]!;
    const last = slot.pop()!;
    if (last !== one) {
      slot[one.slotIndex] = last;
      last.slotIndex = one.slotIndex;
    }
  }

  step(): void {
    this.#at = (this.#at + 1) % this.#slots.length;
  }

  /** Those whose turn it is, when everybody's comes once in so many steps; `look` may remove any of them. */
  turn(steps: number, look: (one: T) => void): void {
    for (let slot = this.#at % steps; slot < this.#slots.length; slot += steps) {
      const ones = this.#slots[slot]!;
      for (let index = ones.length - 1; index >= 0; index--) {
        const one = ones[index];
        if (!one) continue;
        // Those behind it in the slot have deadlines, too.
        try {
          look(one);
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
