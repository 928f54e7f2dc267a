/** A title and when the listener hears it begin (wall clock of the stream, ms since 1970). */
export interface HeardTitle {
  readonly id: string;
  readonly startMs: number;
  readonly title: string;
  readonly artist: string;
}

/** Far above what any playlist lists at a time; the oldest go first. */
const KEPT = 200;

/** Every title seen in the playlist's date ranges, in order, so that the page can show the one that is heard, not the newest. */
export class TitleLog {
  #titles: HeardTitle[] = [];
  readonly #known = new Set<string>();

  add(entry: HeardTitle): void {
    if (this.#known.has(entry.id) || !Number.isFinite(entry.startMs)) return;
    this.#known.add(entry.id);
    this.#titles.push(entry);
    this.#titles.sort((a, b) => a.startMs - b.startMs);
    // The ids stay known: a title that was dropped here is still in the playlist and must not come back as new.
    if (this.#titles.length > KEPT) this.#titles = this.#titles.slice(-KEPT);
  }

  get size(): number {
    return this.#titles.length;
  }

  at(dateMs: number): HeardTitle | undefined {
    return this.#titles.findLast((entry) => entry.startMs <= dateMs);
  }

  /** Heard before the one that is heard now, newest first. */
  before(dateMs: number, count: number): HeardTitle[] {
    const heard = this.#titles.filter((entry) => entry.startMs <= dateMs && entry.title !== '');
    return heard.slice(0, -1).slice(-count).reverse();
  }
}
