import './row.css';
import type { Item, Outgoing } from '../../../src/chat-client/index';
import { h, icon } from '../ui/dom';
import { isEmojiOnly, mentions, ROLE_NAMES, textNodes, timeText } from './text';

/** The chat around a row, as far as the row uses it. */
export interface RowHost {
  /** Names seen in the room, longest first. */
  readonly names: readonly string[];
  /** The person who reads. */
  readonly me: { readonly id: string; readonly name: string } | undefined;
  get(mid: string): Item | undefined;
  hasReacted(mid: string, emoji: string): boolean;
  mayReact(): boolean;
  /** False when nothing can be done with a message. */
  readonly mayAct?: boolean;
  react(item: Item, emoji: string): void;
  openMenu(item: Item, near: Element): void;
  showReplied(mid: string): void;
}

interface Named {
  readonly name?: unknown;
}

export function itemRow(item: Item, host: RowHost): HTMLLIElement {
  return item.type === 'msg' ? messageRow(item, host) : noticeRow(item);
}

function messageRow(item: Item, host: RowHost): HTMLLIElement {
  const { user, body, mid } = item;
  const time = h('time', { datetime: new Date(item.at).toISOString(), title: new Date(item.at).toLocaleString() }, timeText(item.at));
  const head = h('p', { class: 'chat-who' }, h('bdi', { class: `chat-name hue-${hueOf(user?.id ?? '')}` }, user?.name ?? '?'));
  const role = ROLE_NAMES[user?.role ?? ''];
  if (role !== undefined) head.append(h('span', { class: 'tag' }, role));
  head.append(time);
  const row = h('li', { class: 'chat-row', tabindex: -1, 'data-offset': item.offset });
  if (item.deleted) {
    row.append(head, h('p', { class: 'chat-text chat-deleted' }, 'Message deleted'));
    return row;
  }
  const isMine = user?.id !== undefined && user.id === host.me?.id;
  const isForMe =
    host.me !== undefined &&
    !isMine &&
    ((Array.isArray(body.mentions) && body.mentions.includes(host.me.id)) || mentions(body.text, host.me.name) || isReplyTo(item, host));
  if (isForMe) row.classList.add('for-me');
  const text = h('p', { class: 'chat-text', dir: 'auto' }, ...textNodes(body.text, host.names));
  if (isEmojiOnly(body.text)) text.classList.add('emoji-only');
  if (typeof body.reply === 'string') row.append(replyLine(body.reply, host));
  row.append(head, text);
  const reactions = reactionLine(item, host);
  if (reactions) row.append(reactions);
  if (mid !== undefined && host.mayAct !== false) {
    const more = h(
      'button',
      { type: 'button', class: 'chat-more', tabindex: -1, 'aria-label': `Message of ${user?.name ?? ''}: more` },
      icon('more'),
    );
    more.addEventListener('click', () => host.openMenu(item, more));
    row.append(more);
  }
  return row;
}

const isReplyTo = ({ body }: Item, host: RowHost): boolean =>
  typeof body.reply === 'string' && host.get(body.reply)?.user?.id === host.me?.id && host.me !== undefined;

function replyLine(mid: string, host: RowHost): HTMLElement {
  const replied = host.get(mid);
  const text = !replied ? 'an older message' : replied.deleted ? 'a deleted message' : `${replied.user?.name ?? ''}: ${replied.body.text}`;
  const line = h('button', { type: 'button', class: 'chat-reply', tabindex: -1, disabled: !replied }, `↪ ${text.slice(0, 120)}`);
  line.addEventListener('click', () => host.showReplied(mid));
  return line;
}

function reactionLine(item: Item, host: RowHost): HTMLElement | undefined {
  const counts = Object.entries(item.reactions);
  const { mid } = item;
  if (counts.length === 0 || mid === undefined) return undefined;
  return h(
    'div',
    { class: 'chat-reactions' },
    ...counts.slice(0, 12).map(([emoji, count]) => {
      const isOn = host.hasReacted(mid, emoji);
      return h(
        'button',
        {
          type: 'button',
          tabindex: -1,
          'aria-pressed': String(isOn),
          'aria-label': `${emoji}, ${count}`,
          disabled: !host.mayReact(),
          onclick: () => host.react(item, emoji),
        },
        h('span', {}, emoji),
        String(count),
      );
    }),
  );
}

function noticeRow(item: Item): HTMLLIElement {
  const row = h('li', { class: `chat-row chat-notice of-${item.type}`, tabindex: -1, 'data-offset': item.offset });
  if (item.type === 'now') {
    const { title, artist } = item.entry;
    row.append(
      h('span', { class: 'chat-now-mark', 'aria-hidden': 'true' }, '♪'),
      h('p', {}, h('span', { class: 'offscreen' }, 'Now playing: '), h('b', {}, str(title)), artist ? ` ${str(artist)}` : ''),
      h('time', {}, timeText(item.at)),
    );
  } else row.append(h('p', {}, actText(item)), h('time', {}, timeText(item.at)));
  return row;
}

const str = (value: unknown): string => (typeof value === 'string' ? value : '');

/** A moderation act, as a line of text. */
function actText({ entry, type }: Item): string {
  const by = str((entry.by as Named | undefined)?.name) || 'A moderator';
  if (type === 'pin') return typeof entry.mid === 'string' ? `${by} has pinned a message.` : `${by} has unpinned the message.`;
  const whom = str((entry.user as Named | undefined)?.name) || str(entry.name) || 'somebody';
  const settings = (entry.settings ?? {}) as {
    slowS?: number;
    followersMin?: number;
    unique?: boolean;
    emoteOnly?: boolean;
    shield?: boolean;
  };
  const switched = (on: boolean | undefined, what: string) => `${by} has turned ${what} ${on ? 'on' : 'off'}.`;
  switch (entry.action) {
    case 'timeout':
      return `${by} has given ${whom} a timeout.`;
    case 'untimeout':
      return `${by} has ended the timeout of ${whom}.`;
    case 'ban':
      return `${by} has banned ${whom}.`;
    case 'unban':
      return `${by} has lifted the ban of ${whom}.`;
    case 'warn':
      return `${by} has warned ${whom}.`;
    case 'slow':
      return settings.slowS ? `Slow mode: one message in ${settings.slowS} s.` : 'Slow mode is off.';
    case 'followers':
      return settings.followersMin ? `Only accounts older than ${settings.followersMin} min may write.` : 'New accounts may write again.';
    case 'unique':
      return switched(settings.unique, 'unique mode');
    case 'emoteOnly':
      return switched(settings.emoteOnly, 'emoji-only mode');
    case 'shield':
      return switched(settings.shield, 'the shield');
    default:
      return `${by} has changed the room’s settings.`;
  }
}

const FAILURES: Readonly<Record<string, string>> = {
  slow_mode: 'Slow mode: try again in a moment',
  timed_out: 'You have a timeout',
  banned: 'You are banned here',
  not_unique: 'This was said here already',
  emote_only: 'Only emoji may be sent now',
  too_new: 'Your account is too new to write now',
  too_long: 'Too long',
};

/** The person's own message that is not in the log yet, or was refused. */
export function outgoingRow(outgoing: Outgoing, host: RowHost, actions: { retry(): void; discard(): void }): HTMLLIElement {
  const row = h('li', { class: `chat-row chat-outgoing is-${outgoing.state}`, tabindex: -1, 'data-key': outgoing.key });
  row.append(
    h('p', { class: 'chat-who' }, h('bdi', { class: `chat-name hue-${hueOf(host.me?.id ?? '')}` }, host.me?.name ?? 'You')),
    h('p', { class: 'chat-text', dir: 'auto' }, ...textNodes(outgoing.body.text, host.names)),
  );
  const state = h('p', { class: 'chat-state', role: outgoing.state === 'refused' || outgoing.state === 'unsent' ? 'alert' : 'status' });
  const retry = h('button', { type: 'button', onclick: actions.retry }, 'Send again');
  const discard = h('button', { type: 'button', onclick: actions.discard }, 'Discard');
  switch (outgoing.state) {
    case 'queued':
    case 'sending':
    case 'sent':
      state.append('Sending…');
      break;
    case 'held':
      state.append('A moderator looks at it first. ', h('button', { type: 'button', onclick: actions.discard }, 'Hide'));
      break;
    case 'unsent':
      state.append('Not sent. ', retry, discard);
      break;
    case 'refused':
      state.append(`${FAILURES[outgoing.problem?.code ?? ''] ?? outgoing.problem?.message ?? 'Refused'}. `, retry, discard);
      break;
  }
  row.append(state);
  return row;
}

/** One of eight colours, always the same for the same person. */
function hueOf(id: string): number {
  let hash = 0;
  for (let i = 0; i < id.length; i++) hash = (hash * 31 + id.charCodeAt(i)) | 0;
  return Math.abs(hash) % 8;
}
