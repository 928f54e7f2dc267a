import { type Codec, FRAME_SAMPLES, SAMPLE_RATE_HZ } from '../media/ladder.js';
import { key32 } from './kinds.js';
import { type ConfigValues, VARIABLES } from './variables.js';

/**
 * A part must have at least 85 % of the part target (RFC 8216bis), so not every target suits every
 * codec.
 */
const LEAST_PART = 0.85;

function partFits(partMs: number, codec: Codec): boolean {
  const target = (partMs * SAMPLE_RATE_HZ) / 1000;
  const frame = FRAME_SAMPLES[codec];
  return (Math.floor(target / frame) * frame) / target >= LEAST_PART;
}

/** Values that are each allowed but contradict each other: one line per problem. */
export function contradictions(values: ConfigValues): string[] {
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
    // Without an audience, every token of the issuer would be accepted, whatever service it is for.
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

/**
 * Checks the roles of separate processes: if one takes broadcasts and another serves them, they
 * must find each other, and no other client may reach the worker.
 */
function workerContradictions(values: ConfigValues): string[] {
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
        `WORKER_HOST is "${workerHost}"; allowed without INTERNAL_CA_FILE, INTERNAL_CERT_FILE and INTERNAL_KEY_FILE: 127.0.0.1, because every client that reaches the port could end broadcasts`,
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
