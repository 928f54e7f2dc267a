import { Resolver, lookup as systemLookup } from 'node:dns/promises';
import { type ClientRequest, Agent as HttpAgent, request as httpRequest } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import type { LookupFunction } from 'node:net';
import type { Clock } from '../runtime/clock.js';
import { messageOf, VezaError } from '../runtime/errors.js';
import { withDeadline } from '../runtime/waiting.js';
import { literalOf, notPublic, type OutboundPolicy } from './outbound-address.js';

/** The time limit for one POST, from the name resolution to the end of the answer. */
export const OUTBOUND_TIMEOUT_MS = 10_000;
/**
 * Bytes of an answer that are read, at most: a receiver with a short answer can then finish it in
 * order. A longer answer is cut off.
 */
const MAX_ANSWER_BYTES = 1024;
const MAX_ANSWER_HEADER_BYTES = 8192;
const RESOLVE_TIMEOUT_MS = 2000;
/** A shorter limit, because a person is waiting for the check. */
const CHECK_TIMEOUT_MS = 3000;
const RESOLVE_TRIES = 2;

/** Every address of a name. Rejects when there is none. */
export type Resolve = (hostname: string) => Promise<readonly { address: string; family: number }[]>;

export type OutboundResult =
  | { readonly status: number; readonly retryAfterS: number | undefined }
  /** The receiver did not answer; `error` is a text for people. */
  | { readonly status: undefined; readonly error: string };

export interface Outbound {
  /**
   * Sends one POST. It follows no redirect, uses no proxy of the environment and keeps no
   * connection. It returns only the answer's status and `Retry-After`. Never rejects.
   */
  post(url: URL, headers: Readonly<Record<string, string>>, body: Buffer): Promise<OutboundResult>;
  /**
   * Rejects with `bad_request` when the name currently resolves to an address that is not public. A
   * name that is not found is accepted: it may exist later.
   */
  checkHost(url: URL): Promise<void>;
  /** Aborts the requests that are under way. */
  stop(): void;
}

export interface OutboundOptions {
  readonly policy: OutboundPolicy;
  readonly clock: Clock;
  readonly resolve?: Resolve;
}

export function createOutbound({ policy, clock, resolve = resolverFor(policy) }: OutboundOptions): Outbound {
  // The service's own agents: the global ones may use a proxy, which would resolve names itself.
  const agents = { http: new HttpAgent({ keepAlive: false }), https: new HttpsAgent({ keepAlive: false }) };
  const underWay = new Set<ClientRequest>();

  const addressesOf = async (hostname: string) => {
    const found = await resolve(hostname);
    if (found.length === 0) throw new Error(`${hostname} has no address`);
    // One address that is not public refuses the name: Node chooses which of the addresses it
    // connects to.
    if (!policy.isNamed(hostname) && !found.every(({ address }) => policy.admits(address))) throw new NotPublic(notPublic(hostname));
    return found;
  };

  // The connection itself calls this, so the addresses that are checked are the ones that it
  // connects to, whatever the name resolved to before.
  const lookup: LookupFunction = (hostname, options, done) => {
    addressesOf(hostname).then(
      (found) => {
        if (options.all) done(null, [...found]);
        else done(null, found[0]!.address, found[0]!.family);
      },
      (error) => done(error, ''),
    );
  };

  return {
    post: (url, headers, body) =>
      new Promise((resolve) => {
        let request: ClientRequest | undefined;
        let status: OutboundResult | undefined;
        let cancel = () => {};
        const end = (result: OutboundResult) => {
          cancel();
          if (request) underWay.delete(request);
          request?.destroy();
          resolve(result);
        };
        const failed = (error: string) => end(status ?? { status: undefined, error });
        try {
          policy.checkUrl(url.href);
          const options = {
            method: 'POST',
            headers: { ...headers, 'Content-Length': body.length },
            lookup,
            maxHeaderSize: MAX_ANSWER_HEADER_BYTES,
          };
          request =
            url.protocol === 'https:'
              ? httpsRequest(url, { ...options, agent: agents.https })
              : httpRequest(url, { ...options, agent: agents.http });
        } catch (error) {
          failed(messageOf(error));
          return;
        }
        underWay.add(request);
        cancel = clock.after(OUTBOUND_TIMEOUT_MS, () => failed(`no answer within ${OUTBOUND_TIMEOUT_MS / 1000} s`));
        request.on('error', (error) => failed(reasonOf(error)));
        // This also covers a receiver that closes without an answer or an error.
        request.on('close', () => failed('the connection was closed without an answer'));
        request.on('response', (response) => {
          status = { status: response.statusCode ?? 0, retryAfterS: retryAfterOf(response.headers['retry-after'], clock.wallMs()) };
          let bytes = 0;
          response.on('data', (chunk: Buffer) => {
            bytes += chunk.length;
            if (bytes > MAX_ANSWER_BYTES) failed('');
          });
          response.on('error', () => failed(''));
          response.on('end', () => failed(''));
        });
        request.end(body);
      }),

    async checkHost(url) {
      if (literalOf(url.hostname) !== undefined || policy.isNamed(url.hostname)) return;
      try {
        await withDeadline(clock, CHECK_TIMEOUT_MS, addressesOf(url.hostname), () => undefined);
      } catch (error) {
        if (error instanceof NotPublic) throw new VezaError('bad_request', `url: ${error.message}`, { details: { at: 'body.url' } });
      }
    },

    stop() {
      for (const request of underWay) request.destroy();
      agents.http.destroy();
      agents.https.destroy();
    },
  };
}

class NotPublic extends Error {}

/**
 * Resolves names that users typed with c-ares. `getaddrinfo` would occupy one of the four threads
 * that file access needs, for as long as the user's name server likes, and would also read
 * `/etc/hosts`, which is not meant for users. Names that the operator allowed are resolved by the
 * system. `servers`: name servers to use instead of the system's.
 */
export function resolverFor(policy: OutboundPolicy, servers?: readonly string[]): Resolve {
  const resolver = new Resolver({ timeout: RESOLVE_TIMEOUT_MS, tries: RESOLVE_TRIES });
  if (servers) resolver.setServers(servers);
  return async (hostname) => {
    if (policy.isNamed(hostname)) return systemLookup(hostname, { all: true });
    const [v4, v6] = await Promise.allSettled([resolver.resolve4(hostname), resolver.resolve6(hostname)]);
    const found = [
      ...(v4.status === 'fulfilled' ? v4.value.map((address) => ({ address, family: 4 })) : []),
      ...(v6.status === 'fulfilled' ? v6.value.map((address) => ({ address, family: 6 })) : []),
    ];
    if (found.length === 0 && v4.status === 'rejected') throw v4.reason;
    return found;
  };
}

/** RFC 9110 5.6.7: IMF-fixdate, and the two obsolete formats. All are in GMT. */
const HTTP_DATE =
  /^(?:[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT|[A-Z][a-z]{5,8}, \d{2}-[A-Z][a-z]{2}-\d{2} \d{2}:\d{2}:\d{2} GMT|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2} \d{4})$/;

/**
 * `Retry-After` (RFC 9110 10.2.3) in seconds from now; undefined when it is missing or malformed.
 */
export function retryAfterOf(given: string | undefined, nowMs: number): number | undefined {
  const text = given?.trim() ?? '';
  // A large number is accepted: the caller has its own limit.
  if (/^\d{1,300}$/.test(text)) return Number(text);
  if (!HTTP_DATE.test(text)) return undefined;
  const atMs = Date.parse(text.endsWith('GMT') ? text : `${text} GMT`);
  return Number.isNaN(atMs) ? undefined : Math.max(0, Math.ceil((atMs - nowMs) / 1000));
}

/** Some errors that combine several addresses have no message. */
function reasonOf(error: Error): string {
  const { code } = error as NodeJS.ErrnoException;
  return error.message || (code ?? 'the connection failed');
}
