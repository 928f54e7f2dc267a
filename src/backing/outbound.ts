import { Resolver, lookup as systemLookup } from 'node:dns/promises';
import { type ClientRequest, Agent as HttpAgent, request as httpRequest } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import type { LookupFunction } from 'node:net';
import type { Clock } from '../runtime/clock.js';
import { withDeadline } from '../runtime/deadline.js';
import { messageOf, VezaError } from '../runtime/errors.js';
import { literalOf, notPublic, type OutboundPolicy } from './outbound-address.js';

/** From the question for the address to the end of the answer. */
export const OUTBOUND_TIMEOUT_MS = 10_000;
/** What is read of an answer, so that a receiver that answers shortly can use its connection in order; the rest is not asked for. */
export const MAX_ANSWER_BYTES = 1024;
const MAX_ANSWER_HEADER_BYTES = 8192;
const RESOLVE_TIMEOUT_MS = 2000;
/** Somebody waits for this one. */
const CHECK_TIMEOUT_MS = 3000;
const RESOLVE_TRIES = 2;

/** Every address of a name. Rejects when there is none. */
export type Resolve = (hostname: string) => Promise<readonly { address: string; family: number }[]>;

export type OutboundResult =
  | { readonly status: number; readonly retryAfterS: number | undefined }
  /** Nothing was answered; for people. */
  | { readonly status: undefined; readonly error: string };

export interface Outbound {
  /**
   * One POST. No redirect is followed, no proxy of the environment is used, no connection is kept, and nothing of the answer but its status and
   * `Retry-After` is told. Never rejects.
   */
  post(url: URL, headers: Readonly<Record<string, string>>, body: Buffer): Promise<OutboundResult>;
  /** Rejects with `bad_request` when the name leads out of the public internet now. One that is not found passes: it may be there later. */
  checkHost(url: URL): Promise<void>;
  /** Breaks off what is under way. */
  stop(): void;
}

export interface OutboundOptions {
  readonly policy: OutboundPolicy;
  readonly clock: Clock;
  readonly resolve?: Resolve;
}

export function createOutbound({ policy, clock, resolve = resolverFor(policy) }: OutboundOptions): Outbound {
  // Of our own: the global ones may go through a proxy, which would resolve names by itself.
  const agents = { http: new HttpAgent({ keepAlive: false }), https: new HttpsAgent({ keepAlive: false }) };
  const underWay = new Set<ClientRequest>();

  const addressesOf = async (hostname: string) => {
    const found = await resolve(hostname);
    if (found.length === 0) throw new Error(`${hostname} has no address`);
    // One bad address among good ones is reason enough: which of them is taken is not ours to say.
    if (!policy.isNamed(hostname) && !found.every(({ address }) => policy.admits(address))) throw new NotPublic(notPublic(hostname));
    return found;
  };

  // Called by the connection itself: what is checked here is what is connected to, whatever the name said before.
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
        // Also one that hung up without a word.
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
 * Names that strangers typed are asked for by c-ares: `getaddrinfo` would hold one of the four threads that files need, for as long as
 * their name server likes; and what stands in `/etc/hosts` is not for them. Names of the operator are found as the system finds them.
 * `servers`: name servers other than the system's.
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

/** RFC 9110 5.6.7: IMF-fixdate, and the two forms of old servers, all of them in GMT. */
const HTTP_DATE =
  /^(?:[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT|[A-Z][a-z]{5,8}, \d{2}-[A-Z][a-z]{2}-\d{2} \d{2}:\d{2}:\d{2} GMT|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2} \d{4})$/;

/** `Retry-After` (RFC 9110 10.2.3), seconds from now; undefined: there is none, or it says nothing that can be kept to. */
export function retryAfterOf(given: string | undefined, nowMs: number): number | undefined {
  const text = given?.trim() ?? '';
  // However many digits: whoever heeds it has a limit of their own.
  if (/^\d{1,300}$/.test(text)) return Number(text);
  if (!HTTP_DATE.test(text)) return undefined;
  const atMs = Date.parse(text.endsWith('GMT') ? text : `${text} GMT`);
  return Number.isNaN(atMs) ? undefined : Math.max(0, Math.ceil((atMs - nowMs) / 1000));
}

/** Some errors of several addresses have no message of their own. */
function reasonOf(error: Error): string {
  const { code } = error as NodeJS.ErrnoException;
  return error.message || (code ?? 'the connection failed');
}
