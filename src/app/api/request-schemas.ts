import { z } from 'zod';
import type { ErrorCode } from '../../runtime/errors.js';
import { characterCount } from '../../runtime/text.js';

/**
 * Rules for a text that clients send. A schema checks exactly what it prints into the API's
 * description, so that a client's validator and the server refuse the same.
 *
 * - Lengths are characters (code points), as JSON Schema counts them (Validation 6.3.1). zod counts
 *   UTF-16 units.
 * - Patterns use only what ECMA-262 without flags, RE2 (Go) and Python's `re` read alike (JSON
 *   Schema Core 6.4): no `\p`, `\w`, `\d`, `\s`, `\u`, no lookaround; characters stand for
 *   themselves or are `\xHH`. A rule that cannot be written so is checked only by the server, and
 *   the description says it.
 */
export interface TextRules {
  /** Least number of characters. Default: 1. */
  readonly min?: number;
  readonly max: number;
  /** Default: any text without U+0000. */
  readonly pattern?: string;
  /** A hint for clients; only `pattern` is checked. */
  readonly format?: 'email' | 'password' | 'uri';
  /** White space at both ends is removed after the check. */
  readonly trimmed?: true;
  /**
   * Most bytes in UTF-8. JSON Schema has no word for it: the description says it, and
   * `x-max-bytes`.
   */
  readonly maxBytes?: number;
  readonly description?: string;
  /** How a text that is too long is refused. Default: with `bad_request`. */
  readonly tooLong?: { readonly code: ErrorCode; readonly refusal: string };
  /** A further check, for a rule that no pattern can express. */
  readonly also?: { isGood(text: string): boolean; readonly message: string };
}

/** Control characters, U+0000 among them (`\p{Cc}`). */
const CONTROLS = '\\x00-\\x1f\\x7f-\\x9f';
/** Control characters except tab, line feed and carriage return. */
const CONTROLS_BUT_LINES = '\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f';
/** `\p{Zl}\p{Zp}` */
const SEPARATORS = '\u2028\u2029';
/** Characters that change the direction of text. */
const DIRECTIONS = '\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069';
/** Characters that `String.prototype.trim` removes. */
const BLANKS = '\\x09-\\x0d\\x20\\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff';
/**
 * Characters of the Basic Multilingual Plane that look like a space or like nothing; without the
 * flag `u` a pattern sees other characters as two halves. U+2800 is the Braille pattern without a
 * dot.
 */
const UNSEEN = rangesOf(/[\p{Z}\p{Cf}\p{Default_Ignorable_Code_Point}\u2800]/u);

const noneOf = (excluded: string) => `^[^${excluded}]*$`;
/** At least one character is neither in `excluded` nor in `blank`. */
const notBlank = (excluded: string, blank: string) => `^[^${excluded}]*[^${excluded}${blank}][^${excluded}]*$`;

export const PATTERNS = {
  any: noneOf('\\x00'),
  /** Not only white space. */
  filled: notBlank('\\x00', BLANKS),
  noControls: noneOf(CONTROLS),
  /** No control characters, and not only white space. */
  song: notBlank(CONTROLS, BLANKS),
  /** One line, not only white space. */
  line: notBlank(CONTROLS + SEPARATORS, BLANKS),
  /** One or more lines, not only white space. */
  lines: notBlank(CONTROLS_BUT_LINES, BLANKS),
  /** One line that cannot be made to look like another, with at least one visible character. */
  plainLine: notBlank(CONTROLS + SEPARATORS + DIRECTIONS, UNSEEN),
} as const;

/** The insides of character classes, for patterns that are made elsewhere. */
export const PATTERN_PARTS = { controls: CONTROLS, unseen: UNSEEN } as const;

export function text(rules: TextRules): z.ZodString {
  const { min = 1, max, pattern = PATTERNS.any, format, trimmed, maxBytes, description, tooLong, also } = rules;
  const allowed = new RegExp(pattern, 'u');
  // A text has at least as many UTF-16 units as characters, so a far too long one needs no
  // counting.
  const lengthOf = (given: string) => (given.length > 2 * max ? given.length : characterCount(given));
  const isTooLong = (given: string) => lengthOf(given) > max || (maxBytes !== undefined && Buffer.byteLength(given) > maxBytes);
  const problemOf = (given: string): string | undefined => {
    const length = lengthOf(given);
    if (length < min || length > max) return min === max ? `has ${max} characters` : `has ${min} to ${max} characters`;
    if (isTooLong(given)) return `has at most ${maxBytes} bytes in UTF-8`;
    if (!allowed.test(given)) return 'has a character, or a form, that is not allowed here';
    return also && !also.isGood(given) ? also.message : undefined;
  };
  const checked = z.string().superRefine((given, ctx) => {
    const message = problemOf(given);
    if (message === undefined) return;
    ctx.addIssue({ code: 'custom', message, ...(tooLong && isTooLong(given) && { params: tooLong }) });
  });
  return (trimmed ? checked.trim() : checked).meta({
    minLength: min,
    maxLength: max,
    pattern,
    ...(format && { format }),
    ...(maxBytes !== undefined && { 'x-max-bytes': maxBytes }),
    ...(description !== undefined && { description }),
  });
}

const WHOLE = /^(?:0|[1-9][0-9]{0,15})$/;

/**
 * A whole number in a query, in decimal digits only: `Number` also takes `0x10`, `1e2`, ` 5` and
 * the empty text.
 */
export const wholeInQuery = (least: number, most: number, description?: string) =>
  z
    .string()
    .transform((given, ctx) => {
      const value = WHOLE.test(given) ? Number(given) : Number.NaN;
      if (value >= least && value <= most) return value;
      ctx.addIssue({ code: 'custom', message: `a whole number from ${least} to ${most} in decimal digits` });
      return z.NEVER;
    })
    .meta({ type: 'integer', minimum: least, maximum: most, ...(description !== undefined && { description }) });

/** The characters of the Basic Multilingual Plane that match `class_`, as the inside of a class. */
function rangesOf(class_: RegExp): string {
  let ranges = '';
  let first: number | undefined;
  for (let code = 0; code <= 0x10000; code++) {
    const isIn = code < 0x10000 && (code < 0xd800 || code > 0xdfff) && class_.test(String.fromCharCode(code));
    if (isIn) first ??= code;
    else if (first !== undefined) {
      ranges += first === code - 1 ? escaped(first) : `${escaped(first)}-${escaped(code - 1)}`;
      first = undefined;
    }
  }
  return ranges;
}

function escaped(code: number): string {
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : String.fromCharCode(code);
}
