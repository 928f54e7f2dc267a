import type { Item } from '../../../src/chat-client/index';
import { h } from '../ui/dom';

export interface ListHost {
  row(item: Item): HTMLLIElement;
  /** Loads older entries; resolves when some have come, or there are none. */
  older(): Promise<void>;
  readonly hasOlder: boolean;
  /** Called with the number of newer messages below the visible part; 0 when all were seen. */
  onUnseen(count: number): void;
  /** Called when the list begins or stops to follow its end. */
  onFollow(follows: boolean): void;
}

/** Most rows in the document, however many messages there are. */
const MOST_ROWS = 120;
const FEWEST_ROWS = 60;
const STEP = 30;
/** More rows are added when the edge is this near. */
const NEAR_PX = 400;
const END_PX = 32;

/**
 * The list of messages, of which a bounded part is in the document: the newest while the end is
 * followed, else those around the visible part. Visible rows never move when others are added
 * before, after or removed.
 */
export class MessageList {
  readonly element: HTMLElement;
  /** The person's own messages that are not in the log yet, shown after the others. */
  readonly tail = h('ol', { class: 'chat-tail' });
  readonly #list = h('ol', { class: 'chat-rows' });
  readonly #host: ListHost;
  #items: Item[] = [];
  readonly #rows = new Map<Item, HTMLLIElement>();
  /** The items from `#top` up to, not including, `#end` have rows. */
  #top = 0;
  #end = 0;
  #follows = true;
  #unseen = 0;
  #frame: number | undefined;
  #isAsking = false;
  readonly #stale = new Set<Item>();

  constructor(host: ListHost, label: string) {
    this.#host = host;
    this.element = h(
      'div',
      { class: 'chat-scroll', role: 'log', 'aria-live': 'polite', 'aria-label': label, tabindex: 0 },
      this.#list,
      this.tail,
    );
    this.element.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => {
      if (this.#follows) this.#toEnd();
    }).observe(this.element);
  }

  get follows(): boolean {
    return this.#follows;
  }

  get isEmpty(): boolean {
    return this.#items.length === 0;
  }

  append(items: readonly Item[]): void {
    const shown = items.filter(({ visible }) => visible);
    this.#items.push(...shown);
    if (!this.#follows) this.#setUnseen(this.#unseen + shown.length);
    this.#draw();
  }

  prepend(items: readonly Item[]): void {
    const shown = items.filter(({ visible }) => visible);
    this.#items = [...shown, ...this.#items];
    this.#top += shown.length;
    this.#end += shown.length;
    this.#draw();
  }

  remove(items: readonly Item[]): void {
    const gone = new Set(items);
    const before = this.#items;
    const first = before[this.#top];
    this.#items = before.filter((item) => !gone.has(item));
    for (const item of gone) {
      this.#rows.get(item)?.remove();
      this.#rows.delete(item);
    }
    // The place of the remaining rows among the remaining items.
    const top = first && !gone.has(first) ? this.#items.indexOf(first) : this.#items.findIndex((item) => this.#rows.has(item));
    this.#top = Math.max(0, top);
    this.#end = this.#top + this.#rows.size;
    this.#draw();
  }

  /** Redraws items that have changed, and adds those that have become visible. */
  change(items: readonly Item[]): void {
    for (const item of items) {
      if (this.#rows.has(item)) this.#stale.add(item);
      else if (item.visible && !this.#items.includes(item)) {
        const at = this.#items.findIndex(({ offset }) => offset > item.offset);
        this.#items.splice(at < 0 ? this.#items.length : at, 0, item);
        this.#rebuild();
      }
    }
    this.#draw();
  }

  /** Redraws every row, after a change of names or rights. */
  redraw(): void {
    for (const item of this.#rows.keys()) this.#stale.add(item);
    this.#draw();
  }

  /** Leaves space at the top for something that covers that many pixels. */
  leaveAbove(px: number): void {
    this.#list.style.paddingTop = `${px}px`;
    if (this.#follows) this.#toEnd();
  }

  /** Scrolls to the newest message and follows the end. */
  followEnd(): void {
    this.#setFollows(true);
    this.#setUnseen(0);
    this.#render();
    this.#toEnd();
  }

  /** Scrolls to the item, with others around it, and gives it the focus. */
  show(item: Item): void {
    const at = this.#items.indexOf(item);
    if (at < 0) return;
    if (at < this.#top || at >= this.#end) {
      this.#setFollows(false);
      this.#clearRows();
      this.#top = Math.max(0, at - FEWEST_ROWS / 2);
      this.#end = this.#top;
      this.#extendDown(FEWEST_ROWS);
    }
    const row = this.#rows.get(item);
    row?.scrollIntoView({ block: 'center' });
    row?.focus({ preventScroll: true });
  }

  itemOf(element: Element | null): Item | undefined {
    const row = element?.closest('li');
    for (const [item, known] of this.#rows) if (known === row) return item;
    return undefined;
  }

  rowOf(item: Item): HTMLLIElement | undefined {
    return this.#rows.get(item);
  }

  /** Renders once before the next paint, for all changes until then. */
  #draw(): void {
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = undefined;
      this.#render();
    });
  }

  #render(): void {
    for (const item of this.#stale) {
      const old = this.#rows.get(item);
      if (!old) continue;
      const hadFocus = document.activeElement === old;
      const row = this.#host.row(item);
      old.replaceWith(row);
      this.#rows.set(item, row);
      if (hadFocus) row.focus({ preventScroll: true });
    }
    this.#stale.clear();
    if (this.#follows) {
      const end = this.#items.length;
      // The rows are too far from the end: start again at the end.
      if (end - this.#end > FEWEST_ROWS) {
        this.#clearRows();
        this.#end = end - FEWEST_ROWS;
        this.#top = this.#end;
      }
      this.#extendDown(end - this.#end);
      if (this.#end - this.#top > MOST_ROWS) this.#cutTop(this.#end - this.#top - FEWEST_ROWS);
      if (this.#end - this.#top < FEWEST_ROWS) this.#extendUp(FEWEST_ROWS - (this.#end - this.#top));
      this.#toEnd();
    } else if (this.#end - this.#top < MOST_ROWS)
      this.#extendDown(Math.min(MOST_ROWS - (this.#end - this.#top), this.#items.length - this.#end));
  }

  #scrolled(): void {
    const { scrollTop, scrollHeight, clientHeight } = this.element;
    const belowPx = scrollHeight - scrollTop - clientHeight;
    // While the end is followed, items without a row do not count: they are drawn next.
    const isAtEnd = belowPx <= END_PX && (this.#follows || this.#end === this.#items.length);
    if (isAtEnd !== this.#follows) {
      this.#setFollows(isAtEnd);
      if (isAtEnd) this.#setUnseen(0);
    }
    if (scrollTop < NEAR_PX) this.#up();
    if (!this.#follows && belowPx < NEAR_PX && this.#end < this.#items.length) this.#down();
  }

  #up(): void {
    if (this.#top > 0) {
      this.#steadily(() => this.#extendUp(STEP));
      if (this.#end - this.#top > MOST_ROWS) this.#cutEnd(this.#end - this.#top - MOST_ROWS);
      return;
    }
    if (this.#isAsking || !this.#host.hasOlder) return;
    this.#isAsking = true;
    this.element.setAttribute('aria-busy', 'true');
    void this.#host.older().finally(() => {
      this.#isAsking = false;
      this.element.removeAttribute('aria-busy');
      if (this.element.scrollTop < NEAR_PX && this.#top > 0) this.#up();
    });
  }

  #down(): void {
    this.#extendDown(Math.min(STEP, this.#items.length - this.#end));
    if (this.#end - this.#top > MOST_ROWS) this.#steadily(() => this.#cutTop(this.#end - this.#top - MOST_ROWS));
  }

  /** Keeps the visible rows in place while `change` adds or removes rows above them. */
  #steadily(change: () => void): void {
    const { element } = this;
    // A screen reader must not read out older rows.
    element.setAttribute('aria-live', 'off');
    const belowPx = element.scrollHeight - element.scrollTop;
    change();
    element.scrollTop = element.scrollHeight - belowPx;
    requestAnimationFrame(() => element.setAttribute('aria-live', 'polite'));
  }

  #extendDown(count: number): void {
    const rows: HTMLLIElement[] = [];
    for (const item of this.#items.slice(this.#end, this.#end + Math.max(0, count))) rows.push(this.#make(item));
    this.#list.append(...rows);
    this.#end += rows.length;
  }

  #extendUp(count: number): void {
    const from = Math.max(0, this.#top - count);
    const rows = this.#items.slice(from, this.#top).map((item) => this.#make(item));
    this.#list.prepend(...rows);
    this.#top = from;
  }

  #cutTop(count: number): void {
    for (const item of this.#items.slice(this.#top, this.#top + count)) this.#drop(item);
    this.#top += count;
  }

  #cutEnd(count: number): void {
    for (const item of this.#items.slice(this.#end - count, this.#end)) this.#drop(item);
    this.#end -= count;
  }

  #make(item: Item): HTMLLIElement {
    const row = this.#host.row(item);
    this.#rows.set(item, row);
    return row;
  }

  #drop(item: Item): void {
    this.#rows.get(item)?.remove();
    this.#rows.delete(item);
  }

  #clearRows(): void {
    this.#rows.clear();
    this.#list.replaceChildren();
  }

  #rebuild(): void {
    const { length } = this.#items;
    this.#clearRows();
    this.#end = this.#follows ? length : Math.min(length, this.#top + FEWEST_ROWS);
    this.#top = Math.max(0, this.#end - FEWEST_ROWS);
    this.#end = this.#top;
    this.#extendDown(FEWEST_ROWS);
  }

  #toEnd(): void {
    this.element.scrollTop = this.element.scrollHeight;
  }

  #setFollows(follows: boolean): void {
    if (follows === this.#follows) return;
    this.#follows = follows;
    this.#host.onFollow(follows);
  }

  #setUnseen(count: number): void {
    this.#unseen = count;
    this.#host.onUnseen(count);
  }
}
