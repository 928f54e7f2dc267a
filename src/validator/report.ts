/** What the validator observes and reports. The HLS, DASH and CMAF rules share this file. */

/** A request and its whole answer. */
export interface Observation {
  /** The absolute URL of the request. */
  readonly url: string;
  /** When the request was sent, in milliseconds of one monotonic clock. */
  readonly sentMs: number;
  /** When the last byte of the answer arrived, on the same clock. */
  readonly atMs: number;
  readonly status: number;
  /** Header names are in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
  /** True when the validator itself closed the connection while it waited: there is no answer. */
  readonly abandoned?: boolean;
}

export interface Breach {
  /** 1 to 33 for the HLS rules, D1 and up for the DASH rules, H1 and up for the headers. */
  readonly rule: string;
  readonly text: string;
  readonly where: string;
}

/** Breaches above this number are counted, but not kept. */
const MAX_BREACHES = 1000;

export class Report {
  readonly breaches: Breach[] = [];
  /** Breaches that were counted and not kept: repetitions, and those above the limit. */
  repeated = 0;
  readonly #seen = new Set<string>();
  /** How many items of each kind were checked, for the summary. */
  readonly checked = new Map<string, number>();

  breach(rule: number | string, where: string, text: string): void {
    const key = `${rule} ${text} ${where}`;
    if (this.#seen.has(key) || this.breaches.length >= MAX_BREACHES) {
      this.repeated += 1;
      return;
    }
    this.#seen.add(key);
    this.breaches.push({ rule: String(rule), text, where });
  }

  count(what: string, by = 1): void {
    this.checked.set(what, (this.checked.get(what) ?? 0) + by);
  }
}

export const textOf = (observation: Observation) => new TextDecoder().decode(observation.body);

/** Returns the address without its query, as breaches name it. */
export const pathOf = (url: string) => {
  try {
    return new URL(url).pathname;
  } catch {
    return url;
  }
};

type AnswerKind = 'media' | 'multivariant' | 'playlist' | 'manifest';

const TYPES: Readonly<Record<AnswerKind, RegExp>> = {
  media: /^audio\/(mp4|mpeg|aac)$/,
  multivariant: /^application\/vnd\.apple\.mpegurl$/i,
  playlist: /^application\/vnd\.apple\.mpegurl$/i,
  manifest: /^application\/dash\+xml$/,
};

/**
 * Checks the headers of an answer.
 * - H1: Cache-Control suits the kind of answer.
 * - H2: `Access-Control-Allow-Origin: *`.
 * - H3: Content-Type.
 * - H4: a compressed answer has `Vary: Accept-Encoding`.
 */
export function checkHeaders(observation: Observation, kind: AnswerKind, report: Report): void {
  if (observation.abandoned) return;
  const { headers, status, url } = observation;
  const where = pathOf(url);
  const cacheControl = headers['cache-control'] ?? '';
  const directives = new Map(
    cacheControl.split(',').map((directive): [string, string] => {
      const [name = '', value = ''] = directive.trim().toLowerCase().split('=');
      return [name, value];
    }),
  );
  report.count('headers');
  if (headers['access-control-allow-origin'] !== '*') report.breach('H2', where, 'Access-Control-Allow-Origin is not *');
  if (status >= 400) {
    if (!directives.has('no-store')) report.breach('H1', where, `status ${status} with Cache-Control "${cacheControl}"`);
    return;
  }
  const maxAge = Number(directives.get('max-age') ?? Number.NaN);
  const blocked = url.includes('_HLS_msn=');
  // Playlists of a recording only change when it is deleted.
  const longestS = where.includes('/vod/') ? 86_400 : kind === 'multivariant' || (kind === 'playlist' && blocked) ? 60 : 2;
  const wrong = kind === 'media' ? !(maxAge >= 86_400 && directives.has('immutable')) : !(maxAge <= longestS);
  if (wrong) report.breach('H1', where, `Cache-Control "${cacheControl}" does not suit a ${kind}${blocked ? ' that was waited for' : ''}`);
  const type = (headers['content-type'] ?? '').split(';', 1)[0]!.trim();
  if (!TYPES[kind].test(type)) report.breach('H3', where, `Content-Type "${type}" for a ${kind}`);
  if (headers['content-encoding'] !== undefined && !/accept-encoding/i.test(headers.vary ?? '')) {
    report.breach('H4', where, 'compressed without Vary: Accept-Encoding');
  }
}
