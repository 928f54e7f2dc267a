import { runService } from '../src/compose/run.js';

/** Takes broadcasts, makes shows of them, and answers an app's questions for them on `WORKER_PORT`; the same as `ROLES=ingest` (docs/workers.md). */
await runService({ ROLES: 'ingest' });
