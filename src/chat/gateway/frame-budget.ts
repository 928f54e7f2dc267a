/** A token bucket of frames: one account's in this process, shared by its connections, or one guest's. */
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

  /** False: the account sends faster than `perS`, and its burst is used up. */
  takeFrame(nowMs: number): boolean {
    this.#tokens = Math.min(this.burst, this.#tokens + ((nowMs - this.#filledAtMs) * this.perS) / 1000);
    this.#filledAtMs = nowMs;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}
