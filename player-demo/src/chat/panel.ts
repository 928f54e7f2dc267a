import './panel.css';
import { ChatClient, ChatProblem, type ChatRoom, type Item } from '../../../src/chat-client/index';
import { h, icon, setText } from '../ui/dom';
import { accessToken, currentUser, onSession } from '../ui/session';
import { chatUrl } from './address';
import type { OnAirNews } from './channel-watch';
import { Composer } from './composer';
import { MessageList } from './list';
import { MESSAGE_KEYS, type MenuHost, openMenu, perform } from './menu';
import { roomModes } from './modes';
import { itemRow, outgoingRow, type RowHost } from './row';
import { deskLink, OwnStanding } from './standing';
import { textNodes, waitText } from './text';
import { watchWaiting } from './waiting';

/** Writers whose names are remembered: those of the newest messages. */
const MOST_PEOPLE = 300;
const HISTORY = 100;
/** A break shorter than this is not shown. */
const SAY_OFFLINE_AFTER_MS = 1_500;
const STOPPED: Readonly<Record<string, string>> = {
  banned: 'This account is banned here.',
  signed_out: 'You were signed out. Sign in again to write.',
  protocol: 'This page is older than the server. Reload it.',
};

/**
 * Shows the chat of a channel in an element whose size does not change. `onAir` is called whenever
 * the room reports what is on air, and with undefined once the chat is lost.
 */
export function mountChat(place: HTMLElement, slug: string, onAir: (news: OnAirNews | undefined) => void = () => {}): void {
  const client = new ChatClient({ url: chatUrl, client: 'veza page', token: ({ fresh }) => accessToken(fresh) });
  const room = client.join(slug, { mostItems: 20_000 });
  const people = new Map<string, { id: string; name: string }>();
  let names: readonly string[] = [];

  const count = h('span', { class: 'chat-count' });
  const modesPlace = h('div', { class: 'chat-modes-place' });
  const pinned = h('div', { class: 'chat-pinned', hidden: true });
  const empty = h('p', { class: 'chat-empty', hidden: true }, 'Nothing was said here yet. Be the first.');
  const state = h('p', { class: 'chat-connection', role: 'status', 'aria-live': 'polite', hidden: true });
  const newer = h('button', { type: 'button', class: 'chat-newer', hidden: true, onclick: () => list.followEnd() });
  const signIn = h('p', { class: 'chat-sign-in' });
  const foot = h('div', { class: 'chat-foot' });
  const panel = h('section', { class: 'chat-panel', 'aria-label': 'Chat' });

  const rowHost: RowHost = {
    get names() {
      return names;
    },
    get me() {
      return client.user;
    },
    get: (mid) => room.timeline.get(mid),
    hasReacted: (mid, emoji) => room.hasReacted(mid, emoji),
    mayReact: () => room.you.write === true,
    react,
    openMenu: (item, near) => openMenu(item, near, menuHost()),
    showReplied: (mid) => {
      const item = room.timeline.get(mid);
      if (item) list.show(item);
    },
  };
  const menuHost = (): MenuHost => ({
    panel,
    mayWrite: room.you.write === true,
    mayModerate: room.you.moderate === 'yes',
    myId: client.user?.id,
    pinnedMid: room.pinned?.mid,
    aboutPath: (userId) => `/channels/${encodeURIComponent(slug)}/chat#person/${encodeURIComponent(userId)}`,
    reply: (item) => composer.reply(item),
    react,
    moderate: (action, more) => void moderate(action, more),
  });
  const list = new MessageList(
    {
      row: (item) => itemRow(item, rowHost),
      older: () =>
        room.history(HISTORY).then(
          () => undefined,
          () => undefined,
        ),
      get hasOlder() {
        return room.hasOlder && room.state === 'joined';
      },
      onUnseen: (unseen) => {
        newer.hidden = list === undefined || list.follows;
        setText(
          newer,
          unseen === 0 ? 'Go to the newest' : unseen === 1 ? '1 new message' : `${unseen > 999 ? '999+' : unseen} new messages`,
        );
      },
      onFollow: (follows) => {
        room.keepsOlder = !follows;
        newer.hidden = follows;
      },
    },
    'Messages',
  );
  const standing = new OwnStanding({
    slug,
    room,
    denied: ({ key }, reason) => {
      room.discard(key);
      tellProblem(new ChatProblem('denied', `A moderator has not let your message through${reason === null ? '.' : `: ${reason}`}`));
    },
    changed: () => showState(),
  });
  const composer = new Composer({
    room,
    panel,
    people: () => [...people.values()],
    mostTextBytes: () => client.mostTextBytes,
    sent: () => list.followEnd(),
    timeoutReason: () => standing.timeoutReason,
  });
  const desk = deskLink(slug);
  let isWatching = false;

  panel.append(
    h('header', { class: 'chat-head' }, h('h2', {}, 'Chat'), count, desk.element, modesPlace),
    h('div', { class: 'chat-middle' }, pinned, list.element, empty, state, newer, standing.warning, standing.banned),
    foot,
  );
  place.replaceChildren(panel);

  function react(item: Item, emoji: string): void {
    const { mid } = item;
    if (mid !== undefined) room.react(mid, emoji, !room.hasReacted(mid, emoji)).catch(tellProblem);
  }

  async function moderate(action: string, more: Readonly<Record<string, unknown>>): Promise<void> {
    await room.moderate(action, more).catch(tellProblem);
  }

  let problem = '';
  let problemTimer: ReturnType<typeof setTimeout> | undefined;
  function tellProblem(error: ChatProblem): void {
    problem = error.message;
    clearTimeout(problemTimer);
    problemTimer = setTimeout(() => {
      problem = '';
      showState();
    }, 6_000);
    showState();
  }

  // Remembers the writers' names, for mentions.
  function meet(items: readonly Item[]): void {
    let isNew = false;
    for (const { user, type } of items) {
      if (type !== 'msg' || !user) continue;
      isNew ||= people.get(user.id)?.name !== user.name;
      people.delete(user.id);
      people.set(user.id, { id: user.id, name: user.name });
    }
    if (!isNew) return;
    while (people.size > MOST_PEOPLE) people.delete(people.keys().next().value!);
    names = [...new Set([...people.values()].map(({ name }) => name))].sort((a, b) => b.length - a.length);
  }

  // The foot has the same height for members, guests and people who are out.
  let footFor = '';
  function showFoot(): void {
    const isMember = room.state === 'joined' ? room.you.write === true : currentUser() !== undefined;
    const kind = room.state === 'left' || room.state === 'refused' ? 'out' : isMember ? 'write' : 'guest';
    if (kind !== footFor) {
      footFor = kind;
      if (kind === 'guest') {
        const to = `/account?to=${encodeURIComponent(location.pathname)}`;
        const target: Record<string, string> = window.top === window.self ? {} : { target: '_blank' };
        signIn.replaceChildren(h('a', { href: to, class: 'button plain', ...target }, 'Sign in to write'));
      }
      foot.replaceChildren(kind === 'write' ? composer.element : kind === 'guest' ? signIn : h('p', { class: 'chat-sign-in' }, outText()));
    }
    composer.show();
  }

  function outText(): string {
    switch (room.problem?.code) {
      case 'banned': {
        const untilMs = room.bannedUntilMs;
        return untilMs === undefined
          ? 'You are banned from this chat.'
          : `You are banned from this chat for ${waitText(untilMs - Date.now())}.`;
      }
      case 'deleted':
        return 'This chat was deleted.';
      case 'unauthorized':
        return 'Sign in to read this chat.';
      default:
        return 'There is no chat here.';
    }
  }

  let toldChannel: ChatRoom['channel'];
  function tellOnAir(): void {
    const { channel } = room;
    if (channel === toldChannel) return;
    toldChannel = channel;
    onAir(channel as OnAirNews | undefined);
  }

  let offlineSinceMs: number | undefined;
  function showState(): void {
    const { state: link } = client;
    const isThere = link.state === 'online' && room.state !== 'joining';
    if (isThere) offlineSinceMs = undefined;
    else if (offlineSinceMs === undefined) {
      offlineSinceMs = Date.now();
      setTimeout(showState, SAY_OFFLINE_AFTER_MS + 50);
    }
    let text = problem;
    if (link.state === 'stopped') text = STOPPED[link.reason ?? ''] ?? '';
    else if (offlineSinceMs !== undefined && Date.now() - offlineSinceMs > SAY_OFFLINE_AFTER_MS)
      text = navigator.onLine
        ? 'Reconnecting… Your messages are sent when it is back.'
        : 'You are offline. Your messages are sent when you are back.';
    panel.dataset.link = isThere ? 'online' : link.state === 'stopped' ? 'stopped' : 'offline';
    state.hidden = text === '';
    setText(state, text);
    setText(count, room.members === undefined || room.state !== 'joined' ? '' : `${room.members} here`);
    empty.hidden = !(isThere && room.state === 'joined' && list.isEmpty && room.outgoing.length === 0);
    modesPlace.hidden = room.you.moderate !== 'yes';
    // The moderation page itself needs no link to it.
    desk.element.hidden = modesPlace.hidden || location.pathname.endsWith(`/${slug}/chat`);
    if (!desk.element.hidden && !isWatching) {
      isWatching = true;
      watchWaiting(slug, ({ held, appeals }) => desk.show(held + appeals));
    }
    standing.look();
    if (room.you.moderate === 'yes') modes.show(room.settings);
    showPinned();
    showFoot();
  }

  let pinnedFor = '';
  function showPinned(): void {
    const { pinned: found } = room;
    const body = found?.body as { text?: unknown } | undefined;
    const text = typeof body?.text === 'string' ? body.text : '';
    const mid = typeof found?.mid === 'string' ? found.mid : undefined;
    const key = `${mid} ${text} ${room.you.moderate}`;
    if (key === pinnedFor) return;
    pinnedFor = key;
    pinned.hidden = text === '';
    if (text === '') {
      list.leaveAbove(0);
      return;
    }
    const who = (found?.user as { name?: unknown } | undefined)?.name;
    pinned.replaceChildren(
      h('p', { dir: 'auto' }, h('b', {}, `Pinned${typeof who === 'string' ? ` · ${who}` : ''}`), ' ', ...textNodes(text, names)),
    );
    if (room.you.moderate === 'yes')
      pinned.append(
        h(
          'button',
          { type: 'button', class: 'round', 'aria-label': 'Unpin', onclick: () => void moderate('pin', { mid: null }) },
          icon('close'),
        ),
      );
  }

  const modes = roomModes((action, more) => void moderate(action, more));
  modesPlace.append(modes.element);

  let isTailDue = false;
  function showTail(): void {
    if (isTailDue) return;
    isTailDue = true;
    queueMicrotask(() => {
      isTailDue = false;
      const rows = room.outgoing
        .filter(({ isShown }) => !isShown)
        .map((outgoing) =>
          outgoingRow(outgoing, rowHost, { retry: () => room.retry(outgoing.key), discard: () => room.discard(outgoing.key) }),
        );
      list.tail.replaceChildren(...rows);
      if (list.follows) list.followEnd();
      showState();
    });
  }

  room.listen((event) => {
    switch (event.type) {
      case 'added':
        meet(event.items);
        if (event.where === 'end') list.append(event.items);
        else list.prepend(event.items);
        break;
      case 'removed':
        list.remove(event.items);
        break;
      case 'changed':
        list.change(event.items);
        break;
      case 'outgoing':
        showTail();
        break;
      case 'state':
        tellOnAir();
        showState();
        break;
    }
  });
  let knownUser: string | undefined;
  client.listen((event) => {
    if (event.type === 'user') {
      if (event.user?.id !== knownUser) list.redraw();
      knownUser = event.user?.id;
    }
    showState();
  });

  bindListKeys();
  function bindListKeys(): void {
    const { element } = list;
    element.addEventListener('keydown', (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const focused = document.activeElement;
      const item = list.itemOf(focused);
      const row = item && list.rowOf(item);
      // Space still pauses the player; the other keys used here must not reach it.
      if (event.key === 'ArrowUp' || event.key === 'ArrowDown') {
        const rows = element.querySelectorAll<HTMLElement>('.chat-row');
        const next = row
          ? ((event.key === 'ArrowUp' ? row.previousElementSibling : row.nextElementSibling) as HTMLElement | null)
          : rows[rows.length - 1];
        next?.focus({ preventScroll: true });
        next?.scrollIntoView({ block: 'nearest' });
      } else if (event.key === 'End') list.followEnd();
      else if (event.key === 'Escape') composer.focus();
      else if (item && row && (event.key === 'Enter' || event.key === 'ContextMenu')) {
        if (focused !== row) return;
        openMenu(item, row.querySelector('.chat-more') ?? row, menuHost());
      } else {
        const act = MESSAGE_KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
        if (!act || !item || !row || focused !== row) return;
        perform(item, act, menuHost(), row.querySelector('.chat-more') ?? row);
      }
      event.preventDefault();
      event.stopPropagation();
    });
    // On a touch screen nothing hovers: a tap on a message opens its menu.
    element.addEventListener('click', (event) => {
      if (!(event.target instanceof Element) || event.target.closest('a, button') || !matchMedia('(hover: none)').matches) return;
      const item = list.itemOf(event.target);
      const row = item && list.rowOf(item);
      if (item && row && item.type === 'msg' && getSelection()?.isCollapsed !== false) openMenu(item, row, menuHost());
    });
  }

  onSession(() => {
    const name = currentUser()?.name;
    // A new token of the same person changes nothing here.
    if ((name === undefined) !== (client.user === undefined)) client.restart();
  });
  addEventListener('online', () => client.wake());
  addEventListener('offline', showState);
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'visible') client.wake();
  });
  addEventListener('pagehide', (event) => {
    if (!event.persisted) client.stop();
  });
  showState();
  client.start();
  exposeForTests(client, room);
}

/** Lets tests read the client and the room; the page does not use it. */
function exposeForTests(client: ChatClient, room: ChatRoom): void {
  Object.assign(window, { vezaChat: { client, room } });
}
