import { openDatabase } from '../../src/backing/database/database.js';
import { silentLog } from '../../src/runtime/log.js';

/** Commits numbers and reports each, until it is killed. With `no` behind the directory a commit is not synced. */
const [, , dataDir, sync] = process.argv;
const options = { url: undefined, dataDir: dataDir!, sync: sync !== 'no', poolSize: 1, timeoutMs: 10_000, log: silentLog };
const database = await openDatabase({ ...options, isStarting: () => true });
await database.query('create table if not exists counted (n int primary key)');
for (let n = 1; ; n++) {
  await database.query('insert into counted values ($1)', [n]);
  process.send!(n);
}
