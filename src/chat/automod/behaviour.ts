import { BoundedMap } from '../../runtime/bounded-map.js';
import { ASCII_LETTER, DIGIT, type Folded, KIND, LETTER, SPACE } from './fold.js';

export interface BehaviourLimits {
  /** Messages that one author may send to one room at once. */
  readonly floodBurst: number;
  /** Messages per second that one author may send to one room after the burst is used up. */
  readonly floodPerSecond: number;
  /** How often one author may send the same text within `repeatWindowMs`. */
  readonly repeats: number;
  /** As `repeats`, for texts with fewer than 8 letters and digits ("lol", "gg"). */
  readonly shortRepeats: number;
  readonly repeatWindowMs: number;
  /** Links that one author may send to one room per minute. */
  readonly linksPerMinute: number;
  /**
   * A message is held when it has at least this many capital letters and hardly any other letters.
   */
  readonly capitals: number;
  readonly emoji: number;
  readonly mentions: number;
  /** Authors whose state is kept. The state of one author in one room takes about 450 bytes. */
  readonly authors: number;
}

export const DEFAULT_LIMITS: BehaviourLimits = {
  floodBurst: 20,
  floodPerSecond: 2,
  repeats: 3,
  shortRepeats: 8,
  repeatWindowMs: 60_000,
  linksPerMinute: 6,
  capitals: 60,
  emoji: 40,
  mentions: 8,
  authors: 20_000,
};

const REMEMBERED = 8;
/**
 * Twice the number of messages that a connection may have in flight. A client that never got an
 * answer sends the message again, and the message must still be found here.
 */
const PASSED = 16;

/** The recent messages of one author in one room. */
interface AuthorState {
  tokens: number;
  refilledMs: number;
  /** Hashes of the newest texts. `atMs` holds the time of each. */
  readonly hashes: Uint32Array;
  readonly atMs: Float64Array;
  next: number;
  /** The newest messages that were allowed: `numberOf` of the id and the hash. */
  readonly passed: Float64Array;
  nextPassed: number;
  links: number;
  linksSinceMs: number;
}

export interface Shape {
  readonly hash: number;
  /** The number of letters and digits in the text. */
  readonly said: number;
}

/**
 * A hash of a text without its spaces, signs and digits, so that copies which differ only in
 * numbers have one hash. A text with fewer than 4 letters is hashed with its signs and digits.
 */
export function shapeOf({ text }: Folded): Shape {
  let letters = 0x811c9dc5;
  let all = 0x811c9dc5;
  let saidLetters = 0;
  let said = 0;
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index);
    const kind = KIND[unit]!;
    if (kind & SPACE) continue;
    all = Math.imul(all ^ unit, 0x01000193);
    if (kind & (LETTER | DIGIT)) said++;
    if (kind & LETTER) {
      letters = Math.imul(letters ^ unit, 0x01000193);
      saidLetters++;
    }
  }
  const hash = saidLetters >= 4 ? letters : all;
  return { hash: hash >>> 0 || 1, said };
}

export type Misbehaviour = 'flood' | 'repeat' | 'link-flood';

/** A hash of 53 bits, as many as a number holds exactly. */
function numberOf(text: string): number {
  let high = 0x811c9dc5;
  let low = 0x9dc5811c;
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index);
    high = Math.imul(high ^ unit, 0x01000193);
    low = Math.imul(low ^ unit, 0x85ebca6b);
  }
  return (high >>> 0) * 2 ** 21 + (low >>> 11) || 1;
}

/**
 * Finds floods and repeats of one author in one room. Keeps the state of at most `limits.authors`
 * authors and forgets the least recently seen first.
 */
export class Behaviour {
  readonly #authors: BoundedMap<string, AuthorState>;

  constructor(readonly limits: BehaviourLimits = DEFAULT_LIMITS) {
    this.#authors = new BoundedMap(limits.authors);
  }

  get authors(): number {
    return this.#authors.size;
  }

  /**
   * Counts a message. Returns why it is refused, or undefined. A message that is refused as a flood
   * is not remembered, so its text can be sent again later. A message that was allowed with the
   * same `messageId` and text is not counted again: a client sends it again when the room log was
   * unavailable.
   */
  noteMessage(roomId: string, authorId: string, shape: Shape, links: number, nowMs: number, messageId?: string): Misbehaviour | undefined {
    const key = `${roomId}\n${authorId}`;
    let state = this.#authors.use(key);
    if (!state) {
      state = {
        tokens: this.limits.floodBurst,
        refilledMs: nowMs,
        hashes: new Uint32Array(REMEMBERED),
        atMs: new Float64Array(REMEMBERED),
        next: 0,
        passed: new Float64Array(PASSED),
        nextPassed: 0,
        links: 0,
        linksSinceMs: nowMs,
      };
      this.#authors.set(key, state);
    }
    const id = messageId === undefined ? undefined : numberOf(`${messageId} ${shape.hash}`);
    if (id !== undefined && state.passed.includes(id)) return undefined;
    state.tokens = Math.min(this.limits.floodBurst, state.tokens + ((nowMs - state.refilledMs) / 1000) * this.limits.floodPerSecond);
    state.refilledMs = nowMs;
    if (state.tokens < 1) return 'flood';
    state.tokens -= 1;

    let same = 0;
    for (let index = 0; index < REMEMBERED; index++)
      if (state.hashes[index] === shape.hash && nowMs - state.atMs[index]! < this.limits.repeatWindowMs) same++;
    if (same >= (shape.said < 8 ? this.limits.shortRepeats : this.limits.repeats)) return 'repeat';
    state.hashes[state.next] = shape.hash;
    state.atMs[state.next] = nowMs;
    state.next = (state.next + 1) % REMEMBERED;

    if (links > 0) {
      if (nowMs - state.linksSinceMs >= 60_000) {
        state.links = 0;
        state.linksSinceMs = nowMs;
      }
      state.links += links;
      if (state.links > this.limits.linksPerMinute) return 'link-flood';
    }
    if (id !== undefined) {
      state.passed[state.nextPassed] = id;
      state.nextPassed = (state.nextPassed + 1) % PASSED;
    }
    return undefined;
  }

  forgetRoom(roomId: string): void {
    for (const key of this.#authors.keys()) if (key.startsWith(`${roomId}\n`)) this.#authors.delete(key);
  }
}

export interface Loudness {
  readonly capitals: number;
  readonly letters: number;
  readonly emoji: number;
  readonly mentions: number;
}

/**
 * Counts in the message as it was written. Several characters that are shown as one emoji (a
 * family, a flag, a skin tone) count once.
 */
export function loudnessOf(message: string): Loudness {
  let capitals = 0;
  let letters = 0;
  let emoji = 0;
  let mentions = 0;
  let joined = false;
  let regional = 0;
  for (let index = 0; index < message.length; index++) {
    const unit = message.charCodeAt(index);
    if (unit < 0x80) {
      if (unit >= 0x41 && unit <= 0x5a) {
        capitals++;
        letters++;
      } else if (unit >= 0x61 && unit <= 0x7a) letters++;
      else if (unit === 0x40 && (index === 0 || !isWordBefore(message, index)) && isWordAt(message, index + 1)) mentions++;
      joined = false;
    } else if (unit === 0x200d) joined = true;
    else if (unit >= 0xd83c && unit <= 0xd83e && index + 1 < message.length) {
      const codePoint = message.codePointAt(index)!;
      const isRegional = codePoint >= 0x1f1e6 && codePoint <= 0x1f1ff;
      const isTone = codePoint >= 0x1f3fb && codePoint <= 0x1f3ff;
      if (isRegional ? regional++ % 2 === 0 : !isTone && !joined) emoji++;
      joined = false;
      index++;
    } else if (unit >= 0x2600 && unit <= 0x27bf) {
      if (!joined) emoji++;
      joined = false;
    } else if (unit >= 0xc0 && unit <= 0x52f) {
      const character = message[index]!;
      if (character !== character.toLowerCase()) capitals++;
      if (character.toLowerCase() !== character.toUpperCase()) letters++;
    }
  }
  return { capitals, letters, emoji, mentions };
}

const isWordAt = (text: string, index: number) =>
  index < text.length && (KIND[text.charCodeAt(index) | 0x20]! & (ASCII_LETTER | DIGIT | LETTER)) !== 0;
const isWordBefore = (text: string, index: number) => isWordAt(text, index - 1);
