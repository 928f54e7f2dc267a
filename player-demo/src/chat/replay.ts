import { type Entry, Timeline, type TimelineEvent } from '../../../src/chat-client/index.js';

/** Fetches at most `limit` entries of a room before an offset (exclusive), ascending. */
export type FetchBefore = (before: number, limit: number) => Promise<readonly Entry[]>;

const PAGE = 100;
/** Entries from before the moment that are shown after a seek. */
const CONTEXT = 30;
/** Entries are fetched this far ahead of the sound. */
const AHEAD_MS = 60_000;
/** A step of more than this is a seek: the entries in between are not fetched. */
const SEEK_MS = 120_000;
const AGAIN_MS = 5_000;

/**
 * Replays a room's log. At each moment it shows the messages up to then; deleted ones are not
 * there.
 */
export class ChatReplay {
  readonly timeline: Timeline;
  readonly #before: FetchBefore;
  readonly #head: number;
  /** Entries that were fetched and not shown yet, ascending. */
  #coming: Entry[] = [];
  /** Offset up to which entries were fetched. */
  #fetched = 0;
  /** Number of offsets in the next fetch. */
  #step = PAGE;
  #shownMs = Number.NEGATIVE_INFINITY;
  #wantedMs = 0;
  #isBusy = false;
  #restUntilMs = 0;

  /** `head` is the newest offset of the room. */
  constructor(head: number, before: FetchBefore, emit: (event: TimelineEvent) => void) {
    this.#head = head;
    this.#before = before;
    this.timeline = new Timeline(emit);
  }

  /** Shows the messages up to this moment of the broadcast, ms since 1970. Call it often. */
  async at(momentMs: number, nowMs: number): Promise<void> {
    this.#wantedMs = momentMs;
    if (momentMs < this.#shownMs) this.#rewind(momentMs);
    this.#show(momentMs);
    if (this.#isBusy || nowMs < this.#restUntilMs) return;
    this.#isBusy = true;
    try {
      if (momentMs - this.#shownMs > SEEK_MS || this.#shownMs === Number.NEGATIVE_INFINITY) await this.#seek(momentMs);
      while (this.#fetched < this.#head && ((this.#coming.at(-1)?.at as number | undefined) ?? this.#shownMs) < this.#wantedMs + AHEAD_MS) {
        if (this.#coming.length > 10 * PAGE) break;
        await this.#fetchOn();
      }
      this.#show(this.#wantedMs);
    } catch {
      // The chat is unavailable: the sound goes on, and the entries are fetched again later.
      this.#restUntilMs = nowMs + AGAIN_MS;
    } finally {
      this.#isBusy = false;
    }
  }

  #show(momentMs: number): void {
    if (this.#shownMs === Number.NEGATIVE_INFINITY || momentMs - this.#shownMs > SEEK_MS) return;
    const count = this.#coming.findIndex((entry) => timeOf(entry) > momentMs);
    this.timeline.append(this.#coming.splice(0, count < 0 ? this.#coming.length : count));
    this.#shownMs = Math.max(this.#shownMs, momentMs);
  }

  /** Goes back a little: later messages will be shown again. */
  #rewind(momentMs: number): void {
    const { items } = this.timeline;
    const keep = items.findLast(({ at }) => at <= momentMs);
    if (!keep || this.#shownMs - momentMs > SEEK_MS) {
      this.#forget();
      return;
    }
    const later = items.filter(({ offset }) => offset > keep.offset).map(({ entry }) => entry);
    this.timeline.withdraw(keep.offset);
    this.#coming = [...later, ...this.#coming];
    this.#shownMs = momentMs;
  }

  #forget(): void {
    this.timeline.clear();
    this.#coming = [];
    this.#shownMs = Number.NEGATIVE_INFINITY;
  }

  /** Finds the moment by bisection: about twenty small requests in a room of a million entries. */
  async #seek(momentMs: number): Promise<void> {
    this.#forget();
    let low = 0;
    let high = this.#head;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      const [entry] = await this.#before(middle + 1, 1);
      // No entry: it was deleted by age, so it was earlier.
      if (!entry || timeOf(entry) <= momentMs) low = middle;
      else high = middle - 1;
    }
    const shown = low === 0 ? [] : await this.#before(low + 1, CONTEXT);
    this.#fetched = low;
    this.#step = PAGE;
    this.timeline.append(shown.filter(({ offset }) => offset <= low));
    this.#shownMs = momentMs;
  }

  async #fetchOn(): Promise<void> {
    const to = Math.min(this.#head, this.#fetched + this.#step);
    let page = await this.#page(to + 1);
    // All entries between two recordings may have been deleted: the step doubles, to cross them
    // fast.
    if (page.length === 0) {
      this.#step *= 2;
      this.#fetched = to;
      return;
    }
    // A large step may have more entries than one page: halve it and fetch again.
    if (this.#step > PAGE && page[0]!.offset > this.#fetched + 1) {
      const step = to - this.#fetched;
      this.#step = Math.max(PAGE, Math.floor(step / 2));
      if (this.#step < step) return;
    }
    const entries = page;
    // A page has fewer entries when they are long: fetch the ones before it too.
    while (entries[0]!.offset > this.#fetched + 1) {
      page = await this.#page(entries[0]!.offset);
      if (page.length === 0) break;
      entries.unshift(...page);
    }
    this.#step = PAGE;
    this.#coming.push(...entries);
    this.#fetched = to;
  }

  async #page(before: number): Promise<Entry[]> {
    return (await this.#before(before, PAGE)).filter(({ offset }) => offset > this.#fetched);
  }
}

const timeOf = ({ at }: Entry): number => (typeof at === 'number' ? at : 0);
