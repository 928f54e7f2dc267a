import { type Entry, Timeline, type TimelineEvent } from '../../../src/chat-client/index.js';

/** Entries of a room before an offset (exclusive), ascending, at most `limit`. */
export type FetchBefore = (before: number, limit: number) => Promise<readonly Entry[]>;

const PAGE = 100;
/** So many from before the moment are shown when one comes to it. */
const CONTEXT = 30;
/** Fetched so far ahead of what is heard. */
const AHEAD_MS = 60_000;
/** A step of more than this is a seek: what lies between is not fetched. */
const SEEK_MS = 120_000;
const AGAIN_MS = 5_000;

/** A room's log played again: at each moment it shows what had been said by then, and what was taken back since is not there. */
export class ChatReplay {
  readonly timeline: Timeline;
  readonly #before: FetchBefore;
  readonly #head: number;
  /** Fetched and not shown yet, ascending. */
  #coming: Entry[] = [];
  /** Of the last that was fetched. */
  #fetched = 0;
  /** Offsets that are fetched next. */
  #step = PAGE;
  #shownMs = Number.NEGATIVE_INFINITY;
  #wantedMs = 0;
  #isBusy = false;
  #restUntilMs = 0;

  /** `head`: the newest offset of the room. */
  constructor(head: number, before: FetchBefore, emit: (event: TimelineEvent) => void) {
    this.#head = head;
    this.#before = before;
    this.timeline = new Timeline(emit);
  }

  /** Shows what had been said at this moment of the programme, ms since 1970. Call it often. */
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
      // The chat is away: the sound goes on, and it is asked again.
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

  /** A little back: what is later comes again. */
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

  /** Finds the moment by halving: some twenty small questions in a room of a million. */
  async #seek(momentMs: number): Promise<void> {
    this.#forget();
    let low = 0;
    let high = this.#head;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      const [entry] = await this.#before(middle + 1, 1);
      // Let go by age: it was before.
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
    // Between two recordings everything may have been let go: it is crossed in ever longer steps.
    if (page.length === 0) {
      this.#step *= 2;
      this.#fetched = to;
      return;
    }
    // And more may lie there than one page has.
    if (this.#step > PAGE && page[0]!.offset > this.#fetched + 1) {
      const step = to - this.#fetched;
      this.#step = Math.max(PAGE, Math.floor(step / 2));
      if (this.#step < step) return;
    }
    const entries = page;
    // Long ones are fewer a page.
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
