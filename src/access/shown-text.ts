/**
 * Characters that end the line or change the direction of text, so that the following text would
 * look different. Unpaired surrogates are included.
 */
const UNSAFE = '\\p{Cc}\\p{Cs}\\p{Zl}\\p{Zp}\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069';
/**
 * Characters that show nothing: spaces, ignorable characters, and U+2800, the Braille pattern
 * without dots.
 */
const UNSEEN = '\\p{Z}\\p{Cf}\\p{Default_Ignorable_Code_Point}\\u2800';

/**
 * One line of text that cannot disguise the text around it: a name, a title. The API's description
 * contains the pattern.
 */
export const PLAIN_LINE = new RegExp(`^[^${UNSAFE}]*$`, 'u');
const SEEN = new RegExp(`[^${UNSAFE}${UNSEEN}]`, 'u');

/** Whether the text has at least one visible character. */
export const isSeen = (text: string): boolean => SEEN.test(text);
