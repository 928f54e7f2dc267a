/** A title, and the wall clock (ms since 1970) of the stream's sample at which it begins. */
export interface HeardTitle {
  readonly id: string;
  readonly startMs: number;
  readonly title: string;
  readonly artist: string;
}

/** Far more titles than any playlist lists; the oldest are discarded. */
const KEPT = 200;

/**
 * All titles from the playlist's date ranges, in order, so that the page can show the title that is
 * heard instead of the newest.
 */
export class TitleLog {
  #titles: HeardTitle[] = [];
  readonly #known = new Set<string>();

  add(entry: HeardTitle): void {
    if (this.#known.has(entry.id) || !Number.isFinite(entry.startMs)) return;
    this.#known.add(entry.id);
    this.#titles.push(entry);
    this.#titles.sort((a, b) => a.startMs - b.startMs);
    // The ids stay known: a discarded title may still be in the playlist and must not come back as
    // new.
    if (this.#titles.length > KEPT) this.#titles = this.#titles.slice(-KEPT);
  }

  get size(): number {
    return this.#titles.length;
  }

  at(dateMs: number): HeardTitle | undefined {
    return this.#titles.findLast((entry) => entry.startMs <= dateMs);
  }

  /** Titles before the one that is heard, newest first. */
  before(dateMs: number, count: number): HeardTitle[] {
    const heard = this.#titles.filter((entry) => entry.startMs <= dateMs && entry.title !== '');
    return heard.slice(0, -1).slice(-count).reverse();
  }
}
