import { randomUUID } from 'node:crypto';
import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import { type ParsedUrlQuery, parse } from 'node:querystring';
import { Readable } from 'node:stream';
import Router from '@koa/router';
import Koa from 'koa';
import { z } from 'zod';
import type { Access } from '../access/access.js';
import type { Channel } from '../access/channels.js';
import { ANONYMOUS, type ChannelRole, judge, type Principal } from '../access/roles.js';
import type { Broadcasts } from '../library/broadcasts.js';
import { clientAddress } from '../runtime/addresses.js';
import { BoundedLog, type LineLog } from '../runtime/bounded-log.js';
import type { Clock } from '../runtime/clock.js';
import { ERROR_CODES, type ErrorCode, messageOf, VezaError } from '../runtime/errors.js';
import { answerDefect } from '../runtime/http-guard.js';
import type { Log } from '../runtime/log.js';
import type { Metrics } from '../runtime/metrics.js';
import { pathOf, queryOf } from '../runtime/request-head.js';
import { accountOperations } from './api/accounts/accounts.js';
import { apiKeyOperations } from './api/accounts/api-keys.js';
import { auditOperations } from './api/accounts/audit.js';
import { type MeOperationsOptions, meOperations } from './api/accounts/me.js';
import { sessionOperations } from './api/accounts/sessions.js';
import { signInOperations } from './api/accounts/sign-in.js';
import { twoFactorOperations } from './api/accounts/two-factor.js';
import { broadcastOperations } from './api/channels/broadcasts.js';
import { type Addresses, channelOperations, channelView, endGone, type LiveStatus } from './api/channels/channels.js';
import { encryptionKeyOperations } from './api/channels/encryption-keys.js';
import { type LinkSettings, linkOperations } from './api/channels/links.js';
import { memberOperations } from './api/channels/members.js';
import { playbackKeyOperations } from './api/channels/playback-keys.js';
import { webhookOperations } from './api/channels/webhooks.js';
import { documentEndpoint } from './api/document-endpoint.js';
import { keySetEndpoint } from './api/jwks.js';
import { type Client, checked, DEFAULT_PAGE, isAboutChannel, type Operation } from './api/openapi.js';
import { openApiDocument, printed } from './api/openapi-document.js';
import type { RoomsApi } from './api/rooms/room-access.js';
import { roomModerationOperations } from './api/rooms/room-moderation.js';
import { roomPeopleOperations } from './api/rooms/room-people.js';
import { roomTrialOperations } from './api/rooms/room-trial.js';
import { roomOperations } from './api/rooms/rooms.js';
import { conditionOf } from './http/conditions.js';
import { cors } from './http/cors.js';
import { type HealthCheck, sharedReadiness } from './http/health.js';
import { ApiLimits } from './http/limits.js';
import { PublicReads } from './http/public-reads.js';
import { methodNotAllowed, preconditionFailed, reads } from './http/reads.js';
import { readJson } from './http/request-body.js';
import { securityHeaders } from './http/security-headers.js';
import type { Pages } from './http/static.js';
import { Strangers } from './http/strangers.js';

export interface AppOptions {
  clock: Clock;
  log: Log;
  metrics: Metrics;
  version: string;
  addresses: Addresses;
  access: Access;
  broadcasts: Broadcasts;
  live: LiveStatus;
  /** Undefined: this process has no chat, and says so when it is asked about a room. */
  chat?: RoomsApi | undefined;
  /** `MAX_MESSAGE_SIZE`: bytes of a message’s text in UTF-8. */
  maxMessageBytes: number;
  /** What the chat keeps about an account, also where this process has no chat. */
  chatRecords: MeOperationsOptions['chatRecords'];
  /** What `/health/ready` asks, by name. */
  health: Readonly<Record<string, HealthCheck>>;
  /** Origins whose pages may call the API; empty: none; `*`: all. No cookie is ever accepted, so that `*` gives nothing away. */
  allowedOrigins: readonly string[];
  /** Reverse proxies before this process whose `X-Forwarded-For` entries are believed. */
  trustProxyHops: number;
  /** Undefined: no pages, the API alone. */
  pages: Pages | undefined;
  /** What playback links hang on. */
  links?: LinkSettings;
  /** Where a request comes from: two letters, where a proxy or a database says so. Nobody knows, unless given. */
  countryOf?: (req: IncomingMessage) => string | undefined;
  /** Comes before everything else, and before Koa's own bookkeeping: playback answers thousands of requests a second. */
  playback?: PlaybackHandler;
}

/** Answers the request (at once or later) and returns true, or returns false when the path is not one of playback's. Never throws. */
export interface PlaybackHandler {
  handle(req: IncomingMessage, res: ServerResponse): boolean;
}

const publicReadsOf = ({ access, broadcasts, clock }: Pick<AppOptions, 'access' | 'broadcasts' | 'clock'>) =>
  new PublicReads({ channels: access.channels, broadcasts, clock, pageSize: DEFAULT_PAGE });

/** Every operation of the API. */
export function apiOperations(
  options: Pick<
    AppOptions,
    'access' | 'broadcasts' | 'live' | 'addresses' | 'links' | 'chat' | 'chatRecords' | 'clock' | 'maxMessageBytes'
  >,
  publicReads = publicReadsOf(options),
): Operation[] {
  const { access, broadcasts, live, addresses } = options;
  const { channels, members } = access;
  const sees = members.visible.bind(members);
  const ofRooms = { chat: options.chat, members, reads: publicReads, clock: options.clock };
  const rulesChanged = () => access.playbackRules.refresh();
  const endShows = async (slugs: readonly string[]) => {
    channels.changed();
    if (slugs.length > 0) await rulesChanged();
    for (const slug of slugs) await endGone(live, slug);
  };
  return [
    ...channelOperations({ channels, sees, reads: publicReads, live, addresses, rulesChanged }),
    ...broadcastOperations({ sees, broadcasts, reads: publicReads, rulesChanged, mediaUrl: addresses.mediaUrl }),
    ...linkOperations({ channels, links: access.playbackLinks, broadcasts, live, addresses, sees, settings: options.links ?? {} }),
    ...playbackKeyOperations(access.playbackKeys),
    ...signInOperations(access),
    ...sessionOperations(access),
    ...meOperations({ ...access, endShows, chatRecords: options.chatRecords }),
    ...accountOperations({ ...access, endShows }),
    ...twoFactorOperations(access),
    ...apiKeyOperations(access),
    ...memberOperations({ ...access, shownChannel: channelView({ live, addresses }) }),
    ...auditOperations(access),
    ...encryptionKeyOperations(access),
    ...webhookOperations(access.webhooks),
    ...roomOperations({
      ...ofRooms,
      audit: access.audit,
      maxTextBytes: options.maxMessageBytes,
    }),
    ...roomModerationOperations(ofRooms),
    ...roomPeopleOperations(ofRooms),
    ...roomTrialOperations(ofRooms),
  ];
}

/** The HTTP application: playback, API, health, pages; and one sink that turns every error into bytes. */
export function createApp(options: AppOptions): Koa {
  const { log, clock } = options;
  const failureLog = new BoundedLog(log, clock);
  // Koa takes that many entries from the right of X-Forwarded-For.
  const app = new Koa({ proxy: options.trustProxyHops > 0, maxIpsCount: options.trustProxyHops });
  app.context.onerror = function (this: Koa.Context, error: Error | null) {
    if (!error) return;
    // Koa calls it for events, too, where what it throws would end the process.
    try {
      answerError(this, error, failureLog);
    } catch (failure) {
      answerDefect(this.res, failure, failureLog);
    }
  };
  // Node's legacy parser, by which Koa reads these, throws at some addresses, each time it is asked.
  Object.defineProperties(app.request, TARGET);
  // Koa's own listener would print to stderr what the sink has logged.
  app.on('error', () => undefined);

  const publicReads = publicReadsOf(options);
  const limits = new ApiLimits(options.access.limits, ({ method, path, querystring }) => publicReads.isFree(method, path, querystring));
  const strangers = new Strangers(options.clock);
  app.use(requestRecord(options));
  app.use(securityHeaders(options.trustProxyHops));
  app.use(unanswered);
  app.use(healthEndpoints(options));
  app.use(keySetEndpoint(() => options.access.signingKeys.keySet()));
  app.use(cors(options.allowedOrigins));
  app.use(limits.middleware);

  // Limits, headers and CORS go by the path as it is written: what they do not see must not be answered.
  const router = new Router({ prefix: '/api/v1', sensitive: true });
  const operations = apiOperations(options, publicReads);
  for (const operation of operations) mount(router, operation, options, { limits, strangers });
  const document = printed(openApiDocument(operations, { version: options.version, publicUrl: options.addresses.publicUrl }));
  router.get('/openapi.json', documentEndpoint(document, '/api/v1/openapi.json'));
  app.use(router.routes());
  app.use(router.allowedMethods());
  if (options.pages) app.use(options.pages.middleware);

  if (options.playback) putFirst(app, options.playback, options);
  return app;
}

/**
 * Playback is counted, and its duration measured, but not logged. It has no use for a context, and takes a live playlist 40 % more often in
 * a second of CPU time without one (and without a listener for the end of an answer that has been written already).
 */
function putFirst(app: Koa, playback: PlaybackHandler, { clock, metrics }: AppOptions): void {
  const others = app.callback();
  const answered = Promise.resolve();
  const listener = (req: IncomingMessage, res: ServerResponse): Promise<void> => {
    const startMs = clock.monotonicMs();
    if (!playback.handle(req, res)) return others(req, res);
    const record = () => {
      // A request that waits for a part is slow on purpose.
      const route = req.url?.includes('_HLS_msn') ? 'playback-blocking' : 'playback';
      metrics.request(route, methodLabel(req.method ?? ''), res.statusCode, (clock.monotonicMs() - startMs) / 1000);
    };
    if (res.writableEnded) record();
    else res.once('finish', record);
    return answered;
  };
  // Koa's type is HTTP/2's as well.
  app.callback = () => listener as ReturnType<Koa['callback']>;
}

/** What a request asks for, as it is written: the listener has brought it into origin form. */
const TARGET: PropertyDescriptorMap & ThisType<Koa.Request> = {
  path: {
    get() {
      return pathOf(this.req.url ?? '/');
    },
  },
  querystring: {
    get() {
      return queryOf(this.req.url ?? '/');
    },
  },
};

const REQUEST_ID = /^[\w.-]{1,64}$/;

/** Request id, log line, metrics. */
function requestRecord({ clock, log, metrics, trustProxyHops }: AppOptions): Koa.Middleware {
  return (ctx, next) => {
    ctx.request.ip = clientAddress(ctx.req, trustProxyHops);
    const startMs = clock.monotonicMs();
    const given = ctx.get('x-request-id');
    const requestId = REQUEST_ID.test(given) ? given : randomUUID();
    ctx.state.requestId = requestId;
    ctx.set('X-Request-Id', requestId);
    const { res } = ctx;
    // The socket has forgotten it by the time it is closed.
    const client = ctx.ip;
    res.once('close', () => {
      const durationMs = clock.monotonicMs() - startMs;
      const route = (ctx.state.route as string | undefined) ?? 'none';
      // 499, as nginx has it: nobody was there any more.
      const status = res.writableFinished ? res.statusCode : 499;
      metrics.request(route, methodLabel(ctx.method), status, durationMs / 1000);
      const fields = {
        requestId,
        method: ctx.method,
        path: ctx.path.slice(0, 200),
        status,
        durationMs: Math.round(durationMs * 10) / 10,
        client,
      };
      // Health checks and page files would bury the rest, and so would what a flood is answered, which the metrics count.
      const turnedAway = status === 429 || ctx.state.turnedAway === true;
      if (!turnedAway && (route.startsWith('/api') || status >= 500)) log.info({ event: 'http.request', ...fields }, 'request');
      else log.debug({ event: 'http.request', ...fields }, 'request');
    });
    return next();
  };
}

/** What nobody answered is an error, too: an unknown path must never become an empty 200. */
const unanswered: Koa.Middleware = async (ctx, next) => {
  await next();
  if (ctx.body !== undefined && ctx.body !== null) return;
  // By `allowedMethods`, also for a method that it does not know; then without a method where there is no such address.
  const isRefused = ctx.status === 405 || ctx.status === 501;
  if (isRefused && ctx.response.get('Allow') !== '') throw methodNotAllowed(ctx.method);
  if (isRefused) ctx.remove('Allow');
  if (isRefused || ctx.status === 404) throw new VezaError('not_found', 'There is nothing at this address.');
};

const METHODS = new Set(['GET', 'HEAD', 'POST', 'PATCH', 'PUT', 'DELETE', 'OPTIONS']);
/** A label must not have values that strangers choose. */
const methodLabel = (method: string) => (METHODS.has(method) ? method : 'other');

function healthEndpoints({ clock, log, health }: AppOptions): Koa.Middleware {
  const ready = sharedReadiness(health, clock, log);
  return async (ctx, next) => {
    if (ctx.path !== '/health/live' && ctx.path !== '/health/ready') return next();
    ctx.state.route = ctx.path;
    if (!reads(ctx)) return;
    ctx.set('Cache-Control', 'no-store');
    const answer = ctx.path === '/health/live' ? { status: 'ok', failing: [] } : await ready();
    ctx.status = answer.status === 'ok' ? 200 : 503;
    ctx.body = answer;
  };
}

function mount(
  router: Router,
  operation: Operation,
  { access, log, clock, countryOf }: AppOptions,
  { limits, strangers }: { limits: ApiLimits; strangers: Strangers },
): void {
  const route = `/api/v1${operation.path}`;
  router[operation.method](
    operation.path.replaceAll(/\{(\w+)\}/g, ':$1'),
    // What is proven by the body has limits of its own.
    (ctx, next) => (operation.provenByBody !== true && limits.isStranger(ctx) ? strangers.around(ctx, next) : next()),
    async (ctx: Koa.Context & { params: Record<string, string> }) => {
      ctx.state.route = route;
      ctx.set('Cache-Control', 'no-store');
      const client: Client = {
        address: ctx.ip,
        userAgent: ctx.get('user-agent').slice(0, 300),
        requestId: ctx.state.requestId as string,
        country: countryOf?.(ctx.req),
      };
      const principal =
        operation.provenByBody === true
          ? ANONYMOUS
          : await access.identity.ofHeader(ctx.get('authorization')).catch((error) => {
              if (error instanceof VezaError && error.code === 'unauthorized') limits.refused(ctx);
              if (operation.provenByBody) return ANONYMOUS;
              throw error;
            });
      await limits.identified(ctx, principal);
      if (principal.kind !== 'anonymous' || operation.method !== 'get') strangers.leave(ctx);
      if (operation.access !== 'anyone' && principal.kind === 'anonymous') throw new VezaError('unauthorized', 'Sign in first.');
      checkEncoding(ctx.path, 'path');
      checkEncoding(ctx.querystring, 'query');
      const params = checked(operation.params, ctx.params, 'path');
      const admitted = await admit(operation, principal, params, access);
      const query = checked(operation.query ?? NO_MEMBERS, membersOf(ctx.querystring), 'query');
      // Read in any case, so that the connection can be used again.
      const given = operation.method === 'get' ? undefined : await readJson(ctx.req);
      const body = checked(operation.body ?? NO_MEMBERS.nullable(), given === undefined ? {} : given, 'body');
      // No resource of the API has a tag, so that only `*` can hold; a 304 would have nothing to name.
      if (conditionOf(ctx.req, undefined) === 'failed') throw preconditionFailed();
      const asksFresh = principal.kind === 'account' && wantsFreshSignIn(operation, body);
      const freshness = asksFresh ? await access.freshSignIn.check(principal) : undefined;
      let noted: { target?: string; details?: Readonly<Record<string, unknown>> } | undefined;
      const answer = await operation.handle({
        params,
        query,
        body,
        principal,
        client,
        freshness,
        channelRole: admitted?.channelRole,
        get channel(): Channel {
          if (!admitted) throw new Error(`${operation.id} is not about a channel`);
          return admitted.channel;
        },
        created: (location) => ctx.set('Location', location.startsWith('/') ? `/api/v1${location}` : location),
        audit: (more) => {
          noted = { ...noted, ...more };
        },
        proven: (accountId) => limits.proven(ctx, accountId),
      });
      if (operation.method !== 'get' && (!operation.unaudited || (operation.unaudited === 'unless-noted' && noted))) {
        const channel = admitted?.channel.slug;
        const target = noted?.target ?? (channel === undefined ? undefined : `channel:${channel}`);
        const { address, requestId } = client;
        await access.audit
          .record({ principal, action: operation.id, address, requestId, channel, target, details: noted?.details })
          // It has been done: an error would say that it has not.
          .catch((error) =>
            log.error(
              { event: 'audit.not_recorded', action: operation.id, actor: principal.id, target, requestId, error: messageOf(error) },
              'an operation was done but not recorded in the audit log',
            ),
          );
      }
      ctx.status = operation.status;
      if (operation.contentType) {
        ctx.type = operation.contentType;
        const check = async () => {
          const now = await access.standing.now(principal);
          if (!now) throw new VezaError('unauthorized', 'The right to read this has ended.');
          await admit(operation, now, params, access);
        };
        ctx.body = whileAllowed(await streamed(answer as AsyncIterable<string>), clock, check);
      } else if (operation.answer) ctx.body = answer;
    },
  );
}

const wantsFreshSignIn = ({ wantsFreshSignIn: wants }: Operation, body: unknown): boolean => wants === true || wants?.of(body) === true;

/** Of an operation that has no such schema: what is not listed is refused everywhere. */
const NO_MEMBERS = z.strictObject({});

/** All of them: `parse` leaves out without a word what follows the first 1,000 pieces, empty ones among them. The length of an address bounds it. */
const membersOf = (querystring: string): ParsedUrlQuery => ({ ...parse(querystring, '&', '=', { maxKeys: 0 }) });

/** Rejects what is no percent-encoded UTF-8: the router would take it as it is written, and `node:querystring` for U+FFFD. */
function checkEncoding(written: string, where: string): void {
  try {
    decodeURIComponent(written);
  } catch (error) {
    throw new VezaError('bad_request', `${where}: it is not percent-encoded UTF-8`, { cause: error, details: { at: where } });
  }
}

/** What fails before the first piece is a problem document still. After it the connection is cut, so that a half is not taken for the whole. */
async function streamed(pieces: AsyncIterable<string>): Promise<Readable> {
  const iterator = pieces[Symbol.asyncIterator]();
  const first = await iterator.next();
  return Readable.from(
    (async function* () {
      if (first.done) return;
      yield first.value;
      yield* { [Symbol.asyncIterator]: () => iterator };
    })(),
  );
}

/** How often it is asked whether a client may read on. */
const RECHECK_MS = 2000;
const LOST: readonly string[] = ['unauthorized', 'forbidden', 'not_found', 'second_factor_missing'];

/** Ends the stream within five seconds after `check` would refuse it. While that cannot be told, the database being away, it goes on. */
export function whileAllowed(stream: Readable, clock: Clock, check: () => Promise<void>): Readable {
  let isChecking = false;
  const cancel = clock.every(RECHECK_MS, () => {
    if (isChecking) return;
    isChecking = true;
    check()
      .catch((error) => {
        if (error instanceof VezaError && LOST.includes(error.code)) stream.destroy(error);
      })
      .finally(() => {
        isChecking = false;
      });
  });
  stream.once('close', cancel);
  return stream;
}

/**
 * Rejects with `forbidden`, `second_factor_missing`, or, where even that there is such a channel is not to be told, `not_found`. Resolves to the
 * channel that the operation is about.
 */
async function admit(
  { access: wanted, channelOf }: Operation,
  principal: Principal,
  params: unknown,
  { channels, members }: Access,
): Promise<{ channel: Channel; channelRole: ChannelRole | undefined } | undefined> {
  if (wanted === 'anyone') return undefined;
  if (wanted === 'account') {
    if (principal.kind === 'account') return undefined;
    throw new VezaError('forbidden', 'This is for a person who is signed in, not for a key or a token.');
  }
  let about: { channel: Channel; channelRole: ChannelRole | undefined } | undefined;
  if (isAboutChannel(wanted)) {
    const named = channelOf ? await channelOf(params) : { slug: (params as { slug: string }).slug, isPrivate: false };
    if (!named) throw noSuchThing();
    const seen = () =>
      members.visible(principal, named.slug, named.isPrivate).catch((error) => {
        // Who has the id of a recording does not know its channel by that.
        throw channelOf && error instanceof VezaError && error.code === 'not_found' ? noSuchThing() : error;
      });
    const channel = (await channels.get(named.slug)) ?? (await seen());
    const channelRole = await members.roleOf(channel, principal.accountId);
    // Whoever may do it needs no right to see it beside that: a key that issues links may be good for nothing else.
    if (judge(principal, wanted, channelRole) !== 'yes') await seen();
    about = { channel, channelRole };
  }
  const verdict = judge(principal, wanted, about?.channelRole);
  if (verdict === 'second-factor')
    throw new VezaError('second_factor_missing', 'This wants a second factor: set one up, or sign in with it.');
  if (verdict === 'no') throw new VezaError('forbidden', `This needs the permission "${wanted}".`, { details: { permission: wanted } });
  return about;
}

const noSuchThing = () => new VezaError('not_found', 'There is no such thing.');

const CODE_OF_STATUS: Readonly<Record<number, ErrorCode>> = Object.fromEntries(
  (['unauthorized', 'forbidden', 'not_found', 'method_not_allowed', 'payload_too_large', 'unsupported_media', 'unavailable'] as const).map(
    (code) => [ERROR_CODES[code], code],
  ),
);

/** The one place where an error becomes an answer: an RFC 9457 problem document. */
function answerError(ctx: Koa.Context, error: Error, log: LineLog): void {
  const { res } = ctx;
  const { requestId } = ctx.state as { requestId?: string };
  const { status, code, detail, details } = problemOf(error);
  if (code === 'internal' && !isOfConnection(ctx, error))
    log.error(
      { event: 'http.request_failed', requestId, path: ctx.path.slice(0, 200), error: error.message, stack: error.stack },
      'a request failed',
    );
  else if (code === 'busy') ctx.state.turnedAway = true;
  else if (status >= 500)
    log.warn(
      {
        event: 'http.request_failed',
        requestId,
        path: ctx.path.slice(0, 200),
        code,
        error: error.message,
        cause: String(error.cause ?? ''),
      },
      'a request failed',
    );
  if (res.headersSent || res.writableEnded || res.destroyed) {
    res.destroy();
    return;
  }
  for (const name of ['content-type', 'content-length', 'content-encoding', 'etag', 'last-modified']) res.removeHeader(name);
  // As a string, which goes out with the head in one write: floods are answered here.
  const body = JSON.stringify({
    type: 'about:blank',
    title: STATUS_CODES[status] ?? 'Error',
    status,
    code,
    detail,
    ...(requestId && { requestId }),
    ...(details && { details }),
  });
  res.statusCode = status;
  res.setHeader('Content-Type', 'application/problem+json');
  res.setHeader('Content-Length', Buffer.byteLength(body));
  res.setHeader('Cache-Control', 'no-store');
  // RFC 6750 3.1: a client that sent no token is told no more than that one is wanted.
  const sentToken = code === 'unauthorized' && ctx.get('authorization') !== '';
  if (status === 401) res.setHeader('WWW-Authenticate', `Bearer realm="veza"${sentToken ? ', error="invalid_token"' : ''}`);
  if (status === 503 || status === 429) res.setHeader('Retry-After', String(details?.retryAfterS ?? 1));
  // What was not read of the request would be taken for the next one; HTTP/2 keeps them apart.
  if (!ctx.req.complete && ctx.req.httpVersionMajor < 2) res.setHeader('Connection', 'close');
  res.end(ctx.method === 'HEAD' ? undefined : body);
}

function problemOf(error: Error): {
  status: number;
  code: ErrorCode;
  detail: string;
  details?: Readonly<Record<string, unknown>> | undefined;
} {
  if (error instanceof VezaError) return { status: error.status, code: error.code, detail: error.message, details: error.details };
  // Koa's and the router's own: a path that cannot be decoded, a method that is not there.
  const { status } = error as { status?: unknown };
  if (typeof status === 'number' && status >= 400 && status < 500) {
    const code = CODE_OF_STATUS[status] ?? 'bad_request';
    return { status: ERROR_CODES[code], code, detail: error.message };
  }
  // What went wrong inside is for the log only.
  return { status: 500, code: 'internal', detail: 'Something went wrong here. The request id finds it in the log.' };
}

/**
 * The client's doing: it went away, was too slow, or sent bytes that are no HTTP. It is known by where the error came from, and not by its code: a
 * database or a store that breaks off has the same ones, and those belong into the log.
 */
function isOfConnection({ req, res }: Koa.Context, error: Error): boolean {
  const { stream } = req as { stream?: { errored?: Error | null } };
  if ([req.errored, res.errored, req.socket?.errored, stream?.errored].includes(error)) return true;
  // Of a body that was being sent when the client left.
  return (error as NodeJS.ErrnoException).code === 'ERR_STREAM_PREMATURE_CLOSE' && res.closed;
}
