import { ASCII_LETTER, DIGIT, type Folded, KIND, LETTER, LOOK_ALIKE, MAX_FOLDED_LENGTH, SPACE, unitsToText, WORD } from './fold.js';

/**
 * A reading is a folded text as a person would read it: `fvnk` written with a Greek nu, f.u.n.k, f
 * u n k, fuuunk and fu|\|k all read as one word. One pass; no word becomes longer.
 *
 * A letter of another script is read as a Latin letter in a word that also has Latin letters, and
 * in a word made only of look-alikes when the text has no real word of that script. Russian and
 * Greek texts therefore stay Russian and Greek.
 */
export interface Reading extends Folded {
  /**
   * Words that were written in disguise (spaced, stretched, digits or signs as letters), by their
   * place in `text`.
   */
  readonly disguised: readonly (readonly [start: number, end: number])[];
}

const code = (character: string) => character.charCodeAt(0);

/** The letter that a digit or sign inside a word is read as. */
const LEET = new Uint8Array(128);
for (const [sign, letter] of ['4a', '@a', '8b', '(c', '3e', '6g', '9g', '1i', '!i', '|i', '0o', '5s', '$s', '7t', '+t', '2z'].map(
  (pair) => [...pair],
))
  LEET[code(sign!)] = code(letter!);
/**
 * Signs that are read as letters only between letters. At the edge of a word they are punctuation.
 */
const INNER_ONLY = new Set([...'!|+('].map(code));
/** Signs that separate the pieces of a word that was taken apart. */
const SEPARATORS = new Uint8Array(128);
for (const sign of '._-*~^,:;|/\\+=#"`()[]{}<>') SEPARATORS[code(sign)] = 1;
/** Letters of which two in a row may stay. The library's patterns rely on it. */
const PAIRS = new Uint8Array(128);
for (const letter of 'begols') PAIRS[code(letter)] = 1;
/** Units of measurement. A number with its unit is not read as a word. */
const UNITS = new Set(
  'b,k,m,g,p,x,d,s,h,v,w,st,nd,rd,th,am,pm,cm,mm,km,kg,mg,ml,mb,gb,tb,kb,hz,db,ft,in,hr,hrs,min,mins,sec,secs,ms,bpm,rpm,fps,khz,mhz,kbps,inch'.split(
    ',',
  ),
);
/**
 * After an `@`, these letters read as a word with the sign (`@ss`). Any other word after an `@` is
 * a mention.
 */
const AT_WORDS = /^@(?:[s$5]{2}(?:es|h[o0]les?|wipe)?|nus|nal)(?![a-z0-9])/;

/**
 * English words that are matched in taken-apart or disguised words only. An author who disguises
 * one of them knows that it is not allowed.
 */
const HIDDEN = new Set(
  (
    'fuck,fucks,fucked,fucker,fuckers,fucking,fuckin,fuckyou,fuckoff,motherfucker,fuk,shit,shits,shitty,shity,shitting,bullshit,bitch,bitches,bitchy,cunt,cunts,' +
    'nigger,niggers,nigga,niggas,faggot,faggots,fagot,fag,fags,ass,asses,asshole,assholes,whore,whores,slut,sluts,pussy,pussies,dick,dicks,dickhead,cock,cocks,' +
    'cocksucker,bastard,bastards,wanker,wankers,twat,twats,retard,retards,retarded,tits,penis,rape,rapist,kike,kikes,porn,cum,anal,anus,boobs,dildo,jizz,prick,kys'
  ).split(','),
);
/**
 * The most common of these words, matched anywhere in a disguised word: letters with spaces between
 * them show no word edges.
 */
const HIDDEN_INSIDE = /fuck|shit|bitch|cunt|nigger|nigga|faggot|asshole|whore|pussy|wanker|dickhead|bastard/g;

const strictLookAlikes = 'асеіјорѕухвкмнтԁһӏԛԝүցορνακιτυχεηβγρωѵ';
const STRICT = new Set([...strictLookAlikes].map(code));
/**
 * Latin letters of unusual shape (phonetic, small capitals, with strokes). Reading them as plain
 * letters changes no text of a real language.
 */
const isLatinKin = (unit: number) => unit < 0x2b0 || (unit >= 0x1d00 && unit <= 0x1dbf) || (unit >= 0xa720 && unit <= 0xa7ff);

const out = new Uint16Array(MAX_FOLDED_LENGTH + 32);
const outBytes = Buffer.from(out.buffer);

/**
 * Whether a text has a word that is wholly of another script and contains a letter without a Latin
 * look-alike.
 */
function hasForeignWord(text: string): boolean {
  let latin = false;
  let foreign = false;
  for (let index = 0; index <= text.length; index++) {
    const unit = index < text.length ? text.charCodeAt(index) : 0x20;
    const kind = KIND[unit]!;
    if (kind & LETTER) {
      if (kind & ASCII_LETTER || isLatinKin(unit)) latin = true;
      else if (!STRICT.has(unit)) foreign = true;
      continue;
    }
    if (foreign && !latin) return true;
    latin = false;
    foreign = false;
  }
  return false;
}

class Reader {
  length = 0;
  readonly disguised: (readonly [number, number])[] = [];
  readonly origin: Uint16Array;
  /** How often the unit that was written last stood in a row in the text so far. */
  #run = 0;

  constructor(
    readonly folded: Folded,
    readonly foreign: boolean,
  ) {
    this.origin = new Uint16Array(folded.text.length + 1);
  }

  startWord(): void {
    this.#run = 0;
  }

  /**
   * Writes one unit, unless it repeats the unit before it and would only stretch the word. Returns
   * true when three or more of it stand in a row in the text.
   */
  write(unit: number, from: number): boolean {
    if (this.length > 0 && this.#run > 0 && out[this.length - 1] === unit) {
      this.#run++;
      const keep = unit === 0x20 ? 1 : KIND[unit]! & ASCII_LETTER ? (PAIRS[unit] ? 2 : 1) : Number.POSITIVE_INFINITY;
      if (this.#run > keep) return this.#run >= 3;
    } else this.#run = 1;
    this.origin[this.length] = this.folded.origin[from]!;
    out[this.length++] = unit;
    return false;
  }
}

/** Whether [start, end) of a text is a number with a unit: 45s, 320kbps. */
function isMeasure(text: string, start: number, end: number): boolean {
  let at = start;
  while (at < end && KIND[text.charCodeAt(at)]! & DIGIT) at++;
  return at > start && at < end && end - at <= 4 && UNITS.has(text.slice(at, end));
}

const isWordUnit = (unit: number) => (KIND[unit]! & WORD) !== 0 || (unit < 128 && LEET[unit] !== 0);

/**
 * Writes one chunk between two spaces. Returns true when the chunk reads differently from how it
 * was written.
 */
function writeChunk(reader: Reader, start: number, end: number): boolean {
  const { text } = reader.folded;
  let hasAscii = false;
  let onlyStrict = true;
  for (let index = start; index < end; index++) {
    const kind = KIND[text.charCodeAt(index)]!;
    if (kind & ASCII_LETTER) hasAscii = true;
    else if (kind & LETTER && !STRICT.has(text.charCodeAt(index))) onlyStrict = false;
  }
  const readAlike = hasAscii || (onlyStrict && !reader.foreign);
  let changed = false;
  let index = start;
  while (index < end) {
    const unit = text.charCodeAt(index);
    if (!isWordUnit(unit) && !(LOOK_ALIKE[unit] && readAlike)) {
      reader.write(unit, index++);
      continue;
    }
    // One word of the chunk: letters, and the digits and signs that are read as letters.
    let to = index;
    let letters = 0;
    let signs = 0;
    while (to < end) {
      const next = text.charCodeAt(to);
      if (KIND[next]! & LETTER || LOOK_ALIKE[next]) letters++;
      else if (isWordUnit(next)) signs++;
      else break;
      to++;
    }
    const isMention = unit === 0x40 && !AT_WORDS.test(text.slice(index, Math.min(to, index + 12)));
    let first = index;
    let last = to;
    while (first < last && (INNER_ONLY.has(text.charCodeAt(first)) || (first === index && isMention))) first++;
    while (last > first && INNER_ONLY.has(text.charCodeAt(last - 1))) last--;
    const leet = letters > 0 && signs > 0 && hasAscii && !isMeasure(text, first, last);
    for (; index < to; index++) {
      let read = text.charCodeAt(index);
      if (index >= first && index < last && leet && read < 128 && LEET[read]) read = LEET[read]!;
      else if (LOOK_ALIKE[read] && (readAlike || isLatinKin(read))) read = LOOK_ALIKE[read]!;
      if (read !== text.charCodeAt(index) && index >= first && index < last) changed = true;
      if (reader.write(read, index)) changed = true;
    }
  }
  return changed;
}

/**
 * The place of the only letter in a chunk of at most three units, such as a letter with punctuation
 * around it; -1 when there is none or more than one.
 */
function loneLetter(text: string, start: number, end: number): number {
  if (end - start > 3) return -1;
  let found = -1;
  for (let index = start; index < end; index++) {
    const unit = text.charCodeAt(index);
    if (KIND[unit]! & LETTER || (unit < 128 && LEET[unit] && !INNER_ONLY.has(unit))) {
      if (found >= 0) return -1;
      found = index;
    }
  }
  return found;
}

const asLetter = (unit: number) => (unit < 128 && LEET[unit] ? LEET[unit]! : LOOK_ALIKE[unit] || unit);

function hasSeparator(text: string, start: number, end: number): boolean {
  for (let index = start + 1; index < end - 1; index++) if (text.charCodeAt(index) < 128 && SEPARATORS[text.charCodeAt(index)]) return true;
  return false;
}

/**
 * The pieces of a chunk between separators. Undefined when another character stands between two
 * pieces, or when there are more than 64.
 */
function pieces(text: string, start: number, end: number): readonly (readonly [number, number])[] | undefined {
  const list: [number, number][] = [];
  let index = start;
  while (index < end) {
    const from = index;
    while (index < end && isWordUnit(text.charCodeAt(index)) && !(text.charCodeAt(index) < 128 && SEPARATORS[text.charCodeAt(index)]))
      index++;
    if (index > from) list.push([from, index]);
    if (list.length > 64) return undefined;
    const gap = index;
    while (index < end) {
      const unit = text.charCodeAt(index);
      if (unit < 128 && SEPARATORS[unit]) index++;
      else break;
    }
    if (index === gap && index < end) return undefined;
  }
  return list;
}

function writeJoined(reader: Reader, parts: readonly (readonly [number, number])[]): void {
  const { text } = reader.folded;
  const from = reader.length;
  reader.startWord();
  for (const [start, end] of parts) for (let index = start; index < end; index++) reader.write(asLetter(text.charCodeAt(index)), index);
  reader.disguised.push([from, reader.length]);
  reader.startWord();
}

function reads(text: string, parts: readonly (readonly [number, number])[]): string {
  let word = '';
  for (const [start, end] of parts)
    for (let index = start; index < end && word.length < 24; index++) word += String.fromCharCode(asLetter(text.charCodeAt(index)));
  return word;
}

/**
 * Reads a folded text. `isAddress(start, end)` says whether the chunk is a link; a link is written
 * as one `#`.
 */
export function read(folded: Folded, isAddress: (start: number, end: number) => boolean): Reading {
  const { text } = folded;
  const reader = new Reader(folded, hasForeignWord(text));
  let index = 0;
  while (index < text.length) {
    if (KIND[text.charCodeAt(index)]! & SPACE) {
      reader.write(0x20, index++);
      continue;
    }
    const plain = endOfLetters(text, index);
    if (plain > index + 1 && (plain === text.length || KIND[text.charCodeAt(plain)]! & SPACE)) {
      // Most chunks are only letters between spaces.
      const from = reader.length;
      let stretched = false;
      reader.startWord();
      for (; index < plain; index++) if (reader.write(text.charCodeAt(index), index)) stretched = true;
      if (stretched) reader.disguised.push([from, reader.length]);
      reader.startWord();
      continue;
    }
    const end = endOfChunk(text, index);
    if (isAddress(index, end)) {
      reader.startWord();
      reader.write(0x23, index);
      reader.startWord();
      index = end;
      continue;
    }
    const run = loneLetters(text, index, end);
    if (run !== undefined) {
      writeJoined(reader, run.parts);
      index = run.end;
      continue;
    }
    const parts = hasSeparator(text, index, end) ? pieces(text, index, end) : undefined;
    if (parts !== undefined && parts.length > 1 && isTakenApart(text, parts)) writeJoined(reader, parts);
    else {
      const from = reader.length;
      reader.startWord();
      if (writeChunk(reader, index, end)) reader.disguised.push([from, reader.length]);
      reader.startWord();
    }
    index = end;
  }
  reader.origin[reader.length] = folded.origin.at(-1)!;
  return { text: unitsToText(outBytes, reader.length), origin: reader.origin.subarray(0, reader.length + 1), disguised: reader.disguised };
}

function endOfLetters(text: string, start: number): number {
  let end = start;
  while (end < text.length && KIND[text.charCodeAt(end)]! & ASCII_LETTER) end++;
  return end;
}

function endOfChunk(text: string, start: number): number {
  let end = start;
  while (end < text.length && !(KIND[text.charCodeAt(end)]! & SPACE)) end++;
  return end;
}

const isGap = (unit: number) => (KIND[unit]! & SPACE) !== 0 || (unit < 128 && SEPARATORS[unit] === 1 && !LEET[unit]);

/**
 * Whether another short chunk follows the one that ends at `end`. Settles most cases before a list
 * is made.
 */
function mayGoOn(text: string, end: number): boolean {
  let next = end;
  while (next < text.length && next - end <= 4 && isGap(text.charCodeAt(next))) next++;
  return next < text.length && next - end <= 4 && endOfShort(text, next) - next <= 3;
}

function endOfShort(text: string, start: number): number {
  let end = start;
  while (end < text.length && end - start < 4 && !(KIND[text.charCodeAt(end)]! & SPACE)) end++;
  return end;
}

/**
 * Three or more lone letters in a row with equal gaps are one word. Returns undefined when there is
 * no such row.
 */
function loneLetters(text: string, start: number, firstEnd: number): { parts: [number, number][]; end: number } | undefined {
  let place = loneLetter(text, start, firstEnd);
  if (place < 0 || !mayGoOn(text, firstEnd)) return undefined;
  const parts: [number, number][] = [[place, place + 1]];
  let balance = KIND[text.charCodeAt(place)]! & LETTER ? 1 : -1;
  let end = firstEnd;
  let gap = -1;
  for (;;) {
    let next = end;
    while (next < text.length && next - end <= 4 && isGap(text.charCodeAt(next))) next++;
    if (next === text.length || (gap >= 0 && next - end > gap) || next - end > 4) break;
    const nextEnd = endOfShort(text, next);
    place = loneLetter(text, next, nextEnd);
    if (place < 0) break;
    // A row that is mostly digits is not a word. Ending it here keeps a long row from being scanned
    // in vain.
    balance += KIND[text.charCodeAt(place)]! & LETTER ? 1 : -1;
    if (balance < -1) break;
    gap = next - end;
    parts.push([place, place + 1]);
    end = nextEnd;
  }
  return parts.length >= 3 ? { parts, end } : undefined;
}

/**
 * Whether a word has at least as many letters as digits and signs. A row of numbers is not a word,
 * whatever its digits look like.
 */
function isMostlyLetters(text: string, parts: readonly (readonly [number, number])[]): boolean {
  let letters = 0;
  let signs = 0;
  for (const [start, end] of parts) {
    for (let index = start; index < end; index++) {
      if (KIND[text.charCodeAt(index)]! & LETTER) letters++;
      else signs++;
    }
  }
  return letters >= signs;
}

function isTakenApart(text: string, parts: readonly (readonly [number, number])[]): boolean {
  if (!isMostlyLetters(text, parts)) return false;
  const lone = parts.reduce((count, [start, end]) => count + (end - start === 1 ? 1 : 0), 0);
  if (parts.length >= 3 && lone >= parts.length - 1 && lone >= 3) return true;
  return parts.length <= 4 && HIDDEN.has(reads(text, parts));
}

/**
 * Yields the disguised words of a reading that are listed in `HIDDEN`, in ascending order of place.
 * `isTaken` says whether a stretch was found already.
 */
export function* hidden(
  { text, disguised }: Reading,
  isTaken: (start: number, end: number) => boolean,
): Generator<{ start: number; end: number }> {
  for (const [start, end] of disguised) {
    if (isTaken(start, end)) continue;
    let from = start;
    let to = end;
    while (from < to && !(KIND[text.charCodeAt(from)]! & ASCII_LETTER)) from++;
    while (to > from && !(KIND[text.charCodeAt(to - 1)]! & ASCII_LETTER)) to--;
    if (to - from < 2) continue;
    const word = text.slice(from, to);
    if (word.length <= 24 && HIDDEN.has(word)) yield { start, end };
    else if (word.length > 4)
      for (const match of word.matchAll(HIDDEN_INSIDE)) yield { start: from + match.index, end: from + match.index + match[0].length };
  }
}
