import { actionButton } from '../ui/actions';
import { h, setText } from '../ui/dom';
import { problemOf } from '../ui/forms';
import { dateText } from '../ui/page';
import { call } from '../ui/session';

/** The state and actions that all parts of the moderation page share. */
export interface DeskHost {
  readonly slug: string;
  /** Path of the room in the API. */
  readonly room: string;
  /** True for hosts, the owner and administrators. */
  readonly mayConfigure: boolean;
  /** Known names of users, for links to them. */
  readonly names: Map<string, string>;
  /** Called after a decision: the number of waiting ones has changed. */
  decided(): void;
}

interface ListPageJson<T> {
  readonly items: readonly T[];
  readonly next: string | null;
}

export interface PagedList {
  readonly element: HTMLElement;
  readonly list: HTMLElement;
  /** Shows what has happened, and lets screen readers read it. */
  say(text: string): void;
  readonly note: HTMLElement;
  reload(): Promise<void>;
}

/** A list from the API, page by page. It says when it is loading, empty or cannot be read. */
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
  // A decision removes its row; without rows the list says that it is empty.
  new MutationObserver(() => {
    if (isLoaded) sayEmpty();
  }).observe(list, { childList: true });
  let isLoaded = false;
  const load = async (cursor?: string) => {
    try {
      const page = await call<ListPageJson<T>>('GET', options.path(cursor));
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

/** A person's name, which links to what moderators know about them. */
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
