import { z } from 'zod';
import type { ErrorCode } from '../../runtime/errors.js';
import { characterCount } from '../../runtime/text.js';

/**
 * Schemas of what clients send. Each checks what it prints into the API's description, and nothing else, so that a validator of the client's and
 * the server refuse the same.
 *
 * - Lengths are characters (code points), as JSON Schema counts them (Validation 6.3.1). zod counts UTF-16 units.
 * - Patterns keep to what ECMA-262 without flags, RE2 (Go) and Python's `re` read in the same way (JSON Schema Core 6.4): no `\p`, `\w`, `\d`, `\s`, `\u`,
 *   no lookaround; characters stand for themselves or are `\xHH`. A rule that cannot be written so is the server's alone, and the description says it.
 */
export interface TextRules {
  /** Characters; 1 unless given. */
  readonly min?: number;
  readonly max: number;
  /** Any text without U+0000, unless given. */
  readonly pattern?: string;
  /** An annotation for clients; what is checked is `pattern`. */
  readonly format?: 'email' | 'password' | 'uri';
  /** White space around it is taken off once it is checked. */
  readonly trimmed?: true;
  /** In UTF-8. JSON Schema has no word for it: the description says it, and `x-max-bytes`. */
  readonly maxBytes?: number;
  readonly description?: string;
  /** What more text than that is refused with; `bad_request` unless given. */
  readonly tooLong?: { readonly code: ErrorCode; readonly refusal: string };
  /** What no pattern can say. */
  readonly also?: { isGood(text: string): boolean; readonly message: string };
}

/** Control characters, U+0000 among them (`\p{Cc}`). */
const CONTROLS = '\\x00-\\x1f\\x7f-\\x9f';
/** The same but for tab, line feed and carriage return. */
const CONTROLS_BUT_LINES = '\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f';
/** `\p{Zl}\p{Zp}` */
const SEPARATORS = '\u2028\u2029';
/** What turns the direction of text round. */
const DIRECTIONS = '\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069';
/** What `String.prototype.trim` takes off. */
const BLANKS = '\\x09-\\x0d\\x20\\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff';
/**
 * What is a space or nothing at all to the eye, of the Basic Multilingual Plane: without the flag `u` a pattern sees others as two halves.
 * U+2800 is a pattern of Braille without a dot.
 */
const UNSEEN = rangesOf(/[\p{Z}\p{Cf}\p{Default_Ignorable_Code_Point}\u2800]/u);

const noneOf = (excluded: string) => `^[^${excluded}]*$`;
/** One character at least is none of `blank` either. */
const notBlank = (excluded: string, blank: string) => `^[^${excluded}]*[^${excluded}${blank}][^${excluded}]*$`;

export const PATTERNS = {
  any: noneOf('\\x00'),
  /** Something other than white space. */
  filled: notBlank('\\x00', BLANKS),
  noControls: noneOf(CONTROLS),
  /** No control character, and something other than white space. */
  song: notBlank(CONTROLS, BLANKS),
  /** One line in which something stands. */
  line: notBlank(CONTROLS + SEPARATORS, BLANKS),
  /** Several lines in which something stands. */
  lines: notBlank(CONTROLS_BUT_LINES, BLANKS),
  /** One line that nobody mistakes for another, and of which something is seen. */
  plainLine: notBlank(CONTROLS + SEPARATORS + DIRECTIONS, UNSEEN),
} as const;

/** Insides of classes, for patterns that are made elsewhere. */
export const PATTERN_PARTS = { controls: CONTROLS, unseen: UNSEEN } as const;

export function text(rules: TextRules): z.ZodString {
  const { min = 1, max, pattern = PATTERNS.any, format, trimmed, maxBytes, description, tooLong, also } = rules;
  const allowed = new RegExp(pattern, 'u');
  // Never fewer units than characters: what is far too long is not counted.
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

/** A whole number in a query, in decimal digits alone: `Number` takes `0x10`, `1e2`, ` 5` and nothing for numbers, too. */
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

/** Those characters of the Basic Multilingual Plane that `class_` has, as the inside of a class, written as they are. */
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
