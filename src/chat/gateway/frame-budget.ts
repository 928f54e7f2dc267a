/**
 * A token bucket that limits frames: one per account, shared by its connections to this process, or
 * one per guest.
 */
export class FrameBudget {
  #tokens: number;
  #filledAtMs: number;

  constructor(
    private readonly perS: number,
    private readonly burst: number,
    nowMs: number,
  ) {
    this.#tokens = burst;
    this.#filledAtMs = nowMs;
  }

  /**
   * Consumes one frame. Returns false when the bucket is empty: frames come faster than `perS`, and
   * the burst is used up.
   */
  takeFrame(nowMs: number): boolean {
    this.#tokens = Math.min(this.burst, this.#tokens + ((nowMs - this.#filledAtMs) * this.perS) / 1000);
    this.#filledAtMs = nowMs;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}
