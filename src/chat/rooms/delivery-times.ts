/** Upper bounds in seconds. */
export const DELIVERY_BUCKETS_S = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10] as const;

/** From the log to the write: a histogram that can be sent to another process and added up there. */
export class DeliveryTimes {
  /** How many fell into each bucket, the last one above all bounds. Rising. */
  readonly counts: number[] = new Array(DELIVERY_BUCKETS_S.length + 1).fill(0);
  sumS = 0;

  observe(seconds: number): void {
    let bucket = 0;
    while (bucket < DELIVERY_BUCKETS_S.length && seconds > DELIVERY_BUCKETS_S[bucket]!) bucket++;
    this.counts[bucket]!++;
    this.sumS += seconds;
  }
}
