/** Delays in µs, in buckets 2 % wide: of any number of processes they add up. */
export class Histogram {
  readonly #counts: number[];

  constructor(counts: readonly number[] = []) {
    this.#counts = [...counts];
  }

  get count(): number {
    return this.#counts.reduce((sum, count) => sum + (count ?? 0), 0);
  }

  record(us: number): void {
    const bucket = us <= 1 ? 0 : Math.round(Math.log(us) / STEP);
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
  }

  add(counts: readonly number[]): void {
    counts.forEach((count, bucket) => {
      this.#counts[bucket] = (this.#counts[bucket] ?? 0) + (count ?? 0);
    });
  }

  /** The delay in ms that this share of them did not exceed; NaN when there are none. */
  quantileMs(share: number): number {
    let left = this.count * share;
    for (let bucket = 0; bucket < this.#counts.length; bucket++) {
      left -= this.#counts[bucket] ?? 0;
      if (left <= 0) return Math.exp(bucket * STEP) / 1000;
    }
    return Number.NaN;
  }

  /** For another process. */
  toJSON(): number[] {
    return Array.from(this.#counts, (count) => count ?? 0);
  }
}

const STEP = Math.log(1.02);
