import type { TitleUpdate } from '../source.js';

/** Characters (UTF-16 units) kept of a title and of an artist; the rest is cut off, since nobody reads an error for it. */
export const MAX_TITLE_CHARS = 1000;

/** One line of visible text: no control characters, no line or paragraph separators, no lone surrogates. */
export function cleanText(text: string): string {
  const visible = text
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
    .replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\ufeff]+/g, ' ')
    .replace(/ {2,}/g, ' ')
    .trim();
  // Through UTF-8 and back: half a surrogate pair becomes U+FFFD.
  return Buffer.from(visible.slice(0, MAX_TITLE_CHARS)).toString().trim();
}

/** Undefined when no title is left after cleaning. */
export function titleUpdate(title: string, artist = ''): TitleUpdate | undefined {
  const cleanTitle = cleanText(title);
  const cleanArtist = cleanText(artist);
  if (!cleanTitle) return undefined;
  return cleanArtist ? { title: cleanTitle, artist: cleanArtist } : { title: cleanTitle };
}

/** Splits what encoders send as one text, at the first " - ". */
export function splitSong(song: string): TitleUpdate | undefined {
  const text = cleanText(song.slice(0, 4 * MAX_TITLE_CHARS));
  const dash = text.indexOf(' - ');
  return (dash > 0 ? titleUpdate(text.slice(dash + 3), text.slice(0, dash)) : undefined) ?? titleUpdate(text);
}

/** Percent-encoded bytes as text: in `charset` when it is a known one, else UTF-8 where that is valid and Latin-1 where not. */
export function decodePercent(encoded: string, charset?: string): string {
  const bytes = Buffer.from(
    encoded.replaceAll('+', ' ').replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
    'latin1',
  );
  if (charset) {
    try {
      return new TextDecoder(charset.trim()).decode(bytes);
    } catch {
      // Not a charset that is known: guessed as without.
    }
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder('latin1').decode(bytes);
  }
}
