import { openDatabase } from '../../src/backing/database.js';
import { silentLog } from '../../src/runtime/log.js';

/** Commits numbers and reports each, until it is killed. */
const database = await openDatabase({ url: undefined, dataDir: process.argv[2]!, poolSize: 1, timeoutMs: 10_000, log: silentLog });
await database.query('create table counted (n int primary key)');
for (let n = 1; ; n++) {
  await database.query('insert into counted values ($1)', [n]);
  process.send!(n);
}
