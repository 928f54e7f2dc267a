import { splitSong, titleUpdate } from '../http/titles.js';
import type { TitleUpdate } from '../source.js';
import { type Amf, type AmfLimits, decodeAmf0 } from './amf0.js';

/**
 * The titles in a data message: in `onMetaData`, with or without `@setDataFrame`, and in whatever other object carries one.
 * Malformed metadata is no reason to end a show: it has no titles.
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

/** A stream's name without its query. */
export const nameOf = (value: Amf): string => textOf(value).replace(/\?.*$/s, '');

export const textOf = (value: Amf): string => (typeof value === 'string' ? value : '');
