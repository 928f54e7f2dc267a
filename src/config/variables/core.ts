import { oneOf, someOf, text } from '../kinds.js';
import { set, unset } from './variable.js';

/** The environment, name and roles of this process. */
export const CORE_VARIABLES = {
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
    'The lowest level of log lines that are written.',
  ),
  dataDir: set(
    'DATA_DIR',
    'core',
    text(),
    './data',
    'The folder for the embedded database, segments and the admin token. Two services must not share it.',
  ),
  roles: set('ROLES', 'core', someOf('app', 'chat', 'ingest', 'transcode'), 'app,chat,ingest,transcode', 'The roles of this process.'),
} as const;
