import { flag, integer, text, webAddress } from '../kinds.js';
import { set, unset } from './variable.js';

/** Metrics, traces, the certificates between our own processes, and limits of the process. */
export const OPERATIONS_VARIABLES = {
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
