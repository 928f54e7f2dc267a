/** What the chat says is on air: its frame `channel`. */
export interface OnAirNews {
  readonly state: 'offline' | 'live' | 'holding';
  readonly listeners: number;
  readonly nowPlaying: { readonly title: string; readonly artist?: string | null } | null;
}

interface WatchOptions {
  /** Asks the API, and shows the answer. Resolves with whether the channel is on air; rejects when there is no answer. */
  readonly ask: () => Promise<boolean>;
  /** Starts a timer and returns what cancels it. Unset: the browser's own; tests give a fake one. */
  readonly after?: (waitMs: number, task: () => void) => () => void;
  readonly random?: () => number;
}

/** While the chat tells what is on air: for what it does not tell, such as another title of the channel. */
const TOLD_MS = 300_000;
const ON_AIR_MS = 35_000;
/** Off air, who is here waits for the beginning: asked again soon, then less and less often. */
const OFF_AIR_MS = { first: 2_000, factor: 2, most: 35_000 };
/** After the chat was lost: it may be back by then, and everybody has lost it at one time. */
const LOST_MS = 10_000;
const UNANSWERED_MS = { factor: 1.5, most: 120_000 };
/** Part of a wait by which it differs from page to page, either way. */
const SPREAD = 0.15;

/** Follows what is on air: the chat's connection tells it; only while that is away, or does not know, the API is asked, twice a minute at most. */
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

  /** What the chat has told, or that it is away or does not know. */
  tell(news: OnAirNews | undefined): void {
    const wasTold = this.#isTold;
    this.#isTold = news !== undefined;
    if (news) this.#isOnAir = news.state !== 'offline';
    if (wasTold === this.#isTold) return;
    this.#waitMs = this.#isOnAir ? ON_AIR_MS : OFF_AIR_MS.first;
    this.#wait(news ? TOLD_MS : LOST_MS);
  }

  /** The player has come to the end of the show. */
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
