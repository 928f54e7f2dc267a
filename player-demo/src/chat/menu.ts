import './menu.css';
import type { Item } from '../../../src/chat-client/index';
import { confirmed, open } from '../ui/dialogs';
import { h } from '../ui/dom';
import { field } from '../ui/forms';
import { askBan } from './ban';
import { emojiPicker, QUICK } from './emoji';
import { openPopup } from './popup';

export interface MenuHost {
  readonly panel: HTMLElement;
  /** Whether the person may write in the room. */
  readonly mayWrite: boolean;
  readonly mayModerate: boolean;
  readonly myId: string | undefined;
  readonly pinnedMid: unknown;
  /** Path of the page on which moderators see a user's sanctions. */
  aboutPath(userId: string): string;
  reply(item: Item): void;
  react(item: Item, emoji: string): void;
  moderate(action: string, more: Readonly<Record<string, unknown>>): void;
}

type MenuAction = 'reply' | 'react' | 'copy' | 'delete' | 'timeout' | 'timeoutLong' | 'warn' | 'ban' | 'purge' | 'pin' | 'about';

/** Keys for the message that has the focus. */
export const MESSAGE_KEYS: Readonly<Record<string, MenuAction>> = {
  r: 'reply',
  e: 'react',
  c: 'copy',
  Delete: 'delete',
  t: 'timeout',
  w: 'warn',
  b: 'ban',
  p: 'pin',
};
const MODERATION: ReadonlySet<MenuAction> = new Set(['delete', 'timeout', 'timeoutLong', 'warn', 'ban', 'purge', 'pin', 'about']);

/** Whether the person may do this act with this message. */
function mayDo(item: Item, act: MenuAction, host: MenuHost): boolean {
  if (item.type !== 'msg' || item.mid === undefined) return false;
  if (act === 'copy') return !item.deleted;
  if (!MODERATION.has(act)) return host.mayWrite && !item.deleted;
  if (!host.mayModerate) return false;
  const isAboutPerson = act !== 'delete' && act !== 'pin';
  if (isAboutPerson) return item.user !== undefined && item.user.id !== host.myId;
  return !item.deleted;
}

export function perform(item: Item, act: MenuAction, host: MenuHost, near: Element): void {
  const { user, mid } = item;
  if (!mayDo(item, act, host)) return;
  const name = user?.name ?? 'this person';
  switch (act) {
    case 'reply':
      host.reply(item);
      return;
    case 'react': {
      const close = openPopup(
        host.panel,
        emojiPicker((emoji) => {
          close();
          if (emoji !== undefined) host.react(item, emoji);
        }),
        near,
      );
      return;
    }
    case 'copy':
      void navigator.clipboard?.writeText(item.body.text).catch(() => undefined);
      return;
    case 'delete':
      host.moderate('delete', { mid });
      return;
    case 'pin':
      host.moderate('pin', { mid: host.pinnedMid === mid ? null : mid });
      return;
    case 'timeout':
      host.moderate('timeout', { user: user?.id, seconds: 600 });
      return;
    case 'timeoutLong':
      host.moderate('timeout', { user: user?.id, seconds: 86_400 });
      return;
    case 'warn':
      void asked(`Warn ${name}`, 'Shown only to this person.', 'Warn').then(
        (text) => text && host.moderate('warn', { user: user?.id, text }),
      );
      return;
    case 'ban':
      void askBan(name).then((chosen) => chosen && host.moderate(chosen.action, { user: user?.id, ...chosen.more }));
      return;
    case 'about':
      if (user) openAbout(host.aboutPath(user.id));
      return;
    case 'purge':
      void confirmed({
        title: `Delete all messages of ${name}?`,
        text: 'All messages of this person in this chat are deleted for everybody.',
        action: 'Delete',
      }).then((sure) => sure && host.moderate('purge', { user: user?.id }));
      return;
  }
}

/** The page opens in another tab, so that the sound goes on. */
function openAbout(path: string): void {
  const [page, hash = ''] = path.split('#');
  if (location.pathname === page) location.hash = hash;
  else window.open(path, '_blank', 'noopener');
}

/**
 * Opens the menu of a message. Arrow keys move in it, Escape closes it, each entry has a letter as
 * its key.
 */
export function openMenu(item: Item, near: Element, host: MenuHost): void {
  const entries: [MenuAction, string, string][] = [
    ['reply', 'Reply', 'R'],
    ['react', 'React…', 'E'],
    ['copy', 'Copy text', 'C'],
    ['pin', host.pinnedMid === item.mid ? 'Unpin' : 'Pin', 'P'],
    ['delete', 'Delete', 'Del'],
    ['timeout', 'Timeout, 10 minutes', 'T'],
    ['timeoutLong', 'Timeout, a day', ''],
    ['warn', 'Warn…', 'W'],
    ['ban', 'Ban…', 'B'],
    ['purge', 'Delete all messages…', ''],
    ['about', 'About this person…', ''],
  ];
  const menu = h('div', { class: 'chat-menu', role: 'menu', 'aria-label': `Message of ${item.user?.name ?? ''}` });
  const choose = (act: MenuAction) => {
    close();
    perform(item, act, host, near);
  };
  if (mayDo(item, 'react', host)) {
    menu.append(
      h(
        'div',
        { class: 'chat-quick', role: 'group', 'aria-label': 'React' },
        ...QUICK.map((emoji) =>
          h(
            'button',
            {
              type: 'button',
              role: 'menuitem',
              onclick: () => {
                close();
                host.react(item, emoji);
              },
            },
            emoji,
          ),
        ),
      ),
    );
  }
  let isModeration = false;
  for (const [act, label, key] of entries) {
    if (!mayDo(item, act, host)) continue;
    if (MODERATION.has(act) && !isModeration) {
      isModeration = true;
      menu.append(h('hr'));
    }
    const text = key === '' ? [label] : [label, h('kbd', {}, key)];
    menu.append(h('button', { type: 'button', role: 'menuitem', onclick: () => choose(act) }, ...text));
  }
  menu.addEventListener('keydown', (event) => {
    const buttons = [...menu.querySelectorAll('button')];
    const at = buttons.indexOf(document.activeElement as HTMLButtonElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    event.stopPropagation();
    if (to !== undefined) {
      event.preventDefault();
      buttons[(to + buttons.length) % buttons.length]?.focus();
      return;
    }
    const act = MESSAGE_KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (act && mayDo(item, act, host)) {
      event.preventDefault();
      choose(act);
    }
  });
  const close = openPopup(host.panel, menu, near);
}

/** Asks for a line of text; empty: cancelled. */
function asked(title: string, hint: string, action: string): Promise<string> {
  return new Promise((resolve) => {
    const text = field({ name: 'text', label: title, hint, maxlength: 500, spellcheck: true });
    const dialog = h(
      'dialog',
      { class: 'confirm', 'aria-label': title },
      h(
        'form',
        { method: 'dialog' },
        text.element,
        h(
          'div',
          { class: 'form-end' },
          h('button', { class: 'button primary', value: 'yes' }, action),
          h('button', { class: 'button plain', value: 'no', formnovalidate: true }, 'Cancel'),
        ),
      ),
    );
    open(dialog, () => resolve(dialog.returnValue === 'yes' ? text.value().trim() : ''));
  });
}
