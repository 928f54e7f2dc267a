import { splitSong, titleUpdate } from '../http/titles.js';
import type { TitleUpdate } from '../source.js';
import { type Amf, type AmfLimits, decodeAmf0 } from './amf0.js';

/**
 * Returns the titles in a data message: those in `onMetaData`, with or without `@setDataFrame`, and
 * in any other object. Malformed metadata does not end a broadcast: `onMalformed` is called, and
 * there are no titles.
 */
export function titlesOf(payload: Buffer, limits: AmfLimits, onMalformed: (error: unknown) => void): TitleUpdate[] {
  let values: Amf[];
  try {
    values = decodeAmf0(payload, limits);
  } catch (error) {
    onMalformed(error);
    return [];
  }
  const titles: TitleUpdate[] = [];
  for (const value of values) {
    if (!(value instanceof Map)) continue;
    const streamTitle = textOf(value.get('StreamTitle'));
    const update = streamTitle ? splitSong(streamTitle) : titleUpdate(textOf(value.get('title')), textOf(value.get('artist')));
    if (update) titles.push(update);
  }
  return titles;
}

/** Returns the name of a stream without its query. */
export const nameOf = (value: Amf): string => textOf(value).replace(/\?.*$/s, '');

export const textOf = (value: Amf): string => (typeof value === 'string' ? value : '');
