import { flag, integer, text, webAddress } from '../kinds.js';
import { set, unset } from './variable.js';

/** Metrics, traces, the certificates between Veza's own processes, and limits of the process. */
export const OPERATIONS_VARIABLES = {
  metricsEnabled: set('METRICS_ENABLED', 'ops', flag, 'true', 'Listen on `PROMETHEUS_PORT`.'),
  metricsTls: set(
    'METRICS_TLS',
    'ops',
    flag,
    'false',
    '`PROMETHEUS_PORT` uses TLS 1.3 and accepts only clients with a certificate that `INTERNAL_CA_FILE` has signed.',
  ),
  internalCaFile: unset(
    'INTERNAL_CA_FILE',
    'ops',
    text(),
    'The certificate of the authority for mutual TLS between Veza’s own processes, PEM.',
  ),
  internalCertFile: unset(
    'INTERNAL_CERT_FILE',
    'ops',
    text(),
    'The certificate of this process, signed by `INTERNAL_CA_FILE`, PEM. Read again when it changes.',
  ),
  internalKeyFile: unset('INTERNAL_KEY_FILE', 'ops', text(), 'The private key of `INTERNAL_CERT_FILE`, PEM.'),
  tracingEnabled: set('TRACING_ENABLED', 'ops', flag, 'false', 'Not supported yet: with `true` Veza does not start.'),
  otlpEndpoint: unset('OTEL_EXPORTER_OTLP_ENDPOINT', 'ops', webAddress, 'The address to which traces are sent.', { planned: true }),
  workerThreads: unset(
    'WORKER_THREADS',
    'ops',
    integer(1, 1024),
    'Chat processes. More than one needs `REDIS_URL` and `DATABASE_URL`. Unset: one per core if both are set, otherwise one.',
  ),
  memoryLimitMb: unset(
    'MEMORY_LIMIT_MB',
    'ops',
    integer(64, 1_048_576),
    'The memory that is 100 % for `memory_usage_percent`. Unset: the memory of the machine or of its container.',
    { unit: 'MB' },
  ),
  shutdownTimeoutS: set('SHUTDOWN_TIMEOUT_S', 'ops', integer(1, 600), '30', 'How long a graceful stop may take.', { unit: 's' }),
} as const;
