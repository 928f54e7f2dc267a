import { type Folded, KIND, LETTER, SPACE, WORD } from './fold.js';

/** A link in a message, by its place in the folded text. */
export interface FoundLink {
  readonly start: number;
  readonly end: number;
  /**
   * The host as it was written, in lower case. A browser opens exactly this host if it is ASCII. A
   * host that is not ASCII is never on a list of allowed hosts.
   */
  readonly host: string;
}

/**
 * Top-level domains that are recognised without a scheme and a path. With any other ending,
 * "end.Next" would count as a link where only the space after a full stop is missing.
 */
const PLAIN_ENDINGS = new Set(
  (
    'com,net,org,info,biz,io,co,gg,tv,fm,xyz,app,dev,link,site,online,shop,store,club,top,win,bet,casino,live,stream,click,vip,pro,ly,cc,ws,ru,cn,de,uk,fr,nl,pl,eu,br,jp,' +
    'music,radio,band,page,space,website,tech,fun,icu,cyou,loan,edu,gov,onion,ch,at,se,dk,cz,ai,sh'
  ).split(','),
);
const HOST = /^[\p{L}\d](?:[\p{L}\d\-_]*\.)+[\p{L}\d-]{2,24}$/u;
const OPENING = new Set([...'([{<"\'*_~`|,;'].map((sign) => sign.charCodeAt(0)));
const CLOSING = new Set([...')]}>"\'*_~`|,;.!?:…'].map((sign) => sign.charCodeAt(0)));
/** A disguised dot: `example[.]com`, `example (dot) com`. */
const TAKEN_APART = /[([{] ?(?:dot|\.) ?[)\]}] ?([a-z]{2,8})(?![a-z])/g;
const MAX_HOST_LENGTH = 253;
/** The search stops after this many links: they are a link flood in any case. */
const MAX_LINKS = 50;

/** A stretch of one chunk. Searches in `text` cannot run on into the rest of the message. */
interface HostPiece {
  readonly folded: Folded;
  readonly message: string;
  readonly start: number;
  readonly text: string;
}

function original({ folded, message, start }: HostPiece, from: number, to: number): string {
  return message
    .slice(folded.origin[start + from]!, folded.origin[start + to]!)
    .toLowerCase()
    .replace(/\.$/, '');
}

/**
 * The host of a piece, without user and port; undefined when the piece is no link. A host that is
 * not ASCII stays as it was written.
 */
function hostOf(piece: HostPiece, scheme: boolean): string | undefined {
  const { text } = piece;
  // Browsers read a backslash as a slash.
  let end = text.search(/[/\\?#]/);
  const hasPath = end >= 0;
  if (!hasPath) end = text.length;
  const from = text.slice(0, end).lastIndexOf('@') + 1;
  if (from > 0 && !scheme) return undefined;
  const colon = text.slice(from, end).indexOf(':');
  if (colon >= 0) end = from + colon;
  if (end - from > MAX_HOST_LENGTH) return scheme ? '' : undefined;
  if (scheme) return original(piece, from, end);
  const host = text.slice(from, text.charCodeAt(end - 1) === 0x2e ? end - 1 : end);
  const ending = host.slice(host.lastIndexOf('.') + 1);
  if (!PLAIN_ENDINGS.has(ending) && !(hasPath && ending.length <= 6 && /\p{L}/u.test(ending)) && !host.startsWith('www.')) return undefined;
  return HOST.test(host) ? original(piece, from, end) : undefined;
}

/**
 * Finds all links of a message: with a scheme, with `www.`, with a bare host, and the two usual
 * disguises of a dot. Linear.
 */
export function findLinks(folded: Folded, message: string): FoundLink[] {
  const { text } = folded;
  const links: FoundLink[] = [];
  if (!text.includes('.') && !text.includes('://') && !text.includes('dot')) return links;
  let index = 0;
  while (index < text.length && links.length < MAX_LINKS) {
    if (KIND[text.charCodeAt(index)]! & SPACE) {
      index++;
      continue;
    }
    let end = index;
    let lastDot = -1;
    let colon = false;
    let slash = false;
    while (end < text.length && !(KIND[text.charCodeAt(end)]! & SPACE)) {
      const unit = text.charCodeAt(end);
      if (unit === 0x2e) lastDot = end;
      else if (unit === 0x3a) colon = true;
      else if (unit === 0x2f) slash = true;
      end++;
    }
    // This test skips most chunks cheaply: a host ends in at least two letters or in a full stop.
    const mayEnd = lastDot >= 0 && (end - lastDot > 2 || lastDot === end - 1);
    if (mayEnd || (colon && slash)) inChunk(folded, message, index, end, links);
    index = end;
  }
  for (const match of text.matchAll(TAKEN_APART)) {
    if (links.length >= MAX_LINKS) break;
    if (!PLAIN_ENDINGS.has(match[1]!)) continue;
    let start = match.index;
    while (start > 0 && text.charCodeAt(start - 1) === 0x20 && match.index - start < 1) start--;
    const to = start;
    while (start > 0 && to - start < 63 && KIND[text.charCodeAt(start - 1)]! & WORD) start--;
    if (to > start) links.push({ start, end: match.index + match[0].length, host: `${text.slice(start, to)}.${match[1]}` });
  }
  return links;
}

function inChunk(folded: Folded, message: string, chunkStart: number, chunkEnd: number, links: FoundLink[]): void {
  const { text } = folded;
  let start = chunkStart;
  let end = chunkEnd;
  while (start < end && OPENING.has(text.charCodeAt(start))) start++;
  while (end > start && CLOSING.has(text.charCodeAt(end - 1))) end--;
  const chunk = text.slice(start, end);
  const piece = (from: number, to: number): HostPiece => ({ folded, message, start: start + from, text: chunk.slice(from, to) });
  let scheme = chunk.indexOf('://');
  if (scheme < 0) {
    const host = hostOf(piece(0, chunk.length), false);
    if (host !== undefined) links.push({ start, end, host });
    return;
  }
  // One chunk may contain several links without a space between them.
  let floor = 0;
  while (scheme >= 0 && links.length < MAX_LINKS) {
    const next = chunk.indexOf('://', scheme + 3);
    const to = next >= 0 ? next : chunk.length;
    let from = scheme;
    while (from > floor && KIND[chunk.charCodeAt(from - 1)]! & LETTER) from--;
    if (from < scheme) links.push({ start: start + from, end: start + to, host: hostOf(piece(scheme + 3, to), true) ?? '' });
    scheme = next;
    floor = to;
  }
}

/** A list of hosts. `*.example.org` and `example.org` both mean the host and its subdomains. */
export class HostList {
  readonly #hosts: ReadonlySet<string>;

  constructor(hosts: readonly string[]) {
    this.#hosts = new Set(
      hosts.map((host) => host.trim().toLowerCase().replace(/^\*\./, '').replace(/\.$/, '')).filter((host) => host !== ''),
    );
  }

  has(host: string): boolean {
    for (let name = host; ; name = name.slice(name.indexOf('.') + 1)) {
      if (this.#hosts.has(name)) return true;
      if (!name.includes('.')) return false;
    }
  }
}

export const MAX_HOSTS = 100;
