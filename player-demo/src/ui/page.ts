import { h } from './dom';

/** A part of a page: its name and what it is for on the left, what can be done on the right. */
export function section(title: string, text: string | null, ...children: (Node | null)[]): HTMLElement {
  const id = title.toLowerCase().replaceAll(/[^a-z]+/g, '-');
  return h(
    'section',
    { class: 'part', id, 'aria-labelledby': `${id}-title` },
    h('div', { class: 'part-head' }, h('h2', { id: `${id}-title`, tabindex: -1 }, title), text === null ? null : h('p', {}, text)),
    h('div', { class: 'part-body' }, ...children),
  );
}

/** What stands at the top of a page. Its heading has the focus, so that a screen reader begins there. */
export function pageHead(title: string, ...more: (HTMLElement | string | null)[]): HTMLElement {
  document.title = `${title} · Veza`;
  return h('div', { class: 'page-head' }, h('h1', { tabindex: -1 }, title), ...more);
}

/** Shows a page, or another state of one, and puts the focus at its head. */
export function show(main: HTMLElement, ...children: (Node | null)[]): void {
  main.replaceChildren(h('div', { class: 'page' }, ...children));
  scrollTo(0, 0);
  main.querySelector<HTMLElement>('h1')?.focus({ preventScroll: true });
}

/** "23 Nov 2026, 18:05" in the reader's own way. */
export const dateText = (iso: string | null, none = 'never'): string =>
  iso === null ? none : new Date(iso).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });

/** Hands the browser a file that was made here. */
export function download(name: string, content: Blob): void {
  const url = URL.createObjectURL(content);
  const link = h('a', { href: url, download: name, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
