import { resolveConfusablesTransformer } from 'obscenity';

/**
 * Folding is the first step of automod: it brings a text into one form in which characters that
 * look alike are the same. Automod alone sees the folded copy. Members see the text as it was
 * written.
 *
 * Each code point is folded by itself, from a table that is built once: NFKD, lower case, without
 * combining marks that belong to no script of their own, and without invisible characters. Marks of
 * Devanagari or Thai are letters to their readers, so they stay. `String.prototype.normalize` over
 * the whole text is avoided on purpose: it sorts runs of combining marks, and a text with 2,700 of
 * them in bad order took 8.8 ms.
 */

/**
 * The longest text that is classified, in UTF-16 units after folding. A longer one is refused:
 * 8,190 bytes of U+FDFA fold to 49,140 units.
 */
export const MAX_FOLDED_LENGTH = 8192;

export interface Folded {
  readonly text: string;
  /**
   * For each unit of `text` the index of its character in the original. One more element at the end
   * holds the original's length.
   */
  readonly origin: Uint16Array;
}

const DROPPED = 0;
const SEVERAL = 0xffff;
const IGNORED = /^[\p{Default_Ignorable_Code_Point}\p{Cf}\p{Cc}\u2800]$/u;
const LINE_SPACE = /^[\t\n\v\f\r\u0085\u2028\u2029]$/u;
const INHERITED_MARKS = /(?=\p{M})\p{Script=Inherited}|\p{Me}/gu;
/**
 * Blocks that are left out of the table of compatibility forms (Han, Hangul, surrogates and private
 * use): 40,000 letters that fold to themselves.
 */
const AS_IS: readonly (readonly [number, number])[] = [
  [0x3400, 0x9fff],
  [0xac00, 0xd7a3],
  [0xd800, 0xf8ff],
];
/** Blocks above U+FFFF with styled letters (mathematical, enclosed) or invisible characters. */
const DRESSED: readonly (readonly [number, number])[] = [
  [0x10280, 0x1057f],
  [0x10780, 0x107bf],
  [0x1d400, 0x1d7ff],
  [0x1e030, 0x1e08f],
  [0x1ee00, 0x1eeff],
  [0x1f100, 0x1f1e5],
  [0x1fbf0, 0x1fbf9],
  [0x2f800, 0x2fa1f],
  [0xe0000, 0xe01ef],
];
const REGIONAL_A = 0x1f1e6;
/**
 * Regions that have a flag. Two regional indicators that name one are a flag; any other pair is
 * read as letters.
 */
const REGIONS = new Set(
  (
    'AC AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN ' +
    'CO CP CR CU CV CW CX CY CZ DE DG DJ DK DM DO DZ EA EC EE EG EH ER ES ET EU FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW ' +
    'GY HK HM HN HR HT HU IC ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF ' +
    'MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS ' +
    'RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TA TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM UN US UY UZ VA VC ' +
    'VE VG VI VN VU WF WS XK YE YT ZA ZM ZW'
  ).split(' '),
);

const confusable = resolveConfusablesTransformer() as unknown as { transform(codePoint: number): number | undefined };

/** Look-alikes that the library's table lacks or maps to another letter. */
const MISSING: Readonly<Record<number, string>> = { 424: 's', 643: 's', 42800: 'f', 42801: 's' };

/**
 * The ASCII letter (lower case) or digit that a character looks like, by the library's table. 0:
 * none.
 */
function lookAlike(codePoint: number): number {
  if (codePoint < 0x80) return 0;
  const missing = MISSING[codePoint];
  if (missing !== undefined) return missing.charCodeAt(0);
  const to = confusable.transform(codePoint) ?? 0;
  if (to >= 0x80 || to === codePoint) return 0;
  if (to >= 0x41 && to <= 0x5a) return to + 32;
  return (to >= 0x61 && to <= 0x7a) || (to >= 0x30 && to <= 0x39) ? to : 0;
}

function foldOne(codePoint: number): string {
  const character = String.fromCodePoint(codePoint);
  if (LINE_SPACE.test(character)) return ' ';
  if (IGNORED.test(character)) return '';
  const text = character.normalize('NFKD').toLowerCase().replace(INHERITED_MARKS, '');
  return /^\p{Z}+$/u.test(text) ? ' ' : text;
}

const BASIC = new Uint16Array(0x10000);
const OTHERS = new Map<number, string>();

/** The kinds of a folded unit, as bits. */
export const LETTER = 1;
export const ASCII_LETTER = 2;
export const DIGIT = 4;
export const SPACE = 8;
export const WORD = LETTER | DIGIT;
export const KIND = new Uint8Array(0x10000);
/** For each folded unit that is not ASCII: the ASCII letter that it looks like. 0: none. */
export const LOOK_ALIKE = new Uint16Array(0x10000);

for (let unit = 0; unit < 0x10000; unit++) {
  BASIC[unit] = unit;
  if (unit >= 0xd800 && unit <= 0xdfff) continue;
  const character = String.fromCharCode(unit);
  if (unit === 0x20) KIND[unit] = SPACE;
  else if (unit >= 0x61 && unit <= 0x7a) KIND[unit] = LETTER | ASCII_LETTER;
  else if (unit >= 0x30 && unit <= 0x39) KIND[unit] = DIGIT;
  else if (unit > 0x7f && /[\p{L}\p{M}]/u.test(character)) KIND[unit] = LETTER;
  else if (unit > 0x7f && /\p{N}/u.test(character)) KIND[unit] = DIGIT;
  LOOK_ALIKE[unit] = lookAlike(unit);
}
for (let unit = 0; unit < 0x10000; unit++) {
  if (AS_IS.some(([from, to]) => unit >= from && unit <= to)) continue;
  const text = foldOne(unit);
  BASIC[unit] = text === '' ? DROPPED : text.length === 1 ? text.charCodeAt(0) : SEVERAL;
  if (text.length > 1) OTHERS.set(unit, text);
}
for (const [from, to] of DRESSED) {
  for (let codePoint = from; codePoint <= to; codePoint++) {
    const folded = foldOne(codePoint);
    const alike = folded === String.fromCodePoint(codePoint) ? lookAlike(codePoint) : 0;
    const text = alike === 0 ? folded : String.fromCharCode(alike);
    if (text !== String.fromCodePoint(codePoint)) OTHERS.set(codePoint, text);
  }
}

/** Folding is synchronous, so one buffer serves every text. */
const units = new Uint16Array(MAX_FOLDED_LENGTH + 32);
const bytes = Buffer.from(units.buffer);

/**
 * The first `length` UTF-16 units of a buffer as text. `String.fromCharCode` would need one
 * argument per unit.
 */
export const unitsToText = (buffer: Buffer, length: number): string => buffer.toString('utf16le', 0, length * 2);

/**
 * Folds `text`. Returns undefined when the result is longer than `MAX_FOLDED_LENGTH`. Linear. Never
 * throws, not even for lone surrogates.
 */
export function fold(text: string): Folded | undefined {
  const origin = new Uint16Array(Math.min(MAX_FOLDED_LENGTH, text.length * 18) + 1);
  let length = 0;
  for (let index = 0; index < text.length; index++) {
    if (length >= MAX_FOLDED_LENGTH) {
      // The folded character may itself be invisible.
      if (BASIC[text.charCodeAt(index)] === DROPPED) continue;
      return undefined;
    }
    const unit = text.charCodeAt(index);
    const basic = BASIC[unit]!;
    if ((unit & 0xfc00) === 0xd800 && index + 1 < text.length) {
      const codePoint = text.codePointAt(index)!;
      if (codePoint > 0xffff) {
        if (codePoint >= REGIONAL_A && codePoint < REGIONAL_A + 26) {
          const end = endOfRegional(text, index);
          const flags = areFlags(text, index, end);
          for (; index < end; index += 2) {
            if (length >= MAX_FOLDED_LENGTH) return undefined;
            origin[length] = index;
            units[length++] = flags ? 0xb7 : text.codePointAt(index)! - REGIONAL_A + 0x61;
          }
          index--;
          continue;
        }
        const other = OTHERS.get(codePoint);
        if (other === undefined) {
          if (length + 2 > MAX_FOLDED_LENGTH) return undefined;
          origin[length] = index;
          units[length++] = unit;
          origin[length] = index;
          units[length++] = text.charCodeAt(index + 1);
        } else {
          if (length + other.length > MAX_FOLDED_LENGTH) return undefined;
          for (let at = 0; at < other.length; at++) {
            origin[length] = index;
            units[length++] = other.charCodeAt(at);
          }
        }
        index++;
        continue;
      }
    }
    if (basic === SEVERAL) {
      const several = OTHERS.get(unit) ?? '\uffff';
      if (length + several.length > MAX_FOLDED_LENGTH) return undefined;
      for (let at = 0; at < several.length; at++) {
        origin[length] = index;
        units[length++] = several.charCodeAt(at);
      }
    } else if (basic !== DROPPED) {
      origin[length] = index;
      units[length++] = basic;
    }
  }
  origin[length] = text.length;
  return { text: unitsToText(bytes, length), origin: origin.subarray(0, length + 1) };
}

function endOfRegional(text: string, start: number): number {
  let end = start;
  for (;;) {
    const codePoint = text.codePointAt(end) ?? 0;
    if (codePoint < REGIONAL_A || codePoint >= REGIONAL_A + 26) return end;
    end += 2;
  }
}

function areFlags(text: string, start: number, end: number): boolean {
  if ((end - start) % 4 !== 0) return false;
  for (let index = start; index < end; index += 4) {
    const first = text.codePointAt(index)! - REGIONAL_A + 0x41;
    const second = text.codePointAt(index + 2)! - REGIONAL_A + 0x41;
    if (!REGIONS.has(String.fromCharCode(first, second))) return false;
  }
  return true;
}
