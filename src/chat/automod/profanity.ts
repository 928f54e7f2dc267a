import type { Folded } from './fold.js';
import type { Category, Found, Lexicon } from './lexicon.js';
import { hidden, type Reading } from './readings.js';
import type { TermMatcher } from './terms.js';

/** The category is determined for at most this many matches. Further matches are only masked. */
const MAX_CATEGORIZED = 16;
const MAX_MASKS = 2048;

export interface ProfanitySearch {
  readonly lexicon: Lexicon;
  /** The room's allowed terms. */
  readonly allowedTerms: TermMatcher;
  readonly folded: Folded;
  readonly reading: Reading;
  readonly isMasking: boolean;
}

export interface Profanity {
  readonly categories: ReadonlySet<Category>;
  /** Places in the message as it was written. */
  readonly masks: Found[];
}

/**
 * Searches a message for profanity in the folded text and in its reading. With `isMasking` it finds
 * every place (at most `MAX_MASKS`), otherwise it stops at the first.
 */
export function findProfanity({ lexicon, allowedTerms, folded, reading, isMasking }: ProfanitySearch): Profanity {
  const masks: Found[] = [];
  const categories = new Set<Category>();
  // Allowed terms by their places in the original message: a term found in the folded text can then
  // allow a match that was found in the reading.
  let allowed: Intervals | undefined;
  const place = ({ start, end }: Found): Found => ({ start: reading.origin[start]!, end: reading.origin[end]! });
  const isAllowed = (found: Found): boolean => {
    allowed ??= allowedPlaces(lexicon, allowedTerms, folded, reading);
    return allowed.contain(place(found));
  };
  const enough = () => (isMasking ? masks.length >= MAX_MASKS : categories.size > 0);
  lexicon.search(reading.text, (found) => {
    if (isAllowed(found)) return 'allowed';
    if (masks.length < MAX_CATEGORIZED) categories.add(lexicon.categoryAt(reading.text, found.start));
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
  return { categories, masks };
}

/** A set of places that answers whether one of them contains a given place. */
class Intervals {
  readonly #starts: number[] = [];
  /** At each index: the furthest end among the places up to and including this one. */
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

/**
 * The text with `*` for each character of the masked places. Spaces stay, so that the text keeps
 * its shape. The result is never longer than the text.
 */
export function maskPlaces(text: string, masks: Found[]): string {
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
      // A combining mark and the second half of a surrogate pair get no `*`, so that each visible
      // character gets one.
      else if (unit < 0x80 || ((unit & 0xfc00) !== 0xdc00 && !UNSEEN.test(text[index]!))) result += '*';
    }
    from = end;
  }
  return result + text.slice(from);
}
