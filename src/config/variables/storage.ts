import { address, addresses, flag, integer, text, webAddress } from '../kinds.js';
import { set, unset } from './variable.js';

/** The systems that keep data: PostgreSQL, Redis, the object store. */
export const STORAGE_VARIABLES = {
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
} as const;
