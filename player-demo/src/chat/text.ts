import { h } from '../ui/dom';

/** A link; characters at its end that more likely belong to the sentence are cut off later. */
const LINK = /https?:\/\/[^\s<>"'`]+/gi;
const SENTENCE_END = /[.,:;!?)\]}»”’]+$/;
const MOST_LINKS = 20;

/** Names known in the room, longest first, because a name may contain spaces. */
export type Names = readonly string[];

/**
 * Turns a message's text into nodes without interpreting any markup. Addresses of http and https
 * become links without referrer or opener; `@name` is marked.
 */
export function textNodes(text: string, names: Names): Node[] {
  const nodes: Node[] = [];
  let from = 0;
  let links = 0;
  for (const match of text.matchAll(LINK)) {
    const written = match[0].replace(SENTENCE_END, (end, at: number, whole: string) => closing(whole.slice(0, at), end));
    const href = addressOf(written);
    if (href === undefined || ++links > MOST_LINKS) continue;
    nodes.push(...mentionNodes(text.slice(from, match.index), names));
    nodes.push(h('a', { href, target: '_blank', rel: 'nofollow noopener noreferrer ugc' }, written));
    from = match.index + written.length;
  }
  nodes.push(...mentionNodes(text.slice(from), names));
  return nodes;
}

/** A closing bracket belongs to the address if its opening bracket is in it. */
function closing(before: string, end: string): string {
  return end.startsWith(')') && before.split('(').length > before.split(')').length ? ')' : '';
}

function addressOf(written: string): string | undefined {
  try {
    const url = new URL(written);
    return url.protocol === 'http:' || url.protocol === 'https:' ? url.href : undefined;
  } catch {
    return undefined;
  }
}

function mentionNodes(text: string, names: Names): Node[] {
  const nodes: Node[] = [];
  let from = 0;
  for (let at = text.indexOf('@'); at >= 0; at = text.indexOf('@', at + 1)) {
    if (at > 0 && /[\p{L}\p{N}_@]/u.test(text[at - 1]!)) continue;
    const name = mentionedAt(text, at, names);
    if (name === '') continue;
    if (at > from) nodes.push(document.createTextNode(text.slice(from, at)));
    nodes.push(h('span', { class: 'mention' }, text.slice(at, at + 1 + name.length)));
    from = at + 1 + name.length;
    at = from - 1;
  }
  if (from < text.length) nodes.push(document.createTextNode(text.slice(from)));
  return nodes;
}

/** The name after the `@` at this place; empty when there is none. */
export function mentionedAt(text: string, at: number, names: Names): string {
  const rest = text.slice(at + 1, at + 102).toLowerCase();
  const known = names.find(
    (name) => name !== '' && rest.startsWith(name.toLowerCase()) && !/[\p{L}\p{N}_]/u.test(rest[name.length] ?? ' '),
  );
  if (known !== undefined) return text.slice(at + 1, at + 1 + known.length);
  return '';
}

/** Whether the text mentions this name. */
export const mentions = (text: string, name: string): boolean => {
  for (let at = text.indexOf('@'); at >= 0; at = text.indexOf('@', at + 1)) if (mentionedAt(text, at, [name]) !== '') return true;
  return false;
};

const EMOJI_ONLY = /^(?:\p{Extended_Pictographic}|\p{Emoji_Component}|\p{Regional_Indicator}|\s){1,24}$/u;
/** Whether the text is only a few emoji, which are shown larger. */
export const isEmojiOnly = (text: string): boolean =>
  EMOJI_ONLY.test(text) && /\p{Extended_Pictographic}|\p{Regional_Indicator}/u.test(text);

export const timeText = (atMs: number): string =>
  new Date(atMs).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });

/** A wait in words: 75 s → "1 min 15 s". */
export function waitText(ms: number): string {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return seconds % 60 === 0 ? `${seconds / 60} min` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.ceil(seconds / 3600)} h`;
}

export const ROLE_NAMES: Readonly<Record<string, string>> = { moderator: 'Mod', host: 'Host', owner: 'Owner', admin: 'Admin' };
