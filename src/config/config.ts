import { z } from 'zod';
import { OutboundPolicy } from '../backing/outbound-address.js';
import { type Codec, FRAME_SAMPLES, SAMPLE_RATE_HZ } from '../media/ladder.js';
import { PACKAGE_VERSION } from './version.js';

/**
 * The configuration: the only reader of the environment. One table says what there is; the parser, the type of `Config`
 * and `docs/configuration.md` (`veza config reference`) are made from it.
 */
interface Kind<T> {
  readonly schema: z.ZodType<T, string>;
  /** Completes "NAME is …; allowed: …". */
  readonly allowed: string;
}

interface Variable<T> extends Kind<T> {
  readonly name: string;
  readonly group: Group;
  readonly unit: string;
  /** As one would write it; undefined when unset means something of its own, which `text` says. */
  readonly fallback: string | undefined;
  readonly text: string;
  /** Never shown, not even when it is wrong. */
  readonly secret: boolean;
  /** Checked, but without effect in this version. */
  readonly planned: boolean;
}

const GROUPS = {
  core: 'Core',
  network: 'Network',
  database: 'Database',
  redis: 'Redis',
  objects: 'Object storage',
  media: 'Media',
  chat: 'Chat',
  access: 'Access',
  ops: 'Operations',
} as const;
type Group = keyof typeof GROUPS;

// Kinds of value.

const integer = (min: number, max: number): Kind<number> => ({
  schema: z
    .string()
    .regex(/^\d{1,15}$/)
    .transform(Number)
    .pipe(z.number().min(min).max(max)),
  allowed: `a whole number from ${min} to ${max}`,
});
const port = integer(0, 65_535);
const text = (maxLength = 1024): Kind<string> => ({
  schema: z.string().max(maxLength),
  allowed: `text of at most ${maxLength} characters`,
});
const flag: Kind<boolean> = {
  schema: z.enum(['true', 'false']).transform((value) => value === 'true'),
  allowed: 'true or false',
};
const oneOf = <const T extends readonly [string, ...string[]]>(...values: T): Kind<T[number]> => ({
  schema: z.enum(values) as unknown as z.ZodType<T[number], string>,
  allowed: `one of ${values.join(', ')}`,
});
const someOf = <const T extends readonly [string, ...string[]]>(...values: T): Kind<readonly T[number][]> => ({
  schema: z
    .string()
    .transform((value) => [...new Set(value.split(',').map((part) => part.trim()))])
    .pipe(z.array(z.enum(values)).min(1)) as unknown as z.ZodType<readonly T[number][], string>,
  allowed: `a comma-separated list of ${values.join(', ')}`,
});
const address = (...protocols: string[]): Kind<string> => ({
  schema: z.string().refine((value) => URL.canParse(value) && protocols.includes(new URL(value).protocol.slice(0, -1))),
  allowed: `an address that starts with ${protocols.map((protocol) => `${protocol}://`).join(' or ')}`,
});
const addresses = (...protocols: string[]): Kind<string> => ({
  schema: z.string().refine((value) => value.split(',').every((part) => address(...protocols).schema.safeParse(part.trim()).success)),
  allowed: `${address(...protocols).allowed}, or several, separated by commas`,
});
/** Without the slash at the end, so that paths are appended as they are. */
const webAddress: Kind<string> = {
  schema: address('http', 'https').schema.transform((value) => value.replace(/\/+$/, '')) as unknown as z.ZodType<string, string>,
  allowed: 'an address that starts with http:// or https://',
};
const headerName: Kind<string> = {
  schema: z
    .string()
    .regex(/^[A-Za-z0-9-]{1,64}$/)
    .transform((value) => value.toLowerCase()),
  allowed: 'the name of a header',
};
const SIZE_UNITS: Readonly<Record<string, number>> = { B: 1, KB: 1e3, MB: 1e6, GB: 1e9, KIB: 2 ** 10, MIB: 2 ** 20, GIB: 2 ** 30 };
const size = (maxBytes: number): Kind<number> => ({
  schema: z
    .string()
    .regex(/^\d{1,15}(?:[KMG]?i?B)?$/i)
    .transform((value) => Number.parseInt(value, 10) * (SIZE_UNITS[value.replace(/^\d+/, '').toUpperCase()] ?? 1))
    .pipe(z.number().min(1).max(maxBytes)),
  allowed: `a size from 1B to ${maxBytes / 1e9}GB, such as 500KB, 200MB or 1GiB`,
});
const hops: Kind<number> = {
  schema: z
    .string()
    .regex(/^(?:true|false|\d{1,2})$/)
    .transform((value) => (value === 'false' ? 0 : value === 'true' ? 1 : Number(value))),
  allowed: 'false, true (one proxy) or the number of proxies, 0 to 99',
};
const origins: Kind<readonly string[]> = {
  schema: z
    .string()
    .transform((value) => value.split(',').map((part) => part.trim()))
    .pipe(z.array(z.union([z.literal('*'), z.string().regex(/^https?:\/\/[^/,\s]+$/)])).max(200)),
  allowed: '* or a comma-separated list of origins such as https://radio.example',
};
const hostsOrRanges: Kind<readonly string[]> = {
  schema: z
    .string()
    .transform((value) => value.split(',').map((part) => part.trim()))
    .refine((entries) => {
      try {
        new OutboundPolicy(entries);
        return entries.length <= 200;
      } catch {
        return false;
      }
    }) as unknown as z.ZodType<readonly string[], string>,
  allowed: 'a comma-separated list of host names, addresses and ranges such as hooks.internal,10.1.0.0/16',
};
const hostNames: Kind<readonly string[]> = {
  schema: z
    .string()
    .transform((value) => value.split(',').map((part) => part.trim()))
    .pipe(z.array(z.string().regex(/^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})$/)).max(100)) as unknown as z.ZodType<readonly string[], string>,
  allowed: 'a comma-separated list of host names such as app.internal',
};
const key32: Kind<Uint8Array> = {
  schema: z
    .string()
    .transform((value) => new Uint8Array(/^[0-9a-f]{64}$/i.test(value) ? Buffer.from(value, 'hex') : Buffer.from(value, 'base64')))
    .refine((bytes) => bytes.length === 32),
  allowed: '32 bytes in base64 or hex (openssl rand -hex 32)',
};
const MAILBOX = String.raw`[^\s\p{C}<>@,;:"]+@[^\s\p{C}<>@,;:"]+`;
const emailAddress: Kind<string> = {
  schema: z
    .string()
    .max(254)
    .regex(new RegExp(`^${MAILBOX}$`, 'u')),
  allowed: 'an e-mail address',
};
const sender: Kind<string> = {
  schema: z
    .string()
    .max(320)
    .regex(new RegExp(`^(?:${MAILBOX}|[^<>"\\p{C}]{1,60} <${MAILBOX}>)$`, 'u')),
  allowed: 'an address such as radio@example.org or Radio <radio@example.org>',
};
const secretText: Kind<string> = {
  schema: z.string().refine((value) => Buffer.byteLength(value) >= 32),
  allowed: 'at least 32 bytes',
};

interface More {
  unit?: string;
  secret?: boolean;
  planned?: boolean;
}

function set<T>(name: string, group: Group, kind: Kind<T>, fallback: string, text: string, more: More = {}): Variable<T> {
  return { ...kind, name, group, fallback, text, unit: more.unit ?? '', secret: more.secret ?? false, planned: more.planned ?? false };
}

function unset<T>(name: string, group: Group, kind: Kind<T>, text: string, more: More = {}): Variable<T | undefined> {
  return { ...set(name, group, kind, '', text, more), fallback: undefined };
}

/** Every variable, by its name in `Config`. */
const VARIABLES = {
  environment: set(
    'ENVIRONMENT',
    'core',
    oneOf('development', 'test', 'production'),
    'development',
    '`production` refuses to start without `ENCRYPTION_KEY` and `DATABASE_URL`.',
  ),
  serviceName: set('SERVICE_NAME', 'core', text(64), 'veza', 'Names this process in logs and metrics.'),
  version: unset('VERSION', 'core', text(64), 'The version in logs and metrics. Unset: the one in `package.json`.'),
  logLevel: set(
    'LOG_LEVEL',
    'core',
    oneOf('trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'),
    'info',
    'The least important line that is written.',
  ),
  dataDir: set(
    'DATA_DIR',
    'core',
    text(),
    './data',
    'Where everything is kept that no other system keeps: the embedded database, segments, the admin token. Two services must not share it.',
  ),
  roles: set('ROLES', 'core', someOf('app', 'chat', 'ingest', 'transcode'), 'app,chat,ingest,transcode', 'What this process does.'),

  host: set('HOST', 'network', text(255), '0.0.0.0', 'The address that every port listens on.'),
  port: set('PORT', 'network', port, '8080', 'Pages, API and playback. 0, here and below: any free port.'),
  wsPort: set('WS_PORT', 'network', port, '8081', 'Chat. Equal to `PORT`: the same listener.'),
  wssPort: unset(
    'WSS_PORT',
    'network',
    port,
    'The same as `WS_PORT` over TLS; needs `TLS_CERT_FILE` and `TLS_KEY_FILE`. Equal to `HTTPS_PORT`: the same listener, which is also the default where one process has the chat. More chat processes want a port of its own; unset there: off.',
  ),
  ingestPort: set('INGEST_PORT', 'network', port, '8000', 'Icecast and HTTP broadcasters.'),
  rtmpPort: set('RTMP_PORT', 'network', port, '1935', 'RTMP broadcasters.'),
  rtmpsPort: unset('RTMPS_PORT', 'network', port, 'RTMP over TLS; needs `TLS_CERT_FILE` and `TLS_KEY_FILE`. Unset: off.'),
  grpcPort: set('GRPC_PORT', 'network', port, '50051', 'The control API for other back ends.', { planned: true }),
  prometheusPort: set(
    'PROMETHEUS_PORT',
    'network',
    port,
    '9090',
    '`/metrics` and `/debug/pprof`. For operators: keep it away from the public.',
  ),
  metricsHost: set(
    'METRICS_HOST',
    'network',
    text(255),
    '127.0.0.1',
    'The address that `PROMETHEUS_PORT` listens on. It asks nobody who they are: another address only in a private network, or with `METRICS_TLS`.',
  ),
  httpsPort: unset(
    'HTTPS_PORT',
    'network',
    port,
    'The same as `PORT` over TLS, with HTTP/2; needs `TLS_CERT_FILE` and `TLS_KEY_FILE`. Unset: off.',
  ),
  tlsCertFile: unset(
    'TLS_CERT_FILE',
    'network',
    text(),
    'The certificate chain for `HTTPS_PORT` and `RTMPS_PORT`, PEM. Read again when it changes.',
  ),
  tlsKeyFile: unset('TLS_KEY_FILE', 'network', text(), 'Its private key, PEM.'),
  tlsMinVersion: set(
    'TLS_MIN_VERSION',
    'network',
    oneOf('1.2', '1.3'),
    '1.3',
    'The oldest TLS that `HTTPS_PORT` speaks. `RTMPS_PORT` takes 1.2, since broadcasters’ programs are older.',
  ),
  maxHttpConnections: set(
    'MAX_HTTP_CONNECTIONS',
    'network',
    integer(1, 10_000_000),
    '50000',
    'Open connections of `PORT` and `HTTPS_PORT` together; more are closed at once. A listener who waits for a part has one, also behind a proxy.',
  ),
  maxHttpConnectionsPerAddress: set(
    'MAX_HTTP_CONNECTIONS_PER_ADDRESS',
    'network',
    integer(1, 10_000_000),
    '12000',
    'The same of one address (IPv6: of one /64). High enough for a proxy with 10,000 listeners behind it; not used with `TRUST_PROXY`, where the proxy is to limit.',
  ),
  workerPort: set(
    'WORKER_PORT',
    'network',
    port,
    '8090',
    'Where a process that takes broadcasts and does not serve them (`ROLES` with `ingest` and without `app`) answers the one that does. With the `INTERNAL_…` files: mutual TLS 1.3.',
  ),
  workerHost: unset(
    'WORKER_HOST',
    'network',
    text(255),
    'The address that `WORKER_PORT` listens on. Unset: that of `HOST` with the `INTERNAL_…` files, and 127.0.0.1 without, which then is all that is allowed.',
  ),
  workerClientNames: unset(
    'WORKER_CLIENT_NAMES',
    'network',
    hostNames,
    'Of whose certificates `WORKER_PORT` takes one: a name in it is one of these. Unset: every certificate that `INTERNAL_CA_FILE` has signed.',
  ),
  workerUrl: unset(
    'WORKER_URL',
    'network',
    webAddress,
    'Where a process that serves and takes no broadcasts (`ROLES` with `app` and without `ingest`) finds the worker’s `WORKER_PORT`. `https` with the `INTERNAL_…` files; `http` only on the same machine.',
  ),
  publicUrl: unset('PUBLIC_URL', 'network', webAddress, 'Where listeners reach this service. Unset: `http://localhost:{PORT}`.'),
  cdnBaseUrl: unset(
    'CDN_BASE_URL',
    'network',
    webAddress,
    'Where media is fetched from when a CDN stands before it. Unset: from `PUBLIC_URL`.',
  ),
  trustProxyHops: set(
    'TRUST_PROXY',
    'network',
    hops,
    'false',
    'How many reverse proxies of yours stand before this service: that many entries of `X-Forwarded-For` are believed.',
  ),

  databaseUrl: unset(
    'DATABASE_URL',
    'database',
    address('postgres', 'postgresql'),
    'PostgreSQL 14 or later. Unset: an embedded PostgreSQL in `DATA_DIR`.',
    { secret: true },
  ),
  databasePoolSize: set('DATABASE_POOL_SIZE', 'database', integer(1, 1000), '40', 'Connections of all processes together.'),
  databaseSync: set(
    'DATABASE_SYNC',
    'database',
    flag,
    'true',
    'Of the embedded database: a change is answered when it is on the disk. `false` is faster, and a power cut takes what was answered in the last half minute. Has no effect with `DATABASE_URL`.',
  ),
  databaseTimeoutMs: set('DATABASE_TIMEOUT_MS', 'database', integer(100, 600_000), '5000', 'Limit for a connection and for a statement.', {
    unit: 'ms',
  }),

  redisUrl: unset(
    'REDIS_URL',
    'redis',
    addresses('redis', 'rediss'),
    'Redis 7 or newer, alone or a cluster: for a cluster list some of its nodes, with the same user and password. Shares the rate limits between processes and carries the chat of several; queues follow. Its `maxmemory-policy` is to be `noeviction`. Unset: counted in this process, as while Redis is away.',
    { secret: true },
  ),
  redisPoolSize: set('REDIS_POOL_SIZE', 'redis', integer(1, 1000), '10', 'Connections.', { planned: true }),
  redisTtlDefaultS: set('REDIS_TTL_DEFAULT', 'redis', integer(1, 31_536_000), '3600', 'How long what has no time of its own is kept.', {
    unit: 's',
    planned: true,
  }),

  s3Bucket: unset('S3_BUCKET', 'objects', text(63), 'Unset: files in `DATA_DIR`. Not supported yet: the start is refused.'),
  s3Endpoint: unset('S3_ENDPOINT', 'objects', webAddress, 'For stores other than Amazon’s.', { planned: true }),
  s3Region: unset('S3_REGION', 'objects', text(64), 'The bucket’s region.', { planned: true }),
  s3ForcePathStyle: set('S3_FORCE_PATH_STYLE', 'objects', flag, 'false', 'The bucket in the path and not in the host name.', {
    planned: true,
  }),

  ffmpegPath: unset('FFMPEG_PATH', 'media', text(), 'The ffmpeg to use. Unset: the one that comes from npm.'),
  segmentMs: set(
    'SEGMENT_MS',
    'media',
    integer(960, 9600),
    '1920',
    'Length of a segment; a multiple of 960, so that it is a whole number of frames of each codec. Kept for a broadcast’s life.',
    { unit: 'ms' },
  ),
  partMs: set(
    'PART_MS',
    'media',
    integer(100, 1000),
    '320',
    'Length of a part; less than half a segment. 214 and 107 are the fast profiles. Kept for a broadcast’s life.',
    { unit: 'ms' },
  ),
  dvrWindowS: set('DVR_WINDOW_S', 'media', integer(60, 86_400), '7200', 'How far listeners can rewind a live show.', { unit: 's' }),
  reconnectWindowS: set(
    'RECONNECT_WINDOW_S',
    'media',
    integer(0, 3600),
    '60',
    'How long a show is held when the broadcaster’s connection is lost.',
    { unit: 's' },
  ),
  recordingMaxH: set('RECORDING_MAX_H', 'media', integer(1, 24), '12', 'A show that goes on is cut into recordings of this length.', {
    unit: 'h',
  }),
  codecsEnabled: set(
    'CODECS_ENABLED',
    'media',
    someOf('aac', 'opus', 'mp3'),
    'aac,opus,mp3',
    'What is encoded; aac, opus or both must be in it.',
  ),
  defaultBitrateKbps: set(
    'DEFAULT_BITRATE',
    'media',
    integer(32, 320),
    '128',
    'The rung that is kept when `ADAPTIVE_BITRATE` is off (the nearest there is).',
    { unit: 'kbit/s' },
  ),
  adaptiveBitrate: set('ADAPTIVE_BITRATE', 'media', flag, 'true', 'Several bitrates a codec.'),
  maxStreams: set('MAX_STREAMS', 'media', integer(1, 100_000), '100', 'Shows on air at once in this process. One takes a tenth of a core.'),
  maxListenersPerStream: set(
    'MAX_LISTENERS_PER_STREAM',
    'media',
    integer(1, 10_000_000),
    '20000',
    'Open `/listen` connections and held playlist requests a channel; more are answered 503.',
  ),
  maxFileUploadBytes: set('MAX_FILE_UPLOAD', 'media', size(100e9), '200MB', 'The largest upload. MB is 1,000,000 bytes, MiB 1,048,576.', {
    unit: 'bytes',
    planned: true,
  }),

  maxConnections: set(
    'MAX_CONNECTIONS',
    'chat',
    integer(1, 10_000_000),
    '100000',
    'Chat connections, of all processes together. One process holds 19,000 (`WORKER_THREADS`); more are told to come back later.',
  ),
  maxMessageBytes: set('MAX_MESSAGE_SIZE', 'chat', integer(1, 8192), '8192', 'The longest text of a message.', { unit: 'bytes' }),
  messageHistoryLimit: set(
    'MESSAGE_HISTORY_LIMIT',
    'chat',
    integer(0, 100_000),
    '1000',
    'The newest entries of each room (messages and what else has a place in its log) that are kept whatever their age. 0: none but the very newest.',
  ),
  chatRetentionDays: set(
    'CHAT_RETENTION_DAYS',
    'chat',
    integer(0, 36_500),
    '30',
    'Older entries than the newest `MESSAGE_HISTORY_LIMIT` are let go when they are also older than this, save those of the time of a recording that is kept, and a pinned message. 0: after an hour.',
    { unit: 'days' },
  ),
  moderationEnabled: set('MODERATION_ENABLED', 'chat', flag, 'true', 'Automatic moderation.'),
  moderationUrl: unset(
    'MODERATION_URL',
    'chat',
    address('http', 'https'),
    'A second judge of messages for the rooms that want it: the whole address of a service that speaks OpenAI’s `POST /v1/moderations`. It has 300 ms. Unset: nobody is asked.',
  ),
  moderationApiKey: unset('MODERATION_API_KEY', 'chat', text(), 'Sent to it as a bearer token.', { secret: true }),
  moderationModel: unset('MODERATION_MODEL', 'chat', text(200), 'The model that it is to judge with. Unset: its own choice.'),
  e2eEncryption: set(
    'E2E_ENCRYPTION',
    'chat',
    oneOf('off', 'optional', 'required'),
    'optional',
    'Whether rooms may, or must, be end-to-end encrypted.',
    { planned: true },
  ),

  jwtSecret: unset(
    'JWT_SECRET',
    'access',
    secretText,
    'Shared with the platform’s own gateway, whose tokens (HS256, `iss` "gateway") are accepted. Unset: none are.',
    { secret: true },
  ),
  jwtAudience: set('JWT_AUDIENCE', 'access', text(255), 'veza', 'The audience (`aud`) that the gateway’s tokens must name.'),
  authJwksUrl: unset(
    'AUTH_JWKS_URL',
    'access',
    address('http', 'https'),
    'The key set of another issuer (an OpenID Connect provider), whose tokens are accepted; needs `AUTH_ISSUER` and `AUTH_AUDIENCE`.',
  ),
  authIssuer: unset('AUTH_ISSUER', 'access', text(255), 'The issuer (`iss`) that its tokens must name, letter by letter.'),
  authAudience: unset('AUTH_AUDIENCE', 'access', text(255), 'The audience (`aud`) that they must name.'),
  authRoleClaim: set(
    'AUTH_ROLE_CLAIM',
    'access',
    text(255),
    'role',
    'Their claim that holds a role of ours, or a list with such in it. With dots: a member of a claim, such as `realm_access.roles`.',
  ),
  authPrivilegedRoles: set(
    'AUTH_PRIVILEGED_ROLES',
    'access',
    flag,
    'false',
    'Moderators and administrators of the gateway and of the other issuer are such here, if `amr` names a second factor. Otherwise they are broadcasters.',
  ),
  smtpUrl: unset(
    'SMTP_URL',
    'access',
    address('smtp', 'smtps'),
    'The mail server: `smtps://user:password@mail.example.org`, or `smtp://…:587`, which is encrypted when the server offers it and, with `?requireTLS=true`, else not used. Unset: no mail is sent, accounts need no confirmation, and links are in the log where `ENVIRONMENT` is not `production`.',
    { secret: true },
  ),
  mailFrom: unset('MAIL_FROM', 'access', sender, 'The sender of mails. Unset: `Veza <no-reply@{host of PUBLIC_URL}>`.'),
  registration: set(
    'REGISTRATION',
    'access',
    oneOf('open', 'closed'),
    'open',
    'Whether anybody may make an account, or only administrators.',
  ),
  defaultRole: set(
    'DEFAULT_ROLE',
    'access',
    oneOf('listener', 'broadcaster'),
    'listener',
    'The role of an account that somebody has made for himself. A broadcaster may make channels.',
  ),
  adminEmail: set(
    'ADMIN_EMAIL',
    'access',
    emailAddress,
    'admin@localhost',
    'The first start makes an administrator with this address, and each start logs a one-time link to it until a password has been chosen.',
  ),
  encryptionKey: unset(
    'ENCRYPTION_KEY',
    'access',
    key32,
    'Encrypts secrets at rest. Required in production. Unset: one that is made once and kept in `DATA_DIR`.',
    { secret: true },
  ),
  encryptionKeyPrevious: unset(
    'ENCRYPTION_KEY_PREVIOUS',
    'access',
    key32,
    'The one before, for the first start with a new `ENCRYPTION_KEY`; not needed after that.',
    { secret: true },
  ),
  rateLimitPerMinute: set(
    'RATE_LIMIT_PER_MINUTE',
    'access',
    integer(1, 1_000_000),
    '1000',
    'API requests a minute of an account or key, or of an address where nobody is known. The stricter limits for signing in grow and shrink with it (docs/limits.md). Playback has its own.',
  ),
  maxChannelsPerAccount: set(
    'MAX_CHANNELS_PER_ACCOUNT',
    'access',
    integer(1, 1_000_000),
    '100',
    'Channels that one account owns at most. Administrators and the admin token own as many as they like.',
  ),
  webhookAllowedHosts: unset(
    'WEBHOOK_ALLOWED_HOSTS',
    'access',
    hostsOrRanges,
    'Where webhooks may lead beside the public internet. Unset: nowhere.',
  ),
  playbackKeysFile: unset(
    'PLAYBACK_KEYS_FILE',
    'access',
    text(),
    'Where the keys of playback links are written for an nginx that checks them (`infra/nginx/veza-signed.conf`); mode 0640.',
  ),
  countryHeader: unset(
    'COUNTRY_HEADER',
    'access',
    headerName,
    'The header in which a proxy or CDN of yours says where a listener is, such as `CF-IPCountry`; needs `TRUST_PROXY`.',
  ),
  geoipFile: unset(
    'GEOIP_FILE',
    'access',
    text(),
    'A database of addresses and countries (MMDB, such as GeoLite2-Country), read again when it changes. With neither of the two nobody is let in where a channel has country rules.',
  ),
  cloudFrontKeyPairId: unset(
    'CLOUDFRONT_KEY_PAIR_ID',
    'access',
    text(128),
    'The public key’s id at CloudFront: playback links come with signed cookies for it. Needs `CLOUDFRONT_PRIVATE_KEY_FILE` and `CDN_BASE_URL`.',
  ),
  cloudFrontPrivateKeyFile: unset('CLOUDFRONT_PRIVATE_KEY_FILE', 'access', text(), 'Its private key, PEM (RSA).'),
  corsEnabled: set('ENABLE_CORS', 'access', flag, 'true', 'Pages of other origins may call the API. Media may always be fetched.'),
  allowedOrigins: set('ALLOWED_ORIGINS', 'access', origins, '*', 'Which origins these are.'),

  metricsEnabled: set('METRICS_ENABLED', 'ops', flag, 'true', 'Listen on `PROMETHEUS_PORT`.'),
  metricsTls: set(
    'METRICS_TLS',
    'ops',
    flag,
    'false',
    '`PROMETHEUS_PORT` speaks TLS 1.3, and only with clients whose certificate `INTERNAL_CA_FILE` has signed.',
  ),
  internalCaFile: unset(
    'INTERNAL_CA_FILE',
    'ops',
    text(),
    'The certificate of the authority for mutual TLS between our own processes, PEM.',
  ),
  internalCertFile: unset('INTERNAL_CERT_FILE', 'ops', text(), 'This process’s certificate from it, PEM. Read again when it changes.'),
  internalKeyFile: unset('INTERNAL_KEY_FILE', 'ops', text(), 'Its private key, PEM.'),
  tracingEnabled: set('TRACING_ENABLED', 'ops', flag, 'false', 'Not supported yet: `true` refuses the start.'),
  otlpEndpoint: unset('OTEL_EXPORTER_OTLP_ENDPOINT', 'ops', webAddress, 'Where traces go.', { planned: true }),
  workerThreads: unset(
    'WORKER_THREADS',
    'ops',
    integer(1, 1024),
    'Processes of the chat; more than one need `REDIS_URL` and `DATABASE_URL`. Unset: as many as there are cores with both of them, else one.',
  ),
  memoryLimitMb: unset(
    'MEMORY_LIMIT_MB',
    'ops',
    integer(64, 1_048_576),
    'What `memory_usage_percent` is a percentage of. Unset: the memory of the machine or of its container.',
    { unit: 'MB' },
  ),
  shutdownTimeoutS: set('SHUTDOWN_TIMEOUT_S', 'ops', integer(1, 600), '30', 'How long a graceful stop may take.', { unit: 's' }),
} as const;

type Values = { [K in keyof typeof VARIABLES]: (typeof VARIABLES)[K] extends Variable<infer T> ? T : never };

/** Typed, checked, frozen. Names carry their unit. */
export type Config = Readonly<Omit<Values, 'publicUrl' | 'version'>> & {
  readonly publicUrl: string;
  readonly version: string;
  /** Lines for the log: variables that look like a misspelt one of ours. */
  readonly warnings: readonly string[];
};

/** Its message is one line for each variable that is wrong: its name, what was given, what is allowed. */
export class ConfigError extends Error {
  constructor(problems: readonly string[]) {
    super(problems.join('\n'));
    this.name = 'ConfigError';
  }
}

/** Throws ConfigError. An empty variable counts as unset. `fixed`: what is so whatever the environment says. */
export function loadConfig(
  env: Readonly<Record<string, string | undefined>> = process.env,
  fixed: Readonly<Record<string, string>> = {},
): Config {
  const problems: string[] = [];
  const values: Record<string, unknown> = {};
  for (const [key, variable] of Object.entries(VARIABLES) as [string, Variable<unknown>][]) {
    const given = fixed[variable.name] ?? (env[variable.name]?.trim() || variable.fallback);
    if (given === undefined) continue;
    const parsed = variable.schema.safeParse(given);
    if (parsed.success) values[key] = Array.isArray(parsed.data) ? Object.freeze(parsed.data) : parsed.data;
    else problems.push(`${variable.name} is ${shown(variable, given)}; allowed: ${variable.allowed}`);
  }
  if (problems.length === 0) problems.push(...contradictions(values as Values));
  if (problems.length > 0) throw new ConfigError(problems);
  const { publicUrl = `http://localhost:${(values as Values).port}`, version = PACKAGE_VERSION, ...rest } = values as Values;
  return Object.freeze({ ...rest, publicUrl, version, warnings: Object.freeze(misspelt(env)) });
}

/** What a program needs to be found and loaded. */
const PROGRAM_VARIABLES = /^(PATH|LD_LIBRARY_PATH)$/;
/** What Node, its C library and the PostgreSQL client read by themselves. */
const NODE_VARIABLES =
  /^(PATH|LD_LIBRARY_PATH|HOME|TZ|TMPDIR|LANG|NODE_(OPTIONS|EXTRA_CA_CERTS|NO_WARNINGS)|SSL_CERT_(FILE|DIR)|OPENSSL_CONF|UV_THREADPOOL_SIZE|MALLOC_\w+|PG[A-Z]+)$/;

/**
 * The environment of a child process: never Veza's own variables, which have its secrets. `ffmpeg` reads what strangers send. `node` is a
 * process of ours; it is handed its configuration by the one that starts it. `defaults` holds where the environment says nothing.
 */
export function childEnvironment(kind: 'ffmpeg' | 'node', defaults: Readonly<Record<string, string>> = {}): Record<string, string> {
  const needed = kind === 'ffmpeg' ? PROGRAM_VARIABLES : NODE_VARIABLES;
  const environment: Record<string, string> = { ...defaults };
  for (const [name, value] of Object.entries(process.env)) if (value !== undefined && needed.test(name)) environment[name] = value;
  return environment;
}

function shown(variable: Variable<unknown>, given: string): string {
  if (variable.secret) return 'wrong (not shown, it is a secret)';
  return JSON.stringify(given.length > 100 ? `${given.slice(0, 100)}…` : given);
}

/** RFC 8216bis rule of this project: a part is at least 85 % of the part target, so not every target suits every codec. */
const LEAST_PART = 0.85;

function partFits(partMs: number, codec: Codec): boolean {
  const target = (partMs * SAMPLE_RATE_HZ) / 1000;
  const frame = FRAME_SAMPLES[codec];
  return (Math.floor(target / frame) * frame) / target >= LEAST_PART;
}

/** What is right by itself and wrong together. */
function contradictions(values: Values): string[] {
  const problems: string[] = [];
  const { segmentMs, partMs, codecsEnabled } = values;
  if (segmentMs % 960 !== 0) problems.push(`SEGMENT_MS is "${segmentMs}"; allowed: a multiple of 960 from 960 to 9600`);
  if (partMs >= segmentMs / 2) problems.push(`PART_MS is "${partMs}"; allowed: less than half of SEGMENT_MS (${segmentMs})`);
  const lowLatency = codecsEnabled.filter((codec) => codec !== 'mp3');
  if (lowLatency.length === 0)
    problems.push(`CODECS_ENABLED is "${codecsEnabled.join(',')}"; allowed: a list with aac, opus or both in it`);
  if (!lowLatency.every((codec) => partFits(partMs, codec))) {
    const fits = (ms: number) => ms >= 100 && ms <= 1000 && lowLatency.every((codec) => partFits(ms, codec));
    let near = 1;
    while (near < 1000 && !fits(partMs - near) && !fits(partMs + near)) near++;
    const example = fits(partMs - near) ? partMs - near : partMs + near;
    problems.push(
      `PART_MS is "${partMs}"; allowed: a length that whole frames of ${lowLatency.join(' and ')} fill to 85 %, such as ${example}`,
    );
  }
  if (values.rtmpsPort !== undefined && !(values.tlsCertFile && values.tlsKeyFile)) {
    problems.push(`RTMPS_PORT is "${values.rtmpsPort}"; allowed: only together with TLS_CERT_FILE and TLS_KEY_FILE`);
  }
  if (values.wssPort !== undefined && !(values.tlsCertFile && values.tlsKeyFile)) {
    problems.push(`WSS_PORT is "${values.wssPort}"; allowed: only together with TLS_CERT_FILE and TLS_KEY_FILE`);
  }
  if (values.wssPort !== undefined && values.wssPort === values.wsPort && values.wssPort !== 0) {
    problems.push(`WSS_PORT is "${values.wssPort}"; allowed: a port of its own, not WS_PORT`);
  }
  if (values.roles.includes('chat') && (values.workerThreads ?? 1) > 1) {
    const { workerThreads, redisUrl, databaseUrl, wssPort, httpsPort } = values;
    if (redisUrl === undefined || databaseUrl === undefined)
      problems.push(
        `WORKER_THREADS is "${workerThreads}"; allowed: 1, or more together with REDIS_URL and DATABASE_URL, by which several processes share the rooms`,
      );
    if (wssPort !== undefined && wssPort === httpsPort && wssPort !== 0)
      problems.push(`WSS_PORT is "${wssPort}"; allowed with more than one chat process: a port of its own, not HTTPS_PORT`);
  }
  if (values.httpsPort !== undefined && !(values.tlsCertFile && values.tlsKeyFile)) {
    problems.push(`HTTPS_PORT is "${values.httpsPort}"; allowed: only together with TLS_CERT_FILE and TLS_KEY_FILE`);
  }
  if (values.metricsTls && !(values.internalCaFile && values.internalCertFile && values.internalKeyFile)) {
    problems.push('METRICS_TLS is "true"; allowed: only together with INTERNAL_CA_FILE, INTERNAL_CERT_FILE and INTERNAL_KEY_FILE');
  }
  problems.push(...workerContradictions(values));
  if (values.s3Bucket !== undefined) problems.push('S3_BUCKET is set; allowed: unset, because S3 is not supported yet');
  if (values.tracingEnabled) problems.push('TRACING_ENABLED is "true"; allowed: false, because tracing is not supported yet');
  const { authJwksUrl, authIssuer, authAudience } = values;
  if (authJwksUrl !== undefined) {
    // Without an audience, every token of the issuer for whatever service would be one for us.
    if (authIssuer === undefined) problems.push('AUTH_ISSUER is unset; allowed with AUTH_JWKS_URL: the issuer that its tokens name');
    if (authAudience === undefined) problems.push('AUTH_AUDIENCE is unset; allowed with AUTH_JWKS_URL: the audience that its tokens name');
  } else if (authIssuer !== undefined || authAudience !== undefined) {
    problems.push('AUTH_JWKS_URL is unset; allowed with AUTH_ISSUER or AUTH_AUDIENCE: the address of the issuer’s key set');
  }
  if (authIssuer !== undefined && ['gateway', values.publicUrl ?? `http://localhost:${values.port}`].includes(authIssuer)) {
    problems.push(`AUTH_ISSUER is "${authIssuer}"; allowed: an issuer that is neither "gateway" nor this service (PUBLIC_URL)`);
  }
  if (values.countryHeader !== undefined && values.trustProxyHops === 0)
    problems.push('COUNTRY_HEADER is set; allowed: only together with TRUST_PROXY, because otherwise anybody could write it');
  const { cloudFrontKeyPairId, cloudFrontPrivateKeyFile, cdnBaseUrl } = values;
  const cloudFront = [cloudFrontKeyPairId, cloudFrontPrivateKeyFile].filter((value) => value !== undefined).length;
  if (cloudFront === 1 || (cloudFront === 2 && cdnBaseUrl === undefined))
    problems.push('CLOUDFRONT_KEY_PAIR_ID, CLOUDFRONT_PRIVATE_KEY_FILE: not complete; allowed: both, and CDN_BASE_URL with them');
  if (values.environment === 'production') {
    if (!values.encryptionKey) problems.push(`ENCRYPTION_KEY is unset; allowed with ENVIRONMENT=production: ${key32.allowed}`);
    if (!values.databaseUrl) problems.push(`DATABASE_URL is unset; allowed with ENVIRONMENT=production: ${VARIABLES.databaseUrl.allowed}`);
  }
  return problems;
}

const LOOPBACK = ['127.0.0.1', '::1', '[::1]', 'localhost'];

/** One process takes broadcasts and another serves them: how they find each other, and that nobody else does. */
function workerContradictions(values: Values): string[] {
  const problems: string[] = [];
  const serves = values.roles.includes('app');
  const takes = values.roles.includes('ingest');
  if (serves === takes) return problems;
  const given = `ROLES is "${values.roles.join(',')}"`;
  const isMutual = values.internalCaFile && values.internalCertFile && values.internalKeyFile;
  if (!values.databaseUrl) problems.push(`DATABASE_URL is unset; allowed where ${given}: the PostgreSQL that app and worker share`);
  if (takes) {
    const { workerHost } = values;
    if (workerHost !== undefined && !isMutual && !LOOPBACK.includes(workerHost))
      problems.push(
        `WORKER_HOST is "${workerHost}"; allowed without INTERNAL_CA_FILE, INTERNAL_CERT_FILE and INTERNAL_KEY_FILE: 127.0.0.1, because whoever reached the port could end shows`,
      );
    if (values.workerClientNames !== undefined && !isMutual)
      problems.push('WORKER_CLIENT_NAMES is set; allowed: only together with INTERNAL_CA_FILE, INTERNAL_CERT_FILE and INTERNAL_KEY_FILE');
    return problems;
  }
  if (values.workerUrl === undefined) {
    problems.push(`WORKER_URL is unset; allowed where ${given}: the address of the worker, such as https://worker.internal:8090`);
    return problems;
  }
  const { protocol, hostname } = new URL(values.workerUrl);
  if (protocol === 'https:' && !isMutual)
    problems.push(
      `WORKER_URL is "${values.workerUrl}"; allowed: https:// only together with INTERNAL_CA_FILE, INTERNAL_CERT_FILE and INTERNAL_KEY_FILE`,
    );
  if (protocol === 'http:' && !LOOPBACK.includes(hostname))
    problems.push(`WORKER_URL is "${values.workerUrl}"; allowed: http:// only to 127.0.0.1; https:// to other machines`);
  return problems;
}

/**
 * Set variables that are one slip away from one of ours. Only a warning: the environment belongs to others too.
 * Short names are left out; they are near to anything.
 */
function misspelt(env: Readonly<Record<string, string | undefined>>): string[] {
  const ours = Object.values(VARIABLES).map((variable) => variable.name);
  const warnings: string[] = [];
  for (const name of Object.keys(env)) {
    if (ours.includes(name as (typeof ours)[number])) continue;
    const meant = ours.find((our) => our.length >= 6 && sameLetters(name, our));
    if (meant) warnings.push(`${name} is not a variable of Veza; did you mean ${meant}?`);
  }
  return warnings;
}

/** Equal but for case and separators, or one letter added, left out, changed, or two neighbours swapped. */
function sameLetters(given: string, ours: string): boolean {
  if (given.toUpperCase().replace(/[-_.]/g, '') === ours.replaceAll('_', '')) return true;
  if (Math.abs(given.length - ours.length) > 1) return false;
  let start = 0;
  while (start < given.length && given[start] === ours[start]) start++;
  const [a, b] = [given.slice(start), ours.slice(start)];
  if (a.slice(1) === b.slice(1) || a.slice(1) === b || a === b.slice(1)) return true;
  return a.length > 1 && a[0] === b[1] && a[1] === b[0] && a.slice(2) === b.slice(2);
}

/** `docs/configuration.md`. */
export function configurationReference(): string {
  const lines = [
    '# Configuration',
    '',
    'Veza reads its configuration from environment variables. A value that is not allowed stops the start with one line that',
    'names the variable, what was given and what is allowed. An empty variable counts as unset.',
    '',
    'This page is made from `src/config/config.ts`: `npm run -s veza -- config reference > docs/configuration.md`.',
    '',
    'Variables marked † are checked already but have no effect in this version.',
  ];
  for (const [group, title] of Object.entries(GROUPS)) {
    lines.push('', `## ${title}`, '', '| variable | default | unit | allowed | |', '|---|---|---|---|---|');
    for (const variable of Object.values(VARIABLES) as Variable<unknown>[]) {
      if (variable.group !== group) continue;
      const fallback = variable.fallback === undefined ? 'unset' : `\`${variable.fallback}\``;
      const { name, planned, unit, allowed, text } = variable;
      lines.push(`| \`${name}\`${planned ? ' †' : ''} | ${fallback} | ${unit} | ${allowed.replaceAll('*', '\\*')} | ${text} |`);
    }
  }
  return `${lines.join('\n')}\n`;
}
