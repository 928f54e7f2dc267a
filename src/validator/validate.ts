import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { type Clock, SystemClock } from '../runtime/clock.js';
import { messageOf } from '../runtime/errors.js';
import { sleep } from '../runtime/waiting.js';
import { announced, checkDash, clockUrl, durationMs, readMpd } from './dash.js';
import { checkHls } from './hls.js';
import { applyDelta, listed, type MediaPlaylist, PLAYLIST_MAX_CHARS, parsePlaylist, positionOf, type Segment } from './playlist.js';
import { type Observation, Report, textOf } from './report.js';

/**
 * `npm run validate -- URL`: follows a live or recorded HLS or DASH presentation as a strict
 * client, and checks what it observes by the rules in `hls.ts` and `dash.ts`. Only this file makes
 * requests; the rules are pure functions.
 *
 * Exit status 0: no breach. 1: at least one breach, printed one per line, or nothing to check. 2:
 * wrong arguments.
 */

const USAGE = 'usage: npm run validate -- URL [--duration SECONDS] [--json]\n  URL: of a multivariant or media playlist, or an MPD';
const DEFAULT_DURATION_S = 20;
const MAX_DURATION_S = 3600;

/** What a hostile server can make the validator do at most. */
const LIMITS = { answerBytes: 16 * 1024 * 1024, totalBytes: 512 * 1024 * 1024, requests: 50_000, variants: 16, samples: 24 };
/** A server answers a blocked request with 503 after three target durations; this is longer. */
const REQUEST_TIMEOUT_MS = 30_000;
/** Requests that the validator abandons for rule 28. */
const ABANDONED = 8;

export interface ValidateOptions {
  /** A live presentation is followed for this long. */
  readonly durationS: number;
  readonly clock: Clock;
}

/** Checks a presentation. Rejects only when the first answer is neither a playlist nor an MPD. */
export async function validate(url: string, options: ValidateOptions): Promise<Report> {
  const visit = new Visit(options);
  const first = await visit.get(url);
  const body = textOf(first);
  const report = new Report();
  if (body.startsWith('#EXTM3U')) {
    await visit.hls(first);
    checkHls(visit.observations, report);
  } else if (readMpd(body)) {
    await visit.dash(first);
    checkDash(visit.observations, report);
  } else {
    throw new Error(first.status === 0 ? `no answer from ${url}` : `${url} answered ${first.status} and neither a playlist nor an MPD`);
  }
  report.count('requests', visit.observations.length);
  if (visit.exhausted) report.breach('limit', url, 'more requests or bytes than the validator is willing to take');
  return report;
}

class Visit {
  readonly observations: Observation[] = [];
  exhausted = false;
  readonly #clock: Clock;
  readonly #deadlineMs: number;
  readonly #asked = new Set<string>();
  #bytes = 0;
  #requests = 0;

  constructor(options: ValidateOptions) {
    this.#clock = options.clock;
    this.#deadlineMs = options.clock.monotonicMs() + options.durationS * 1000;
  }

  get #over(): boolean {
    return this.exhausted || this.#clock.monotonicMs() >= this.#deadlineMs;
  }

  /**
   * Sends a request. Status 0 means that there was no answer, or one that is too long. `abandonMs`:
   * the request is abandoned after this long. Never rejects.
   */
  async get(url: string, abandonMs?: number): Promise<Observation> {
    const sentMs = this.#clock.monotonicMs();
    const aborter = new AbortController();
    const cancel = this.#clock.after(abandonMs ?? REQUEST_TIMEOUT_MS, () => aborter.abort());
    let [status, headers, body]: [number, Record<string, string>, Uint8Array] = [0, {}, new Uint8Array()];
    if (++this.#requests > LIMITS.requests || this.#bytes > LIMITS.totalBytes) this.exhausted = true;
    try {
      if (!this.exhausted) {
        const answer = await fetch(url, { signal: aborter.signal, headers: { origin: 'https://validator.invalid' } });
        body = await this.#read(answer);
        status = answer.status;
        headers = Object.fromEntries(answer.headers);
      }
    } catch {
      // Status 0 stands for the missing answer.
      aborter.abort();
    } finally {
      cancel();
    }
    const abandoned = abandonMs !== undefined && status === 0;
    const atMs = this.#clock.monotonicMs();
    const observation: Observation = { url, sentMs, atMs, status, headers, body, ...(abandoned && { abandoned }) };
    this.observations.push(observation);
    return observation;
  }

  async #read(answer: Response): Promise<Uint8Array> {
    const chunks: Uint8Array[] = [];
    let size = 0;
    for await (const chunk of answer.body ?? []) {
      size += chunk.byteLength;
      this.#bytes += chunk.byteLength;
      if (size > LIMITS.answerBytes || this.#bytes > LIMITS.totalBytes) throw new Error('too long');
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  }

  /** Requests a file, unless it was requested before. */
  async #once(url: string): Promise<void> {
    if (this.#asked.has(url)) return;
    this.#asked.add(url);
    await this.get(url);
  }

  async hls(first: Observation): Promise<void> {
    const playlist = parsePlaylist(textOf(first));
    if (playlist.kind === 'media') return this.#followPlaylist(first, new Set());
    const urls = [...new Set(playlist.variants.map((variant) => absolute(variant.uri, first.url)))].slice(0, LIMITS.variants);
    const starts = await Promise.all(urls.map((url) => this.get(url)));
    const probed = new Set<Observation>();
    const live = starts.find((start) => readMedia(start)?.partTargetS !== undefined && !readMedia(start)?.ended);
    if (live) probed.add(live);
    await Promise.all(starts.map((start) => this.#followPlaylist(start, probed)));
    await this.get(first.url);
  }

  async #followPlaylist(start: Observation, probed: Set<Observation>): Promise<void> {
    const playlist = readMedia(start);
    if (!playlist) return;
    await this.#inits(playlist, start.url);
    if (playlist.ended) return this.#sample(playlist, start.url);
    const last = playlist.partTargetS === undefined ? await this.#poll(playlist, start.url) : await this.#reload(playlist, start.url);
    if (playlist.partTargetS === undefined || last.ended) return;
    if (probed.size === 0 || probed.has(start)) await this.#probe(playlist, last, start.url);
  }

  async #inits(playlist: MediaPlaylist, base: string): Promise<void> {
    const maps = new Set(listed(playlist).flatMap((segment) => (segment.map === undefined ? [] : [segment.map])));
    await Promise.all([...maps].slice(0, LIMITS.samples).map((map) => this.#once(absolute(map, base))));
  }

  /**
   * Follows a low-latency playlist by blocking reloads, every other one a delta update. The hinted
   * part is requested before it exists.
   */
  async #reload(start: MediaPlaylist, base: string): Promise<MediaPlaylist> {
    let playlist = start;
    for (let turn = 0; !this.#over && !playlist.ended; turn++) {
      const end = positionOf(playlist);
      const [msn, part] = playlist.open ? [end.msn, end.part + 1] : [end.msn + 1, 0];
      const skip = turn % 2 === 0 && playlist.serverControl?.has('CAN-SKIP-UNTIL') ? '&_HLS_skip=YES' : '';
      const hint = playlist.hints[0]?.uri;
      const [answer] = await Promise.all([
        this.get(`${base}?_HLS_msn=${msn}&_HLS_part=${part}${skip}`),
        hint === undefined ? undefined : this.#once(absolute(hint, base)),
      ]);
      const sent = readMedia(answer);
      const now = sent && applyDelta(playlist, sent);
      if (!now) {
        // The whole playlist is requested once. A server that does not answer that either is not
        // asked again.
        const whole = readMedia(await this.get(base));
        if (!whole) return playlist;
        playlist = whole;
        await sleep(this.#clock, 500);
        continue;
      }
      await this.#inits(now, base);
      await this.#fetchNew(playlist, now, base);
      playlist = now;
    }
    return playlist;
  }

  async #poll(start: MediaPlaylist, base: string): Promise<MediaPlaylist> {
    let playlist = start;
    while (!this.#over && !playlist.ended) {
      await sleep(this.#clock, Math.min(Math.max(playlist.targetDurationS, 1), 10) * 1000);
      const now = readMedia(await this.get(base));
      if (!now) break;
      await this.#inits(now, base);
      await this.#fetchNew(playlist, now, base);
      playlist = now;
    }
    return playlist;
  }

  /** Requests the segments that are new since `before`, and their parts. */
  async #fetchNew(before: MediaPlaylist, now: MediaPlaylist, base: string): Promise<void> {
    const end = positionOf(before);
    const urls: string[] = [];
    const fresh = (segment: Segment) => segment.number > end.msn || (segment.number === end.msn && before.open !== undefined);
    for (const segment of listed(now).filter(fresh).slice(-LIMITS.samples)) {
      if (segment.gap) continue;
      for (const part of segment.parts.slice(-LIMITS.samples)) urls.push(part.uri);
      if (segment.uri !== '') urls.push(segment.uri);
    }
    await Promise.all(urls.map((uri) => this.#once(absolute(uri, base))));
  }

  /** Sends requests that a good client does not send, for rules 8, 19 and 24 to 28. */
  async #probe(first: MediaPlaylist, last: MediaPlaylist, base: string): Promise<void> {
    let playlist = last;
    const again = async () => {
      playlist = readMedia(await this.get(base)) ?? playlist;
    };
    const complete = () => playlist.segments.at(-1)?.number ?? 0;
    await again();
    for (const query of ['_HLS_part=1', '_HLS_msn=x', '_HLS_msn=-1', `_HLS_msn=${complete()}&_HLS_part=x`])
      await this.get(`${base}?${query}`);
    await again();
    await this.get(`${base}?_HLS_msn=${complete() + 30}`);
    await this.get(`${base}?_HLS_msn=${complete() + 1}&_HLS_part=10000`);
    await this.get(`${base}?_HLS_msn=${playlist.mediaSequence}`);
    await this.get(`${base}?_HLS_msn=${Math.max(0, complete() - 1)}&_HLS_part=0`);
    await again();
    // Requests a part past the end of its segment, then a whole segment.
    const parts = Math.max(...playlist.segments.map((segment) => segment.parts.length));
    await this.get(`${base}?_HLS_msn=${complete() + 1}&_HLS_part=${Math.max(1, parts)}`);
    await again();
    await this.get(`${base}?_HLS_msn=${complete() + 1}`);
    await again();
    const far = `${base}?_HLS_msn=${complete() + 2}`;
    await Promise.all(Array.from({ length: ABANDONED }, () => this.get(far, 100)));
    await again();
    const present = new Set(listed(playlist).flatMap((segment) => [segment.uri, ...segment.parts.map((part) => part.uri)]));
    const removed = [first, last].flatMap((old) => [
      ...old.segments.filter((segment) => !segment.gap && !present.has(segment.uri)).slice(-2),
      ...listed(old)
        .flatMap((segment) => segment.parts.filter((part) => !present.has(part.uri)))
        .slice(-2),
    ]);
    for (const { uri } of removed) await this.get(absolute(uri, base));
  }

  /** Samples a recording: its ends, segments around discontinuities, and some between them. */
  async #sample(playlist: MediaPlaylist, base: string): Promise<void> {
    const { segments } = playlist;
    const wanted = new Set([0, 1, segments.length - 2, segments.length - 1]);
    for (const [index, segment] of segments.entries())
      if (segment.discontinuity && wanted.size < LIMITS.samples / 2) wanted.add(index - 1).add(index);
    for (let pick = 1; pick < 8; pick++) wanted.add(Math.floor((segments.length * pick) / 8));
    for (const index of [...wanted].slice(0, LIMITS.samples)) {
      const segment = segments[index];
      if (segment && !segment.gap) await this.#once(absolute(segment.uri, base));
    }
  }

  async dash(first: Observation): Promise<void> {
    let mpd = readMpd(textOf(first));
    let clockOffsetMs: number | undefined;
    while (mpd) {
      const dynamic = mpd.attributes.get('type') === 'dynamic';
      const clock = clockUrl(mpd, first.url);
      if (dynamic && clock !== undefined && clockOffsetMs === undefined) {
        const answer = await this.get(clock);
        clockOffsetMs = Date.parse(textOf(answer).trim()) - this.#clock.monotonicMs();
      }
      const offsetMs =
        clockOffsetMs === undefined || Number.isNaN(clockOffsetMs) ? this.#clock.wallMs() - this.#clock.monotonicMs() : clockOffsetMs;
      const nowMs = this.#clock.monotonicMs() + offsetMs;
      const segments = announced(mpd, first.url, nowMs, dynamic ? 3 : 6).slice(-LIMITS.samples * LIMITS.variants);
      await Promise.all([...new Set(segments.map((segment) => segment.initUrl))].slice(0, LIMITS.samples).map((url) => this.#once(url)));
      await Promise.all(segments.map((segment) => this.#once(segment.url)));
      const updateMs = durationMs(mpd.attributes.get('minimumUpdatePeriod'));
      if (!dynamic || Number.isNaN(updateMs) || this.#over) return;
      await sleep(this.#clock, Math.min(Math.max(updateMs, 500), 10_000));
      mpd = readMpd(textOf(await this.get(first.url)));
    }
  }
}

function readMedia(observation: Observation): MediaPlaylist | undefined {
  if (observation.status !== 200 || observation.body.byteLength > PLAYLIST_MAX_CHARS) return undefined;
  const playlist = parsePlaylist(textOf(observation));
  return playlist.kind === 'media' ? playlist : undefined;
}

/**
 * Returns the absolute address. One that cannot be resolved becomes an address that fails when it
 * is requested.
 */
function absolute(uri: string, base: string): string {
  const resolved = URL.canParse(uri, base) ? new URL(uri, base) : undefined;
  return resolved && /^https?:$/.test(resolved.protocol) ? resolved.href : `http://invalid.invalid/${encodeURIComponent(uri)}`;
}

/** Replaces control characters, so that a text of the server cannot control the terminal. */
const printable = (line: string) => line.replace(/\p{Cc}/gu, '?').slice(0, 1000);

/** Runs the command. Resolves with the exit status. */
export async function main(args: readonly string[], print: (line: string) => void, clock: Clock = new SystemClock()): Promise<number> {
  let url: string | undefined;
  let durationS: number;
  let json: boolean;
  try {
    const parsed = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: { duration: { type: 'string' }, json: { type: 'boolean', default: false } },
    });
    url = parsed.positionals[0];
    durationS = Number(parsed.values.duration ?? DEFAULT_DURATION_S);
    json = parsed.values.json;
    if (parsed.positionals.length !== 1 || !url || !URL.canParse(url) || !/^https?:/.test(url))
      throw new Error('one http address is needed');
    if (!(durationS >= 1 && durationS <= MAX_DURATION_S)) throw new Error(`--duration is 1 to ${MAX_DURATION_S} seconds`);
  } catch (error) {
    print(`${messageOf(error)}\n${USAGE}`);
    return 2;
  }
  let report: Report;
  try {
    report = await validate(url, { durationS, clock });
  } catch (error) {
    print(json ? JSON.stringify({ url, error: messageOf(error) }) : messageOf(error));
    return 1;
  }
  const { breaches, repeated, checked } = report;
  if (json) print(JSON.stringify({ url, breaches, repeated, checked: Object.fromEntries(checked) }, undefined, 2));
  else {
    for (const { rule, text, where } of breaches) print(printable(`rule ${rule}: ${text} (${where})`));
    if (repeated > 0) print(`and ${repeated} more of the same`);
    const what = [...checked].map(([name, count]) => `${count} ${name}`).join(', ');
    print(breaches.length === 0 ? `no rule broken; checked ${what}` : `rules broken: ${breaches.length} times; checked ${what}`);
  }
  return breaches.length === 0 ? 0 : 1;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  process.exitCode = await main(process.argv.slice(2), (line) => console.log(line));
}
