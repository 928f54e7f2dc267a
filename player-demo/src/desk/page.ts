import './desk.css';
import { besideChat } from '../chat/beside-chat';
import { watchWaiting } from '../chat/waiting';
import { h, setText } from '../ui/dom';
import { problemOf } from '../ui/forms';
import { pageHead, show } from '../ui/page';
import { call } from '../ui/session';
import { actsPart } from './acts';
import { appealsPart } from './appeals';
import { heldPart } from './held';
import type { DeskHost } from './list';
import { peoplePart, personPart } from './people';
import { settingsPart } from './settings';
import { termsPart } from './terms';

interface RoomJson {
  readonly slug: string;
  readonly you: { readonly id: string; readonly role: string } | null;
}

const TABS: readonly (readonly [string, string])[] = [
  ['waiting', 'Waiting'],
  ['appeals', 'Appeals'],
  ['people', 'People'],
  ['words', 'Words'],
  ['settings', 'Settings'],
  ['acts', 'Who did what'],
];

/**
 * Shows `/channels/{slug}/chat`, where a room is moderated, with its chat beside it. The answer to
 * the first request decides whether the person may see the page.
 */
export async function mountDesk(main: HTMLElement, slug: string): Promise<void> {
  const room = `/rooms/${encodeURIComponent(slug)}`;
  await call('GET', `${room}/held?limit=1`);
  const [{ you }, channel] = await Promise.all([
    call<RoomJson>('GET', room),
    call<{ title: string }>('GET', `/channels/${encodeURIComponent(slug)}`),
  ]);
  const host: DeskHost = {
    slug,
    room,
    mayConfigure: you?.role === 'host' || you?.role === 'owner' || you?.role === 'admin',
    names: new Map(),
    decided: () => ask(),
  };
  const counts = { waiting: h('span', { class: 'badge' }), appeals: h('span', { class: 'badge' }) };
  const links = TABS.map(([name, label]) =>
    h('a', { href: `#${name}` }, label, name === 'waiting' ? counts.waiting : name === 'appeals' ? counts.appeals : ''),
  );
  const body = h('div', { class: 'desk' });
  const told = h('p', { class: 'offscreen', role: 'status', 'aria-live': 'polite' });
  show(
    main,
    h('p', { class: 'crumb' }, h('a', { href: `/channels/${encodeURIComponent(slug)}` }, channel.title)),
    pageHead(`Chat of ${channel.title}`, h('nav', { class: 'tabs desk-tabs', 'aria-label': 'Desk' }, ...links)),
    body,
    told,
  );
  let known = 0;
  const ask = watchWaiting(slug, ({ held, appeals }) => {
    setText(counts.waiting, held === 0 ? '' : String(held));
    setText(counts.appeals, appeals === 0 ? '' : String(appeals));
    if (held > known) setText(told, held === 1 ? 'One message waits.' : `${held} messages wait.`);
    known = held;
  });

  let turn = 0;
  const go = async (isFirst: boolean) => {
    const [name = '', id = ''] = location.hash.slice(1).split('/');
    const tab = name === 'person' ? 'people' : TABS.some(([one]) => one === name) ? name : 'waiting';
    for (const link of links) {
      if (link.hash === `#${tab}`) link.setAttribute('aria-current', 'page');
      else link.removeAttribute('aria-current');
    }
    const mine = ++turn;
    const part = await partOf(name === 'person' && id !== '' ? 'person' : tab, id);
    if (mine !== turn) return;
    body.replaceChildren(part);
    if (!isFirst) body.querySelector<HTMLElement>('h2')?.focus({ preventScroll: true });
  };
  const partOf = async (name: string, id: string): Promise<HTMLElement> => {
    switch (name) {
      case 'appeals':
        return appealsPart(host);
      case 'people':
        return peoplePart(host);
      case 'person':
        return personPart(host, decoded(id));
      case 'words':
        return termsPart(host);
      case 'settings':
        return settingsPart(host).catch((error) =>
          h(
            'p',
            { class: 'none', role: 'alert' },
            `${problemOf(error).message} `,
            h('button', { type: 'button', class: 'linklike', onclick: () => void go(false) }, 'Try again'),
          ),
        );
      case 'acts':
        return actsPart(host);
      default:
        return heldPart(host);
    }
  };
  addEventListener('hashchange', () => void go(false));
  await go(true);
  besideChat(main, slug);
}

/** The address may contain anything: not every percent-encoding is UTF-8. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
