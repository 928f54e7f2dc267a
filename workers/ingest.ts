import { runService } from '../src/compose/run.js';

/**
 * The ingest worker: takes broadcasts and answers apps' questions for them on `WORKER_PORT`. The
 * same as `ROLES=ingest` (docs/workers.md).
 */
await runService({ ROLES: 'ingest' });
