import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';
import { Behaviour, type BehaviourLimits, DEFAULT_LIMITS, Lru, loudnessOf, shapeOf } from './behaviour.js';
import { clean } from './cleaning.js';
import { type Folded, fold, MAX_FOLDED_LENGTH } from './fold.js';
import { type Category, type Found, Lexicon } from './lexicon.js';
import { type FoundLink, findLinks, HostList, MAX_HOSTS } from './links.js';
import { hidden, type Reading, read } from './readings.js';
import type { RemoteClassifier } from './remote-classifier.js';
import { looksLikeScam } from './scam.js';
import { isSpam, spamScore } from './spam.js';
import { checkTerms, TermMatcher } from './terms.js';

export type Classification =
  | { action: 'allow' }
  /** Publish this text instead. */
  | { action: 'mask'; text: string; reasons: ClassificationReason[] }
  /** Into the queue of held messages. */
  | { action: 'hold'; reasons: ClassificationReason[] }
  | { action: 'refuse'; reasons: ClassificationReason[] };

export interface ClassificationReason {
  /** For people: `slur`, `sexual`, `link`, a category of the remote judge … */
  category: string;
  /** 0 to 1; 1 where a rule says yes or no. */
  score: number;
  /** Stable: `too-long`, `term`, `profanity`, `flood`, `repeat`, `link`, `link-flood`, `caps`, `emoji`, `mentions`, `spam`, `scam`, `format`, `remote`. */
  rule: ClassifierRule;
}

export const RULES = [
  'too-long',
  'term',
  'profanity',
  'flood',
  'repeat',
  'link',
  'link-flood',
  'caps',
  'emoji',
  'mentions',
  'spam',
  'scam',
  'format',
  'remote',
] as const;
export type ClassifierRule = (typeof RULES)[number];

export interface ClassifierSettings {
  /** Off: everything but a text that is too long is allowed. */
  enabled: boolean;
  /** Words and phrases that are refused. At most 200 of 100 characters, 8,000 in all. */
  blockedTerms: readonly string[];
  /** Words and phrases that are no fault here, whatever the built-in list says. */
  allowedTerms: readonly string[];
  links: 'allow' | 'hold' | 'refuse';
  /** Where links may always lead; a host means the hosts below it too. At most 100. */
  allowedHosts: readonly string[];
  profanity: 'allow' | 'mask' | 'hold' | 'refuse';
  spam: 'allow' | 'hold' | 'refuse';
  /** `hold`: published when the remote judge has nothing against it, held otherwise. `retract`: published at once, taken back and held when it has. */
  remote: 'off' | 'hold' | 'retract';
  /** What a remote judge that does not answer means: `open` = nothing against it, `closed` = held. */
  remoteFails: 'open' | 'closed';
}

export const DEFAULT_CLASSIFIER_SETTINGS: ClassifierSettings = Object.freeze({
  enabled: true,
  blockedTerms: Object.freeze([]),
  allowedTerms: Object.freeze([]),
  links: 'allow',
  allowedHosts: Object.freeze([]),
  profanity: 'mask',
  spam: 'hold',
  remote: 'off',
  remoteFails: 'open',
});

/** Throws `bad_request` for settings that are out of bounds; to be called where they are set. */
export function checkClassifierSettings(settings: ClassifierSettings): void {
  checkTerms(settings.blockedTerms, 'blockedTerms');
  checkTerms(settings.allowedTerms, 'allowedTerms');
  if (settings.allowedHosts.length > MAX_HOSTS)
    throw new VezaError('bad_request', `allowedHosts: ${settings.allowedHosts.length} hosts; at most ${MAX_HOSTS} are allowed`);
  for (const host of settings.allowedHosts) {
    if (!/^(?:\*\.)?(?:[a-z0-9-]{1,63}\.)+[a-z0-9-]{2,63}\.?$/i.test(host.trim()) || host.length > 253)
      throw new VezaError(
        'bad_request',
        `allowedHosts: "${host.slice(0, 80)}" is not a host name; write it like example.org, in ASCII (xn--…)`,
      );
  }
}

export interface ClassificationInput {
  roomId: string;
  authorId: string;
  /** What it will be known by. The same again is the same message: it counts once for floods and repeats. */
  messageId?: string | undefined;
  /** Those who moderate are not judged; only the limit of length holds for them. */
  privileged: boolean;
  text: string;
  settings: ClassifierSettings;
  /** Nobody has said it: somebody asks what would come of it. It counts for no flood and no repeat. */
  isTrial?: boolean;
}

export interface ClassifierOptions {
  clock: Clock;
  /** None: `classifyRemotely` counts as a judge that has nothing against anything. */
  remote?: RemoteClassifier | undefined;
  limits?: Partial<BehaviourLimits>;
  /** Rooms whose terms are kept compiled. Default 512. */
  rooms?: number;
  lexicon?: Lexicon;
}

interface CompiledRoom {
  readonly blockedTerms: readonly string[];
  readonly allowedTerms: readonly string[];
  readonly allowedHosts: readonly string[];
  readonly blocked: TermMatcher;
  readonly allowed: TermMatcher;
  readonly hosts: HostList;
}

const ALLOW: Classification = Object.freeze({ action: 'allow' });
/** So that a message of nothing but faults has a short list of reasons. */
const MAX_REASONS = 8;
/** So many matches are told apart by category. */
const MAX_NAMED = 16;
const MAX_MASKS = 2048;

const sameList = (a: readonly string[], b: readonly string[]) =>
  a === b || (a.length === b.length && a.every((item, index) => item === b[index]));

/**
 * Judges messages. Memory is bounded, whatever comes: the state of 20,000 authors, the compiled terms of 512 rooms. Time is linear in the
 * length of the message. `npm run bench -- chat --only moderation` measures it.
 */
export class Classifier {
  readonly #clock: Clock;
  readonly #remote: RemoteClassifier | undefined;
  readonly #limits: BehaviourLimits;
  readonly #behaviour: Behaviour;
  readonly #rooms: Lru<CompiledRoom>;
  readonly #lexicon: Lexicon;
  /** How often terms were compiled. */
  compilations = 0;

  constructor({ clock, remote, limits, rooms = 512, lexicon = new Lexicon() }: ClassifierOptions) {
    this.#clock = clock;
    this.#remote = remote;
    this.#limits = { ...DEFAULT_LIMITS, ...limits };
    this.#behaviour = new Behaviour(this.#limits);
    this.#rooms = new Lru(rooms);
    this.#lexicon = lexicon;
  }

  get authors(): number {
    return this.#behaviour.authors;
  }

  /** Who says no more than this in a room is never refused for a flood. */
  get pace(): { readonly perS: number; readonly burst: number } {
    return { perS: this.#limits.floodPerSecond, burst: this.#limits.floodBurst };
  }

  get rooms(): number {
    return this.#rooms.size;
  }

  /** Synchronous, without input or output; never throws for any text. */
  classify({ roomId, authorId, messageId, privileged, text, settings, isTrial = false }: ClassificationInput): Classification {
    if (text.length > MAX_FOLDED_LENGTH) return refusal('too-long', 'length');
    const published = settings.enabled && !privileged ? clean(text) : text;
    const folded = fold(published);
    if (!folded) return refusal('too-long', 'length');
    if (privileged || !settings.enabled) return ALLOW;

    const room = this.#compiled(roomId, settings);
    const links = findLinks(folded, published);
    const shape = shapeOf(folded);
    const misbehaved = isTrial
      ? undefined
      : this.#behaviour.noteMessage(roomId, authorId, shape, links.length, this.#clock.monotonicMs(), messageId);
    if (misbehaved) return refusal(misbehaved, 'flood');

    const reading = read(folded, skipLinks(links));
    const refused: ClassificationReason[] = [];
    const held: ClassificationReason[] = [];
    const masked: ClassificationReason[] = [];
    const masks: Found[] = [];

    if (hasTerm(room.blocked, folded, reading)) refused.push({ category: 'term', score: 1, rule: 'term' });
    this.#profanity(
      settings,
      room,
      folded,
      reading,
      { allow: undefined, mask: masked, hold: held, refuse: refused }[settings.profanity],
      masks,
    );
    if (settings.links !== 'allow' && links.some(({ host }) => !room.hosts.has(host)))
      (settings.links === 'hold' ? held : refused).push({ category: 'link', score: 1, rule: 'link' });
    if (settings.spam !== 'allow') {
      const list = settings.spam === 'hold' ? held : refused;
      const score = spamScore(folded);
      if (isSpam(score)) list.push({ category: 'spam', score: Math.round(score * 1000) / 1000, rule: 'spam' });
      else if (
        looksLikeScam(
          folded.text,
          links.some(({ host }) => !room.hosts.has(host)),
        )
      )
        list.push({ category: 'spam', score: 1, rule: 'scam' });
    }
    this.#loudness(published, held);

    if (refused.length > 0) return { action: 'refuse', reasons: [...refused, ...held, ...masked].slice(0, MAX_REASONS) };
    if (held.length > 0) return { action: 'hold', reasons: [...held, ...masked].slice(0, MAX_REASONS) };
    if (published !== text) masked.push({ category: 'format', score: 1, rule: 'format' });
    if (masked.length > 0) return { action: 'mask', text: mask(published, masks), reasons: masked.slice(0, MAX_REASONS) };
    return ALLOW;
  }

  /** Whether the remote judge has a say in it. */
  asksRemotely({ privileged, settings }: ClassificationInput): boolean {
    return this.#remote !== undefined && !privileged && settings.enabled && settings.remote !== 'off';
  }

  /**
   * Asks the remote judge, where the room wants it: `allow` or `hold`. In a room with `hold` the caller publishes only when this allows; in one with
   * `retract` it has published already and takes the message back. Never rejects; takes at most the judge's time-out.
   */
  async classifyRemotely(input: ClassificationInput): Promise<Classification> {
    if (!this.#remote || !this.asksRemotely(input)) return ALLOW;
    const { text, settings } = input;
    let answer: Awaited<ReturnType<RemoteClassifier['ask']>>;
    try {
      answer = await this.#remote.ask(text);
    } catch {
      answer = { outcome: 'failed', why: 'error' };
    }
    if (answer.outcome === 'failed')
      return settings.remoteFails === 'open'
        ? ALLOW
        : { action: 'hold', reasons: [{ category: `unavailable:${answer.why}`, score: 1, rule: 'remote' }] };
    if (!answer.flagged) return ALLOW;
    const reasons: ClassificationReason[] = answer.categories
      .slice(0, MAX_REASONS)
      .map(({ category, score }) => ({ category, score, rule: 'remote' }));
    if (reasons.length === 0) reasons.push({ category: 'flagged', score: 1, rule: 'remote' });
    return { action: 'hold', reasons };
  }

  /** Everything that is kept about a room: it is gone, or its history with authors is to begin anew. */
  forgetRoom(roomId: string): void {
    this.#rooms.delete(roomId);
    this.#behaviour.forgetRoom(roomId);
  }

  #compiled(roomId: string, { blockedTerms, allowedTerms, allowedHosts }: ClassifierSettings): CompiledRoom {
    const known = this.#rooms.get(roomId);
    if (
      known &&
      sameList(known.blockedTerms, blockedTerms) &&
      sameList(known.allowedTerms, allowedTerms) &&
      sameList(known.allowedHosts, allowedHosts)
    )
      return known;
    this.compilations++;
    const compiled: CompiledRoom = {
      blockedTerms,
      allowedTerms,
      allowedHosts,
      blocked: new TermMatcher(blockedTerms),
      allowed: new TermMatcher(allowedTerms),
      hosts: new HostList(allowedHosts.slice(0, MAX_HOSTS)),
    };
    this.#rooms.set(roomId, compiled);
    return compiled;
  }

  #profanity(
    settings: ClassifierSettings,
    room: CompiledRoom,
    folded: Folded,
    reading: Reading,
    reasons: ClassificationReason[] | undefined,
    masks: Found[],
  ): void {
    if (!reasons) return;
    const categories = new Set<Category>();
    // In the places of the message, so that what was found in one reading is allowed by what was found in the other.
    let allowed: Intervals | undefined;
    const place = ({ start, end }: Found): Found => ({ start: reading.origin[start]!, end: reading.origin[end]! });
    const isAllowed = (found: Found): boolean => {
      allowed ??= allowedPlaces(this.#lexicon, room.allowed, folded, reading);
      return allowed.contain(place(found));
    };
    const enough = () => (settings.profanity === 'mask' ? masks.length >= MAX_MASKS : categories.size > 0);
    this.#lexicon.search(reading.text, (found) => {
      if (isAllowed(found)) return 'allowed';
      if (masks.length < MAX_NAMED) categories.add(this.#lexicon.categoryAt(reading.text, found.start));
      masks.push(place(found));
      return enough() ? 'enough' : 'taken';
    });
    const known = masks.length;
    let next = 0;
    const isTaken = (start: number, end: number): boolean => {
      while (next < known && masks[next]!.end <= reading.origin[start]!) next++;
      return next < known && masks[next]!.start < reading.origin[end]!;
    };
    for (const found of hidden(reading, isTaken)) {
      if (enough()) break;
      if (isAllowed(found)) continue;
      if (categories.size === 0) categories.add('profanity');
      masks.push(place(found));
    }
    for (const category of categories) reasons.push({ category, score: 1, rule: 'profanity' });
  }

  #loudness(text: string, held: ClassificationReason[]): void {
    const { capitals, letters, emoji, mentions } = loudnessOf(text);
    if (capitals >= this.#limits.capitals && capitals > letters * 0.8) held.push({ category: 'loud', score: 1, rule: 'caps' });
    if (emoji >= this.#limits.emoji) held.push({ category: 'loud', score: 1, rule: 'emoji' });
    if (mentions >= this.#limits.mentions) held.push({ category: 'loud', score: 1, rule: 'mentions' });
  }
}

const refusal = (rule: ClassifierRule, category: string): Classification => ({ action: 'refuse', reasons: [{ category, score: 1, rule }] });

function hasTerm(terms: TermMatcher, folded: Folded, reading: Reading): boolean {
  if (terms.empty) return false;
  let found = false;
  const visit = () => {
    found = true;
  };
  terms.findFolded(folded, visit);
  if (!found) terms.findRead(reading, visit);
  return found || terms.hasStretched(reading);
}

/** Whether a chunk of the folded text is an address: those are not read, their letters say nothing. Both go forward only. */
function skipLinks(links: readonly FoundLink[]): (start: number, end: number) => boolean {
  const sorted = [...links].sort((a, b) => a.start - b.start);
  let next = 0;
  return (start, end) => {
    while (next < sorted.length && sorted[next]!.end <= start) next++;
    const link = sorted[next];
    return link !== undefined && link.start < end && link.end > start;
  };
}

/** Places in order of their start, of which one is asked whether it contains a place. */
class Intervals {
  readonly #starts: number[] = [];
  /** The furthest end of those up to here: contains whatever ends before it and starts after the start that it belongs to. */
  readonly #furthest: number[] = [];

  constructor(places: Found[]) {
    places.sort((a, b) => a.start - b.start || b.end - a.end);
    let furthest = 0;
    for (const { start, end } of places) {
      furthest = Math.max(furthest, end);
      this.#starts.push(start);
      this.#furthest.push(furthest);
    }
  }

  contain({ start, end }: Found): boolean {
    let low = 0;
    let high = this.#starts.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#starts[middle]! <= start) low = middle + 1;
      else high = middle;
    }
    return low > 0 && this.#furthest[low - 1]! >= end;
  }
}

function allowedPlaces(lexicon: Lexicon, terms: TermMatcher, folded: Folded, reading: Reading): Intervals {
  const places: Found[] = [];
  const add =
    ({ origin }: Folded) =>
    (start: number, end: number) => {
      places.push({ start: origin[start]!, end: origin[end]! });
    };
  for (const { start, end } of lexicon.allowedIn(folded.text)) add(folded)(start, end);
  for (const { start, end } of lexicon.allowedIn(reading.text)) add(reading)(start, end);
  if (!terms.empty) {
    terms.findFolded(folded, add(folded));
    terms.findRead(reading, add(reading));
  }
  return new Intervals(places);
}

const UNSEEN = /^[\p{M}\p{Cf}]$/u;

/** The text with `*` for each letter of the places; spaces stay, so that its shape does. Never longer than it was. */
function mask(text: string, masks: Found[]): string {
  if (masks.length === 0) return text;
  masks.sort((a, b) => a.start - b.start);
  let result = '';
  let from = 0;
  for (const { start, end } of masks) {
    if (end <= from) continue;
    result += text.slice(from, Math.max(from, start));
    for (let index = Math.max(from, start); index < end; index++) {
      const unit = text.charCodeAt(index);
      if (unit === 0x20) result += ' ';
      // One for each letter: neither for what is not seen nor for the second half of a character.
      else if (unit < 0x80 || ((unit & 0xfc00) !== 0xdc00 && !UNSEEN.test(text[index]!))) result += '*';
    }
    from = end;
  }
  return result + text.slice(from);
}
