/** Ends the line, or turns its direction round: what is written after it would not be seen as it is. Nor half a character. */
const UNSAFE = '\\p{Cc}\\p{Cs}\\p{Zl}\\p{Zp}\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069';
/** A space, or nothing at all; U+2800 is a pattern of Braille without a dot. */
const UNSEEN = '\\p{Z}\\p{Cf}\\p{Default_Ignorable_Code_Point}\\u2800';

/** Text of one line that nobody mistakes for another: a name, a title. Also a pattern of the API's description. */
export const PLAIN_LINE = new RegExp(`^[^${UNSAFE}]*$`, 'u');
const SEEN = new RegExp(`[^${UNSAFE}${UNSEEN}]`, 'u');

/** Whether there is something to be seen of it. */
export const isSeen = (text: string): boolean => SEEN.test(text);
