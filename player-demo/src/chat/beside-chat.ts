import './place.css';
import { h } from '../ui/dom';

/** Shows the room's chat beside `main` for as long as the page is open. */
export function besideChat(main: HTMLElement, slug: string): void {
  const place = h('div', { class: 'chat-place' });
  main.replaceChildren(h('div', { class: 'with-chat' }, ...main.children, place));
  void import('./panel').then(({ mountChat }) => mountChat(place, slug));
}
