import { actionButton } from '../ui/actions';
import { h, setText } from '../ui/dom';
import { problemOf } from '../ui/forms';
import { dateText } from '../ui/page';
import { call } from '../ui/session';

/** What the parts of a room's desk have in common. */
export interface DeskHost {
  readonly slug: string;
  /** Of the API. */
  readonly room: string;
  /** Hosts, the owner and administrators. */
  readonly mayConfigure: boolean;
  /** What is known of people's names, for links to them. */
  readonly names: Map<string, string>;
  /** Something was decided: what waits is another number. */
  decided(): void;
}

interface Page<T> {
  readonly items: readonly T[];
  readonly next: string | null;
}

export interface PagedList {
  readonly element: HTMLElement;
  readonly list: HTMLElement;
  /** What has happened, for everybody. */
  say(text: string): void;
  readonly note: HTMLElement;
  reload(): Promise<void>;
}

/** A list of the API, page by page; while it loads, when there is nothing and when it cannot be read it says so. */
export function pagedList<T>(options: {
  path: (cursor: string | undefined) => string;
  row: (item: T) => HTMLElement;
  empty: string;
  label: string;
}): PagedList {
  const list = h('ul', { class: 'rows desk-rows', 'aria-label': options.label });
  const state = h('p', { class: 'none', role: 'status' }, 'Loading…');
  const note = h('p', { class: 'form-note', role: 'status', 'aria-live': 'polite' });
  const more = h('div', { class: 'form-end' });
  const sayEmpty = () => setText(state, list.childElementCount > 0 ? '' : options.empty);
  // What is decided takes its row away.
  new MutationObserver(() => {
    if (isLoaded) sayEmpty();
  }).observe(list, { childList: true });
  let isLoaded = false;
  const load = async (cursor?: string) => {
    try {
      const page = await call<Page<T>>('GET', options.path(cursor));
      if (cursor === undefined) list.replaceChildren();
      isLoaded = true;
      list.append(...page.items.map(options.row));
      sayEmpty();
      const { next } = page;
      more.replaceChildren();
      if (next !== null) more.append(actionButton('Show more', () => load(next), { note }));
    } catch (error) {
      setText(state, `${problemOf(error).message} `);
      state.append(h('button', { type: 'button', class: 'linklike', onclick: () => void load(cursor) }, 'Try again'));
    }
  };
  void load();
  return {
    element: h('div', { class: 'desk-list' }, note, list, state, more),
    list,
    note,
    say: (text) => setText(note, text),
    reload: () => load(),
  };
}

/** A person's name that leads to what is known of him. */
export function personLink(host: DeskHost, id: string, name: string | null | undefined): HTMLElement {
  if (name) host.names.set(id, name);
  const shown = name ?? host.names.get(id) ?? 'somebody';
  return h('a', { href: `#person/${encodeURIComponent(id)}`, title: id }, h('bdi', {}, shown));
}

/** "for 3 h, until 24 Nov 2026, 18:05"; null: for good. */
export function untilText(until: string | null): string {
  if (until === null) return 'for good';
  const leftS = Math.max(0, Math.ceil((Date.parse(until) - Date.now()) / 1000));
  const left =
    leftS < 90
      ? `${leftS} s`
      : leftS < 5_400
        ? `${Math.ceil(leftS / 60)} min`
        : leftS < 172_800
          ? `${Math.ceil(leftS / 3_600)} h`
          : `${Math.ceil(leftS / 86_400)} days`;
  return `${left} left, until ${dateText(until)}`;
}
