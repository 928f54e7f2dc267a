/** The chat's frame `channel`: the channel's state and title. */
export interface OnAirNews {
  readonly state: 'offline' | 'live' | 'holding';
  readonly listeners: number;
  readonly nowPlaying: { readonly title: string; readonly artist?: string | null } | null;
}

interface WatchOptions {
  /**
   * Asks the API and shows its answer. Resolves to whether the channel is on air; rejects without
   * an answer.
   */
  readonly ask: () => Promise<boolean>;
  /** Starts a timer and returns a function that cancels it. Default: the browser's timer. */
  readonly after?: (waitMs: number, task: () => void) => () => void;
  readonly random?: () => number;
}

/**
 * How often the API is asked while the chat reports what is on air: for changes that the chat does
 * not report, such as a new title of the channel.
 */
const TOLD_MS = 300_000;
const ON_AIR_MS = 35_000;
/** Off air, people wait for the start: the API is asked soon, then at growing intervals. */
const OFF_AIR_MS = { first: 2_000, factor: 2, most: 35_000 };
/**
 * Wait after the chat was lost: it may be back by then, and all pages have lost it at the same
 * moment.
 */
const LOST_MS = 10_000;
const UNANSWERED_MS = { factor: 1.5, most: 120_000 };
/** Every wait is shortened or lengthened by up to this share, so that pages do not ask together. */
const SPREAD = 0.15;

/**
 * Follows what is on air. The chat's connection reports it; the API is asked only while the chat is
 * lost or does not know, then at most twice a minute once a broadcast is on air.
 */
export class ChannelWatch {
  readonly #options: Required<WatchOptions>;
  #isTold = false;
  #isOnAir: boolean;
  #waitMs: number = OFF_AIR_MS.first;
  #cancel = () => {};
  #turn = 0;

  constructor(isOnAir: boolean, options: WatchOptions) {
    this.#options = { after: browserAfter, random: Math.random, ...options };
    this.#isOnAir = isOnAir;
    this.#waitMs = isOnAir ? ON_AIR_MS : OFF_AIR_MS.first;
    this.#wait(this.#waitMs);
  }

  /** Takes what the chat reports; undefined: the chat is lost or does not know. */
  tell(news: OnAirNews | undefined): void {
    const wasTold = this.#isTold;
    this.#isTold = news !== undefined;
    if (news) this.#isOnAir = news.state !== 'offline';
    if (wasTold === this.#isTold) return;
    this.#waitMs = this.#isOnAir ? ON_AIR_MS : OFF_AIR_MS.first;
    this.#wait(news ? TOLD_MS : LOST_MS);
  }

  /** The player has reached the end of the broadcast. */
  ended(): void {
    if (!this.#isOnAir) return;
    this.#isOnAir = false;
    if (this.#isTold) return;
    this.#waitMs = OFF_AIR_MS.first;
    this.#wait(this.#waitMs);
  }

  stop(): void {
    this.#turn++;
    this.#cancel();
  }

  #wait(waitMs: number): void {
    const { after, random } = this.#options;
    const turn = ++this.#turn;
    this.#cancel();
    this.#cancel = after(waitMs * (1 - SPREAD + 2 * SPREAD * random()), () => void this.#ask(turn));
  }

  async #ask(turn: number): Promise<void> {
    let isAnswered = false;
    try {
      const isOnAir = await this.#options.ask();
      isAnswered = true;
      if (turn !== this.#turn) return;
      if (isOnAir !== this.#isOnAir) this.#waitMs = OFF_AIR_MS.first;
      this.#isOnAir = isOnAir;
    } catch {
      if (turn !== this.#turn) return;
    }
    if (!isAnswered) this.#waitMs = Math.min(UNANSWERED_MS.most, this.#waitMs * UNANSWERED_MS.factor);
    else if (this.#isOnAir) this.#waitMs = ON_AIR_MS;
    else this.#waitMs = Math.min(OFF_AIR_MS.most, this.#waitMs * OFF_AIR_MS.factor);
    this.#wait(this.#isTold ? TOLD_MS : this.#waitMs);
  }
}

function browserAfter(waitMs: number, task: () => void): () => void {
  const timer = setTimeout(task, waitMs);
  return () => clearTimeout(timer);
}
