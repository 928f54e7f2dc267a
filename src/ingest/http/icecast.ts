import type { TitleUpdate } from '../source.js';
import { decodePercent, splitSong, titleUpdate } from './titles.js';
import { type Framing, HttpRefusal, type IngestAnswer, type RequestHead } from './wire.js';

/**
 * What Icecast adds to HTTP: `PUT` or `SOURCE /{channel}`, and the metadata call. Encoders have one
 * password field for the key. Most send the user name `source`, some whatever their user has
 * entered, so only the password is checked.
 */

const REALM = 'Basic realm="Veza", charset="UTF-8"';

/**
 * Returns the stream key of a Basic authorization (RFC 7617). Throws HttpRefusal 401 when there is
 * none.
 */
export function icecastKey(head: RequestHead): string {
  const match = /^Basic +([A-Za-z0-9+/]+=*)$/i.exec(head.headers.get('authorization') ?? '');
  const pair = match ? Buffer.from(match[1]!, 'base64').toString('utf8') : '';
  const colon = pair.indexOf(':');
  if (colon < 0 || colon === pair.length - 1) {
    throw new HttpRefusal(401, 'unauthorized', 'the stream key is missing: it is the password, the user is "source"');
  }
  return pair.slice(colon + 1);
}

export function icecastRefusal(refusal: HttpRefusal): IngestAnswer {
  return {
    status: refusal.status,
    headers: {
      'Content-Type': 'text/plain; charset=utf-8',
      ...(refusal.status === 401 ? { 'WWW-Authenticate': REALM } : {}),
      ...refusal.headers,
    },
    body: `${refusal.message}\n`,
  };
}

export interface MetadataCall {
  readonly channel: string;
  /** Undefined when the title is empty, as encoders send it between songs; then nothing changes. */
  readonly update: TitleUpdate | undefined;
}

export const formTooLarge = (limitBytes: number) =>
  new HttpRefusal(413, 'payload_too_large', `a metadata call is at most ${limitBytes} bytes long`);

/** Checks the head of a metadata call by POST. Throws HttpRefusal 411, 413 or 415. */
export function checkForm(head: RequestHead, framing: Framing, limitBytes: number): void {
  if (framing.kind === 'none' && head.query === '')
    throw new HttpRefusal(411, 'length_required', 'send the form with Content-Length, or chunked');
  if (framing.kind === 'none' || (framing.kind === 'length' && framing.bytes === 0)) return;
  const type = (head.headers.get('content-type') ?? '').split(';', 1)[0]!.trim().toLowerCase();
  const isCoded = (head.headers.get('content-encoding') ?? 'identity').toLowerCase() !== 'identity';
  if (type !== 'application/x-www-form-urlencoded' || isCoded)
    throw new HttpRefusal(415, 'unsupported_media', 'a metadata call is posted as application/x-www-form-urlencoded, and not compressed');
  if (framing.kind === 'length' && framing.bytes > limitBytes) throw formTooLarge(limitBytes);
}

/**
 * Reads the fields of `/admin/metadata`, from a query or a form. `song` is split at " - "; `title`
 * and `artist` take precedence over it. Throws HttpRefusal 400 for another mode and for a mount
 * that is no channel.
 */
export function readMetadataCall(query: string, channelOf: (path: string) => string | undefined): MetadataCall {
  const raw = new Map<string, string>();
  for (const pair of query.split('&')) {
    const equals = pair.indexOf('=');
    const name = decodePercent(equals < 0 ? pair : pair.slice(0, equals)).toLowerCase();
    if (!raw.has(name)) raw.set(name, equals < 0 ? '' : pair.slice(equals + 1));
  }
  if (raw.get('mode') !== 'updinfo') throw new HttpRefusal(400, 'bad_request', 'the only mode known here is updinfo');
  const channel = channelOf(decodePercent(raw.get('mount') ?? ''));
  if (channel === undefined) throw new HttpRefusal(400, 'bad_request', 'mount has to be a slash and the channel');
  const text = (name: string) => decodePercent(raw.get(name) ?? '', raw.get('charset'));
  const update = titleUpdate(text('title'), text('artist')) ?? splitSong(text('song'));
  return { channel, update };
}

/** The answer to a metadata call that libshout, BUTT and other clients look for. */
export const METADATA_DONE: IngestAnswer = {
  status: 200,
  headers: { 'Content-Type': 'text/xml; charset=utf-8' },
  body: '<?xml version="1.0"?>\n<iceresponse><message>Metadata update successful</message><return>1</return></iceresponse>\n',
};
