import { h } from './dom';

/** A section of a page: its name and purpose on the left, its controls on the right. */
export function section(title: string, text: string | null, ...children: (Node | null)[]): HTMLElement {
  const id = title.toLowerCase().replaceAll(/[^a-z]+/g, '-');
  return h(
    'section',
    { class: 'part', id, 'aria-labelledby': `${id}-title` },
    h('div', { class: 'part-head' }, h('h2', { id: `${id}-title`, tabindex: -1 }, title), text === null ? null : h('p', {}, text)),
    h('div', { class: 'part-body' }, ...children),
  );
}

/** The head of a page. Its heading gets the focus, so that a screen reader begins there. */
export function pageHead(title: string, ...more: (HTMLElement | string | null)[]): HTMLElement {
  document.title = `${title} · Veza`;
  return h('div', { class: 'page-head' }, h('h1', { tabindex: -1 }, title), ...more);
}

/** Shows a page, or another state of it, and focuses its head. */
export function show(main: HTMLElement, ...children: (Node | null)[]): void {
  main.replaceChildren(h('div', { class: 'page' }, ...children));
  scrollTo(0, 0);
  main.querySelector<HTMLElement>('h1')?.focus({ preventScroll: true });
}

/** "23 Nov 2026, 18:05" in the reader's locale. */
export const dateText = (iso: string | null, none = 'never'): string =>
  iso === null ? none : new Date(iso).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });

/** Downloads a file that the page has made. */
export function download(name: string, content: Blob): void {
  const url = URL.createObjectURL(content);
  const link = h('a', { href: url, download: name, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
