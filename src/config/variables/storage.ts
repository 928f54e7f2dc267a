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
    'Whether the embedded database confirms a change only when it is on the disk. `false` is faster, but a power cut loses the changes of the last half minute. Has no effect with `DATABASE_URL`.',
  ),
  databaseTimeoutMs: set(
    'DATABASE_TIMEOUT_MS',
    'database',
    integer(100, 600_000),
    '5000',
    'Timeout of a connection attempt and of a statement.',
    {
      unit: 'ms',
    },
  ),

  redisUrl: unset(
    'REDIS_URL',
    'redis',
    addresses('redis', 'rediss'),
    'Redis 7 or later, a single server or a cluster: for a cluster list some of its nodes, with the same user and password. It shares rate limits and the chat between processes. Its `maxmemory-policy` must be `noeviction`. Unset: each process counts for itself, as while Redis is unavailable.',
    { secret: true },
  ),
  redisPoolSize: set('REDIS_POOL_SIZE', 'redis', integer(1, 1000), '10', 'Connections.', { planned: true }),
  redisTtlDefaultS: set(
    'REDIS_TTL_DEFAULT',
    'redis',
    integer(1, 31_536_000),
    '3600',
    'How long entries without their own lifetime are kept.',
    {
      unit: 's',
      planned: true,
    },
  ),

  s3Bucket: unset(
    'S3_BUCKET',
    'objects',
    text(63),
    'The bucket for media. Unset: files in `DATA_DIR`. Not supported yet: if it is set, Veza does not start.',
  ),
  s3Endpoint: unset('S3_ENDPOINT', 'objects', webAddress, 'The address of an object store other than Amazon’s.', { planned: true }),
  s3Region: unset('S3_REGION', 'objects', text(64), 'The bucket’s region.', { planned: true }),
  s3ForcePathStyle: set('S3_FORCE_PATH_STYLE', 'objects', flag, 'false', 'Whether the bucket is in the path and not in the host name.', {
    planned: true,
  }),
} as const;
