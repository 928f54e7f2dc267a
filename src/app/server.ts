import type { IncomingMessage } from 'node:http';
import Router from '@koa/router';
import Koa from 'koa';
import type { Access } from '../access/access.js';
import type { Broadcasts } from '../library/broadcasts.js';
import { BoundedLog } from '../runtime/bounded-log.js';
import type { Clock } from '../runtime/clock.js';
import { answerDefect } from '../runtime/http-guard.js';
import type { Log } from '../runtime/log.js';
import type { Metrics } from '../runtime/metrics.js';
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
import { mountOperation } from './api/mount.js';
import { DEFAULT_PAGE, type Operation } from './api/openapi.js';
import { openApiDocument, printed } from './api/openapi-document.js';
import type { RoomsApi } from './api/rooms/room-access.js';
import { roomModerationOperations } from './api/rooms/room-moderation.js';
import { roomPeopleOperations } from './api/rooms/room-people.js';
import { roomTrialOperations } from './api/rooms/room-trial.js';
import { roomOperations } from './api/rooms/rooms.js';
import { cors } from './http/cors.js';
import { answerError, unanswered } from './http/error-sink.js';
import { type HealthCheck, healthEndpoints } from './http/health.js';
import { ApiLimits } from './http/limits.js';
import { type PlaybackHandler, putPlaybackFirst } from './http/playback-first.js';
import { PublicReads } from './http/public-reads.js';
import { requestRecord } from './http/request-record.js';
import { securityHeaders } from './http/security-headers.js';
import type { Pages } from './http/static.js';
import { Strangers } from './http/strangers.js';
import { WRITTEN_TARGET } from './http/target.js';

export interface AppOptions {
  clock: Clock;
  log: Log;
  metrics: Metrics;
  version: string;
  addresses: Addresses;
  access: Access;
  broadcasts: Broadcasts;
  live: LiveStatus;
  /** Undefined: this process has no chat, and answers requests about rooms accordingly. */
  chat?: RoomsApi | undefined;
  /** `MAX_MESSAGE_SIZE`: bytes of a message's text in UTF-8. */
  maxMessageBytes: number;
  /** The chat's stored data about an account; there is some even where this process has no chat. */
  chatRecords: MeOperationsOptions['chatRecords'];
  /** The checks of `/health/ready`, by name. */
  health: Readonly<Record<string, HealthCheck>>;
  /**
   * Origins whose pages may call the API; empty: none; `*`: all. The API never accepts cookies, so
   * `*` gives no rights away.
   */
  allowedOrigins: readonly string[];
  /** Reverse proxies in front of this process whose `X-Forwarded-For` entries are trusted. */
  trustProxyHops: number;
  /** Undefined: only the API, no pages. */
  pages: Pages | undefined;
  /** Settings of playback links. */
  links?: LinkSettings;
  /**
   * Returns a request's country in two letters, from a proxy's header or a database. Default:
   * unknown for every request.
   */
  countryOf?: (req: IncomingMessage) => string | undefined;
  /**
   * Comes before everything else, Koa's own bookkeeping included: playback answers thousands of
   * requests per second.
   */
  playback?: PlaybackHandler;
}

const publicReadsOf = ({ access, broadcasts, clock }: Pick<AppOptions, 'access' | 'broadcasts' | 'clock'>) =>
  new PublicReads({ channels: access.channels, broadcasts, clock, pageSize: DEFAULT_PAGE });

/** Makes every operation of the API. */
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

/** Makes the HTTP application: playback, API, health, pages, and the one error sink. */
export function createApp(options: AppOptions): Koa {
  const { log, clock } = options;
  const failureLog = new BoundedLog(log, clock);
  // Koa takes this many entries from the right of X-Forwarded-For.
  const app = new Koa({ proxy: options.trustProxyHops > 0, maxIpsCount: options.trustProxyHops });
  app.context.onerror = function (this: Koa.Context, error: Error | null) {
    if (!error) return;
    // Koa calls this from event handlers too, where a throw would end the process.
    try {
      answerError(this, error, failureLog);
    } catch (failure) {
      answerDefect(this.res, failure, failureLog);
    }
  };
  Object.defineProperties(app.request, WRITTEN_TARGET);
  // Koa's default listener would print to stderr what the sink has logged.
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

  // Limits, headers and CORS use the path as written: the router must not answer a path that they
  // do not recognise.
  const router = new Router({ prefix: '/api/v1', sensitive: true });
  const operations = apiOperations(options, publicReads);
  const mountOptions = { ...options, limits, strangers };
  for (const operation of operations) mountOperation(router, operation, mountOptions);
  const document = printed(openApiDocument(operations, { version: options.version, publicUrl: options.addresses.publicUrl }));
  router.get('/openapi.json', documentEndpoint(document, '/api/v1/openapi.json'));
  app.use(router.routes());
  app.use(router.allowedMethods());
  if (options.pages) app.use(options.pages.middleware);

  if (options.playback) putPlaybackFirst(app, options.playback, options);
  return app;
}
