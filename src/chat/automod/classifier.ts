import { BoundedMap } from '../../runtime/bounded-map.js';
import type { Clock } from '../../runtime/clock.js';
import { Behaviour, type BehaviourLimits, DEFAULT_LIMITS, loudnessOf, shapeOf } from './behaviour.js';
import type { ClassifierSettings } from './classifier-settings.js';
import { clean } from './cleaning.js';
import { type Folded, fold, MAX_FOLDED_LENGTH } from './fold.js';
import { type Found, Lexicon } from './lexicon.js';
import { type FoundLink, findLinks, HostList, MAX_HOSTS } from './links.js';
import { findProfanity, maskPlaces } from './profanity.js';
import { type Reading, read } from './readings.js';
import type { RemoteClassifier } from './remote-classifier.js';
import { looksLikeScam } from './scam.js';
import { isSpam, spamScore } from './spam.js';
import { TermMatcher } from './terms.js';

export type Classification =
  | { action: 'allow' }
  /** `text` is published instead of what the author wrote. */
  | { action: 'mask'; text: string; reasons: ClassificationReason[] }
  /** The message goes to the queue of held messages. */
  | { action: 'hold'; reasons: ClassificationReason[] }
  | { action: 'refuse'; reasons: ClassificationReason[] };

export interface ClassificationReason {
  /**
   * A word that moderators read: `slur`, `sexual`, `link`, or a category of the remote classifier.
   */
  category: string;
  /** From 0 to 1. A rule without a score gives 1. */
  score: number;
  /**
   * Stable: `too-long`, `term`, `profanity`, `flood`, `repeat`, `link`, `link-flood`, `caps`,
   * `emoji`, `mentions`, `spam`, `scam`, `format`, `remote`.
   */
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
type ClassifierRule = (typeof RULES)[number];

export interface ClassificationInput {
  roomId: string;
  authorId: string;
  /** The `mid` of the message. A message that is sent again counts once for floods and repeats. */
  messageId?: string | undefined;
  /** True: the author is a moderator, and only the limit of length applies. */
  privileged: boolean;
  text: string;
  settings: ClassifierSettings;
  /** True: the text is only tried out, and does not count for floods and repeats. */
  isTrial?: boolean;
}

export interface ClassifierOptions {
  clock: Clock;
  /** Undefined: `classifyRemotely` allows every message. */
  remote?: RemoteClassifier | undefined;
  limits?: Partial<BehaviourLimits>;
  /** Rooms whose compiled terms are kept. Default: 512. */
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
/** Reasons that one verdict lists at most. */
const MAX_REASONS = 8;

const sameList = (a: readonly string[], b: readonly string[]) =>
  a === b || (a.length === b.length && a.every((item, index) => item === b[index]));

/**
 * Classifies messages. Memory is bounded: the state of at most 20,000 authors and the compiled
 * terms of at most 512 rooms. The time is linear in the length of the message. `npm run bench --
 * chat --only moderation` measures it.
 */
export class Classifier {
  readonly #clock: Clock;
  readonly #remote: RemoteClassifier | undefined;
  readonly #limits: BehaviourLimits;
  readonly #behaviour: Behaviour;
  readonly #rooms: BoundedMap<string, CompiledRoom>;
  readonly #lexicon: Lexicon;
  /** How often a room's terms were compiled. Tests read it. */
  compilations = 0;

  constructor({ clock, remote, limits, rooms = 512, lexicon = new Lexicon() }: ClassifierOptions) {
    this.#clock = clock;
    this.#remote = remote;
    this.#limits = { ...DEFAULT_LIMITS, ...limits };
    this.#behaviour = new Behaviour(this.#limits);
    this.#rooms = new BoundedMap(rooms);
    this.#lexicon = lexicon;
  }

  get authors(): number {
    return this.#behaviour.authors;
  }

  /** An author who sends at most at this rate is never refused for a flood. */
  get pace(): { readonly perS: number; readonly burst: number } {
    return { perS: this.#limits.floodPerSecond, burst: this.#limits.floodBurst };
  }

  get rooms(): number {
    return this.#rooms.size;
  }

  /**
   * Classifies a message without waiting and without input or output. Never throws, whatever the
   * text.
   */
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
    const profanityReasons = { allow: undefined, mask: masked, hold: held, refuse: refused }[settings.profanity];
    if (profanityReasons) {
      const isMasking = settings.profanity === 'mask';
      const found = findProfanity({ lexicon: this.#lexicon, allowedTerms: room.allowed, folded, reading, isMasking });
      for (const category of found.categories) profanityReasons.push({ category, score: 1, rule: 'profanity' });
      masks.push(...found.masks);
    }
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
    if (masked.length > 0) return { action: 'mask', text: maskPlaces(published, masks), reasons: masked.slice(0, MAX_REASONS) };
    return ALLOW;
  }

  /** Whether the room's settings require the remote classifier for this message. */
  asksRemotely({ privileged, settings }: ClassificationInput): boolean {
    return this.#remote !== undefined && !privileged && settings.enabled && settings.remote !== 'off';
  }

  /**
   * Asks the remote classifier if the room's settings require it. Resolves to `allow` or `hold`,
   * after the classifier's timeout at the latest. Never rejects. In a room with `remote: 'hold'`
   * the caller publishes the message only after `allow`. In a room with `retract` the caller has
   * published the message already and retracts it after `hold`.
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

  /** Forgets the compiled terms of a room and the state of its authors. */
  forgetRoom(roomId: string): void {
    this.#rooms.delete(roomId);
    this.#behaviour.forgetRoom(roomId);
  }

  #compiled(roomId: string, { blockedTerms, allowedTerms, allowedHosts }: ClassifierSettings): CompiledRoom {
    const known = this.#rooms.use(roomId);
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

/**
 * Returns a function that tells whether a stretch of the folded text overlaps a link. Links are not
 * searched for words. Calls must come in ascending order of place.
 */
function skipLinks(links: readonly FoundLink[]): (start: number, end: number) => boolean {
  const sorted = [...links].sort((a, b) => a.start - b.start);
  let next = 0;
  return (start, end) => {
    while (next < sorted.length && sorted[next]!.end <= start) next++;
    const link = sorted[next];
    return link !== undefined && link.start < end && link.end > start;
  };
}
