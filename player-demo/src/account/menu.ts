import './menu.css';
import { h } from '../ui/dom';
import { currentUser, onSession, signOut } from '../ui/session';

/**
 * The end of every page's header: a menu for a signed-in person, or the link to sign in. Its height
 * never changes.
 */
export function accountMenu(): HTMLElement {
  const place = h('div', { class: 'account-place' });
  // An embedded player shows no account.
  if (window.top !== window.self) return place;

  let shown: string | undefined;
  const fill = () => {
    const user = currentUser();
    // An access token that another tab has renewed must not close an open menu.
    const now = JSON.stringify([user?.name, user?.role]);
    if (now === shown) return;
    shown = now;
    if (!user) {
      const to = location.pathname === '/account' || location.pathname === '/' ? '' : `?to=${encodeURIComponent(location.pathname)}`;
      place.replaceChildren(h('a', { href: `/account${to}`, class: 'sign-in' }, 'Sign in'));
      return;
    }
    const link = (href: string, text: string) =>
      h('li', {}, h('a', { href, ...(location.pathname === href ? { 'aria-current': 'page' } : {}) }, text));
    const menu = h(
      'details',
      { class: 'account-menu' },
      h('summary', {}, h('span', {}, user.name)),
      h(
        'ul',
        {},
        link('/account', 'Account'),
        link('/channels', 'My channels'),
        user.role === 'admin' || user.role === 'moderator' ? link('/admin', 'Administration') : null,
        h('li', {}, h('button', { type: 'button', onclick: () => void leave() }, 'Sign out')),
      ),
    );
    place.replaceChildren(menu);
  };
  const leave = async () => {
    await signOut();
    location.assign('/');
  };
  document.addEventListener('click', (event) => {
    const menu = place.querySelector('details');
    if (menu?.open && event.target instanceof Node && !menu.contains(event.target)) menu.open = false;
  });
  place.addEventListener('keydown', (event) => {
    const menu = place.querySelector('details');
    if (event.key !== 'Escape' || !menu?.open) return;
    menu.open = false;
    menu.querySelector('summary')?.focus();
  });
  fill();
  onSession(fill);
  return place;
}
