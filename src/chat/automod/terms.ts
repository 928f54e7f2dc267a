import { VezaError } from '../../runtime/errors.js';
import { characterCount } from '../../runtime/text.js';
import { type Folded, fold, KIND, WORD } from './fold.js';
import { type Reading, read } from './readings.js';

/** Limits of one room's term list. */
export const MAX_TERMS = 200;
export const MAX_TERM_LENGTH = 100;
const MAX_TERMS_LENGTH = 8000;

/**
 * Throws `bad_request` when the list is too long or a term would match everything. The message says
 * which term and why.
 */
export function checkTerms(terms: readonly string[], name: string): void {
  if (terms.length > MAX_TERMS) throw new VezaError('bad_request', `${name}: ${terms.length} terms; at most ${MAX_TERMS} are allowed`);
  let length = 0;
  for (const term of terms) {
    const characters = characterCount(term);
    if (characters > MAX_TERM_LENGTH)
      throw new VezaError('bad_request', `${name}: a term has ${characters} characters; at most ${MAX_TERM_LENGTH} are allowed`);
    length += characters;
    const text = fold(term.replaceAll('*', ''))?.text.trim() ?? '';
    if (text === '') throw new VezaError('bad_request', `${name}: the term "${term}" has nothing to look for; write a word or a phrase`);
    if (text.length < 2 && text.charCodeAt(0) < 0x80 && term.includes('*'))
      throw new VezaError(
        'bad_request',
        `${name}: the term "${term}" would match nearly every message; write more than one letter beside the *`,
      );
  }
  if (length > MAX_TERMS_LENGTH)
    throw new VezaError('bad_request', `${name}: ${length} characters in all; at most ${MAX_TERMS_LENGTH} are allowed`);
}

/**
 * Scripts that are written without spaces between words. A term in one of them is found anywhere.
 */
const UNSPACED = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]/u;
const EDGE = 0x20;
const SHIFT = 0x10000;

/**
 * Finds many phrases in one pass (Aho and Corasick, 1975). A run of characters that are not letters
 * or digits counts as one space.
 */
class Phrases {
  readonly #next = new Map<number, number>();
  readonly #fail: number[] = [0];
  /** For each state the length of the longest phrase that ends in it; 0: none. */
  readonly #longest: number[] = [0];
  readonly #starts = new Uint8Array(256);
  readonly #places: number[] = [];

  constructor(phrases: Iterable<string>) {
    const children: number[][] = [[]];
    for (const phrase of phrases) {
      let state = 0;
      for (let index = 0; index < phrase.length; index++) {
        const key = state * SHIFT + phrase.charCodeAt(index);
        let next = this.#next.get(key);
        if (next === undefined) {
          next = this.#fail.length;
          this.#fail.push(0);
          this.#longest.push(0);
          children.push([]);
          this.#next.set(key, next);
          children[state]!.push(phrase.charCodeAt(index), next);
        }
        state = next;
      }
      this.#longest[state] = phrase.length;
      this.#starts[phrase.charCodeAt(0) & 255] = 1;
    }
    const queue = [0];
    for (let at = 0; at < queue.length; at++) {
      const state = queue[at]!;
      const own = children[state]!;
      for (let index = 0; index < own.length; index += 2) {
        const child = own[index + 1]!;
        this.#fail[child] = state === 0 ? 0 : this.#step(this.#fail[state]!, own[index]!);
        this.#longest[child] ||= this.#longest[this.#fail[child]!]!;
        queue.push(child);
      }
    }
  }

  get empty(): boolean {
    return this.#fail.length === 1;
  }

  #step(from: number, unit: number): number {
    let state = from;
    for (;;) {
      const next = this.#next.get(state * SHIFT + unit);
      if (next !== undefined) return next;
      if (state === 0) return 0;
      state = this.#fail[state]!;
    }
  }

  find(text: string, visit: (start: number, end: number) => void): void {
    const places = this.#places;
    let fed = 0;
    let state = 0;
    let edge = false;
    const feed = (unit: number, index: number) => {
      places[fed++] = index;
      state = state === 0 && !this.#starts[unit & 255] ? 0 : this.#step(state, unit);
      const length = this.#longest[state]!;
      if (length === 0) return;
      // The spaces at the edges belong to the phrase, but not to the place that is reported.
      let start = places[fed - length]!;
      let end = index + 1;
      while (start < end && start < text.length && !(KIND[text.charCodeAt(start)]! & WORD)) start++;
      while (end > start && !(KIND[text.charCodeAt(end - 1)]! & WORD)) end--;
      visit(start, Math.min(end, text.length));
    };
    feed(EDGE, 0);
    for (let index = 0; index < text.length; index++) {
      const unit = text.charCodeAt(index);
      if (KIND[unit]! & WORD) {
        edge = false;
        feed(unit, index);
      } else if (!edge && index > 0) {
        edge = true;
        feed(EDGE, index);
      }
    }
    if (!edge) feed(EDGE, text.length);
  }
}

function phraseOf(text: string, open: { start: boolean; end: boolean }): string {
  const words: string[] = [];
  let word = '';
  for (const unit of text) {
    if (KIND[unit.charCodeAt(0)]! & WORD && unit.length === 1) word += unit;
    else if (word !== '') {
      words.push(word);
      word = '';
    }
  }
  if (word !== '') words.push(word);
  const phrase = words.join(' ');
  if (phrase === '') return '';
  const anywhere = (unit: string) => UNSPACED.test(unit);
  return (open.start || anywhere(phrase[0]!) ? '' : ' ') + phrase + (open.end || anywhere(phrase.at(-1)!) ? '' : ' ');
}

const squeeze = (text: string) => text.replace(/([a-z])\1/g, '$1');

/**
 * The term list of one room, compiled once per change. A term is found as whole words. A `*` at its
 * start or end leaves that edge open: `spoil*` finds "spoiler". Terms are folded and read as
 * messages are, so they are found in the same disguises as the built-in words.
 */
export class TermMatcher {
  readonly #folded: Phrases;
  readonly #read: Phrases;
  /** Terms of one word, without double letters. Stretched words are compared with them. */
  readonly #squeezed: Phrases;
  /** Terms of emoji and signs. They are found anywhere in a text. */
  readonly #signs: readonly string[];

  constructor(terms: readonly string[]) {
    const folded = new Set<string>();
    const asRead = new Set<string>();
    const squeezed = new Set<string>();
    const signs = new Set<string>();
    for (const term of terms.slice(0, MAX_TERMS)) {
      const body = term.slice(0, MAX_TERM_LENGTH).trim();
      const open = { start: body.startsWith('*'), end: body.length > 1 && body.endsWith('*') };
      const inner = fold(body.replace(/^\*/, '').replace(/\*$/, ''));
      if (inner === undefined || inner.text.trim() === '') continue;
      const phrase = phraseOf(inner.text, open);
      if (phrase === '') signs.add(inner.text.trim());
      else {
        folded.add(phrase);
        const reading = phraseOf(read(inner, () => false).text, open) || phrase;
        asRead.add(reading);
        if (!reading.trim().includes(' ')) squeezed.add(squeeze(reading));
      }
    }
    this.#folded = new Phrases(folded);
    this.#read = new Phrases(asRead);
    this.#squeezed = new Phrases(squeezed);
    this.#signs = [...signs];
  }

  get empty(): boolean {
    return this.#folded.empty && this.#signs.length === 0;
  }

  /** Calls `visit` with the places in `folded.text`. */
  findFolded({ text }: Folded, visit: (start: number, end: number) => void): void {
    if (!this.#folded.empty) this.#folded.find(text, visit);
    for (const sign of this.#signs) {
      for (let at = text.indexOf(sign), count = 0; at >= 0 && count < 100; at = text.indexOf(sign, at + sign.length), count++)
        visit(at, at + sign.length);
    }
  }

  /** Calls `visit` with the places in `reading.text`. */
  findRead({ text }: Reading, visit: (start: number, end: number) => void): void {
    if (!this.#read.empty) this.#read.find(text, visit);
  }

  /**
   * Whether a word with repeated letters ("hellooo") is a term. All words that may be disguised are
   * searched together, with repeated letters reduced to one.
   */
  hasStretched({ text, disguised }: Reading): boolean {
    if (this.#squeezed.empty || disguised.length === 0) return false;
    let words = '';
    for (const [start, end] of disguised) words += `${text.slice(start, end)} `;
    let found = false;
    this.#squeezed.find(squeeze(words), () => {
      found = true;
    });
    return found;
  }
}
