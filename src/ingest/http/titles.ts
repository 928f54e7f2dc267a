import type { TitleUpdate } from '../source.js';

/**
 * A title and an artist are each cut to this many characters (UTF-16 units). They are not refused:
 * no person reads an encoder's error about a title.
 */
export const MAX_TITLE_CHARS = 1000;

/**
 * Makes one line of visible text: control characters and line separators become spaces, and a lone
 * surrogate becomes U+FFFD.
 */
export function cleanText(text: string): string {
  const visible = text
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
    .replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\ufeff]+/g, ' ')
    .replace(/ {2,}/g, ' ')
    .trim();
  // The way through UTF-8 replaces half a surrogate pair with U+FFFD.
  return Buffer.from(visible.slice(0, MAX_TITLE_CHARS)).toString().trim();
}

/** Returns the cleaned texts, or undefined when no title is left. */
export function titleUpdate(title: string, artist = ''): TitleUpdate | undefined {
  const cleanTitle = cleanText(title);
  const cleanArtist = cleanText(artist);
  if (!cleanTitle) return undefined;
  return cleanArtist ? { title: cleanTitle, artist: cleanArtist } : { title: cleanTitle };
}

/** Splits "artist - title" at the first " - ", as many encoders send both in one text. */
export function splitSong(song: string): TitleUpdate | undefined {
  const text = cleanText(song.slice(0, 4 * MAX_TITLE_CHARS));
  const dash = text.indexOf(' - ');
  return (dash > 0 ? titleUpdate(text.slice(dash + 3), text.slice(0, dash)) : undefined) ?? titleUpdate(text);
}

/**
 * Decodes percent-encoded bytes as text: in `charset` when that is known, otherwise as UTF-8 when
 * they are valid UTF-8, and as Latin-1 when not.
 */
export function decodePercent(encoded: string, charset?: string): string {
  const bytes = Buffer.from(
    encoded.replaceAll('+', ' ').replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
    'latin1',
  );
  if (charset) {
    try {
      return new TextDecoder(charset.trim()).decode(bytes);
    } catch {
      // The charset is unknown: it is guessed below, as without one.
    }
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder('latin1').decode(bytes);
  }
}
