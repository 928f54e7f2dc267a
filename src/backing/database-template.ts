import { access } from 'node:fs/promises';
import { clusterTemplate, makeCluster } from './database-embedded.js';

/** The last step of the build: the empty cluster that every new embedded database is a copy of. Done once for a PGlite version. */
const template = clusterTemplate();
await access(template).catch(() => makeCluster(template));
