/**
 * One clock for everything that has a deadline or a timestamp. Tests use `FakeClock`; no other code
 * reads the time.
 *
 * `wallMs` is the monotonic clock plus an offset that was read once at start, so it never jumps.
 * After a step of the system clock the offset follows by at most 500 ppm (`SLEW_PPM`).
 * PROGRAM-DATE-TIME, the MPD and `/time` therefore always agree with each other, and after a while
 * with the system clock again.
 */
export interface Clock {
  /** Milliseconds since an arbitrary start; never decreases. */
  monotonicMs(): number;
  /** Milliseconds since 1970; never jumps. */
  wallMs(): number;
  /** Runs `task` once after `delayMs`. Returns a function that cancels it. */
  after(delayMs: number, task: () => void): () => void;
  /** Runs `task` every `periodMs`. Returns a function that cancels it. */
  every(periodMs: number, task: () => void): () => void;
}

const SLEW_PPM = 500;

export class SystemClock implements Clock {
  #offsetMs: number;
  #checkedAtMs: number;
  readonly #systemWallMs: () => number;
  readonly #now: () => number;

  constructor(systemWallMs: () => number = Date.now, now: () => number = () => performance.now()) {
    this.#systemWallMs = systemWallMs;
    this.#now = now;
    this.#checkedAtMs = now();
    this.#offsetMs = systemWallMs() - this.#checkedAtMs;
  }

  monotonicMs(): number {
    return this.#now();
  }

  wallMs(): number {
    const nowMs = this.#now();
    const elapsedMs = nowMs - this.#checkedAtMs;
    if (elapsedMs >= 1000) {
      const errorMs = this.#systemWallMs() - (nowMs + this.#offsetMs);
      // An error of at most 2 ms is the granularity of the system clock.
      if (Math.abs(errorMs) > 2) {
        const limitMs = (elapsedMs * SLEW_PPM) / 1e6;
        this.#offsetMs += Math.max(-limitMs, Math.min(limitMs, errorMs));
      }
      this.#checkedAtMs = nowMs;
    }
    return nowMs + this.#offsetMs;
  }

  after(delayMs: number, task: () => void): () => void {
    const timer = setTimeout(task, delayMs);
    return () => clearTimeout(timer);
  }

  every(periodMs: number, task: () => void): () => void {
    const timer = setInterval(task, periodMs);
    return () => clearInterval(timer);
  }
}

interface FakeTimer {
  atMs: number;
  periodMs: number | undefined;
  task: () => void;
}

/**
 * A clock for tests: it moves only when `advance` or `sleep` is called, and runs timers in order
 * while it moves.
 */
export class FakeClock implements Clock {
  #nowMs = 0;
  readonly #startWallMs: number;
  readonly #timers = new Set<FakeTimer>();

  constructor(startWallMs = Date.UTC(2030, 0, 1)) {
    this.#startWallMs = startWallMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#startWallMs + this.#nowMs;
  }

  after(delayMs: number, task: () => void): () => void {
    return this.#add({ atMs: this.#nowMs + delayMs, periodMs: undefined, task });
  }

  every(periodMs: number, task: () => void): () => void {
    return this.#add({ atMs: this.#nowMs + periodMs, periodMs, task });
  }

  /** Moves the time forward and runs the timers that fall due on the way. */
  advance(byMs: number): void {
    const untilMs = this.#nowMs + byMs;
    for (;;) {
      let next: FakeTimer | undefined;
      for (const timer of this.#timers) if (timer.atMs <= untilMs && (!next || timer.atMs < next.atMs)) next = timer;
      if (!next) break;
      this.#nowMs = next.atMs;
      if (next.periodMs === undefined) this.#timers.delete(next);
      else next.atMs += next.periodMs;
      next.task();
    }
    this.#nowMs = untilMs;
  }

  /**
   * Lets time pass without running timers, as for a suspended process. Timers that fell due
   * meanwhile run with the next `advance`.
   */
  sleep(ms: number): void {
    this.#nowMs += ms;
    for (const timer of this.#timers) if (timer.atMs < this.#nowMs) timer.atMs = this.#nowMs;
  }

  #add(timer: FakeTimer): () => void {
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }
}
