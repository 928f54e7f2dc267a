/** The upper bounds of the buckets, in seconds. */
export const DELIVERY_BUCKETS_S = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10] as const;

/**
 * The delays from the log to the write, as a histogram. The primary adds up the histograms of the
 * processes.
 */
export class DeliveryTimes {
  /**
   * The number of delays in each bucket; the last bucket has those above all bounds. The counts
   * only rise.
   */
  readonly counts: number[] = new Array(DELIVERY_BUCKETS_S.length + 1).fill(0);
  sumS = 0;

  observe(seconds: number): void {
    let bucket = 0;
    while (bucket < DELIVERY_BUCKETS_S.length && seconds > DELIVERY_BUCKETS_S[bucket]!) bucket++;
    this.counts[bucket]!++;
    this.sumS += seconds;
  }
}
