import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Database, type DatabaseOptions, openDatabase, type Queryable } from '../../src/backing/database/database.js';
import { MIGRATIONS } from '../../src/backing/database/migrations/index.js';
import { type Clock, FakeClock } from '../../src/runtime/clock.js';
import { VezaError } from '../../src/runtime/errors.js';
import { silentLog } from '../../src/runtime/log.js';
import { FaultyLine } from '../support/faulty-line.js';
import { startPostgres } from '../support/postgres.js';
import { eventually } from '../support/process.js';

const code = (expected: string) => (error: unknown) => error instanceof VezaError && error.code === expected;

const makers = {
  embedded: async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'veza-db-'));
    return { url: undefined, dataDir, release: () => rm(dataDir, { recursive: true }) };
  },
  'PostgreSQL of Debian': async () => {
    const server = await startPostgres();
    return { url: server.url, dataDir: '/nonexistent', release: server.stop };
  },
};

for (const [name, make] of Object.entries(makers)) {
  describe(`database: ${name}`, () => {
    let options: DatabaseOptions;
    let database: Database;
    let release: () => Promise<void>;
    before(async () => {
      const made = await make();
      release = made.release;
      options = { url: made.url, dataDir: made.dataDir, poolSize: 8, timeoutMs: 10_000, log: silentLog };
      database = await openDatabase(options);
      await database.query('create table things (id int primary key, big int8, at timestamptz default now(), more jsonb)');
    });
    after(async () => {
      await database.stop();
      await release();
    });

    test('values come back as documented', async () => {
      await database.query('insert into things (id, big, more) values ($1, $2, $3)', [1, 2 ** 40, { a: [1] }]);
      const { rows, rowCount } = await database.query('select * from things where id = $1', [1]);
      assert.equal(rowCount, 1);
      assert.equal(rows[0]!.big, 2 ** 40);
      assert.ok(rows[0]!.at instanceof Date);
      assert.deepEqual(rows[0]!.more, { a: [1] });
    });

    test('a transaction whose failed statement was passed over is no success', async () => {
      const passedOver = database.transaction(async (connection) => {
        await connection.query('insert into things (id) values (90)');
        await assert.rejects(connection.query('insert into things (id) values (90)'), code('conflict'));
        return 'done';
      });
      await assert.rejects(passedOver, /rolled back/);
      assert.equal((await database.query('select 1 from things where id = 90')).rowCount, 0);
    });

    test('a taken value is a conflict, a defect stays what it is, and both leave the database usable', async () => {
      await assert.rejects(database.query('insert into things (id) values (1)'), code('conflict'));
      await assert.rejects(database.query('select nonsense from things'), /nonsense/);
      assert.equal((await database.query('select 1 as one')).rows[0]!.one, 1);
    });

    test('what cannot be done now is unavailable, alone and in a transaction', async () => {
      const raise = (state: string) => `do $$ begin raise exception 'x' using errcode = '${state}'; end $$`;
      const notNow = [
        '08006',
        '25006',
        '25P03',
        '25P04',
        '28P01',
        '3D000',
        '40001',
        '40003',
        '40P01',
        '53100',
        '53300',
        '55P03',
        '57014',
        '57P01',
        '57P02',
        '57P03',
        '58030',
      ];
      for (const state of notNow) {
        await assert.rejects(database.query(raise(state)), code('unavailable'), state);
        await assert.rejects(
          database.transaction((connection) => connection.query(raise(state))),
          code('unavailable'),
          state,
        );
      }
      for (const state of ['22P02', '23503', '25P02', '40002', '42501', '42P01', 'P0001', 'XX000'])
        await assert.rejects(database.query(raise(state)), (error) => !(error instanceof VezaError), state);
      const written = database.transaction(async (connection) => {
        await connection.query('set transaction read only');
        await connection.query('insert into things (id) values (2)');
      });
      await assert.rejects(written, code('unavailable'));
      assert.equal((await database.query('select 1 as one')).rows[0]!.one, 1);
    });

    test('many at once: queries, errors, commits and rollbacks do not disturb each other', async () => {
      const work = Array.from({ length: 300 }, async (_, i) => {
        if (i % 4 === 0) {
          assert.equal((await database.query('select $1::text as text, $2::int as n', [`t${i}`, i])).rows[0]!.text, `t${i}`);
        } else if (i % 4 === 1) {
          await assert.rejects(database.query('insert into things (id) values ($1)', [1]), code('conflict'));
        } else {
          const outcome = database.transaction(async (connection) => {
            await connection.query('insert into things (id) values ($1)', [1000 + i]);
            if (i % 4 === 3) throw new Error('changed my mind');
          });
          if (i % 4 === 3) await assert.rejects(outcome, /changed my mind/);
          else await outcome;
        }
      });
      await Promise.all(work);
      assert.equal((await database.query('select count(*)::int as n from things where id >= 1000')).rows[0]!.n, 75);
    });

    test('opened again, migrations are not applied twice', async () => {
      await database.stop();
      database = await openDatabase(options);
      const { rows } = await database.query('select name from schema_migrations order by name');
      assert.deepEqual(
        rows.map((row) => row.name),
        MIGRATIONS.map((migration) => migration.name),
      );
    });

    test('tables of a later version are refused', async () => {
      await database.query("insert into schema_migrations (name) values ('9999-later')");
      if (!options.url) await database.stop();
      await assert.rejects(openDatabase(options), /newer than this version of Veza: it has 9999-later/);
      if (options.url) await database.query("delete from schema_migrations where name = '9999-later'");
    });
  });
}

test('database: a server that takes no connections, or not of this role, is unavailable until it does', async () => {
  const server = await startPostgres();
  const admin = await openDatabase({ url: server.url, dataDir: '/nonexistent', poolSize: 1, timeoutMs: 10_000, log: silentLog });
  const url = new URL(server.url);
  url.pathname = '/closed';
  url.searchParams.set('user', 'app');
  for (const sql of ['create role app login', 'create database closed owner app']) await admin.query(sql);
  const database = await openDatabase({ url: url.href, dataDir: '/nonexistent', poolSize: 2, timeoutMs: 10_000, log: silentLog });
  const cut = () => admin.query("select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = 'closed'");
  const refused = async (reason: RegExp) => {
    await cut();
    // The first ones may meet a connection whose end has not been read yet.
    for (let tries = 0; ; tries++) {
      const error = await database.query('select 1').catch((failure: unknown) => failure);
      assert.ok(error instanceof VezaError && error.code === 'unavailable', String(error));
      if (reason.test(String((error.cause as { code?: string }).code))) break;
      assert.ok(tries < 20, String(error.cause));
    }
    await assert.rejects(
      database.transaction((connection) => connection.query('select 1')),
      code('unavailable'),
    );
  };
  try {
    await admin.query('alter database closed allow_connections false');
    await refused(/^55000$/);
    await admin.query('alter database closed allow_connections true');
    assert.equal((await database.query('select 1 as one')).rows[0]!.one, 1);
    await admin.query('revoke connect on database closed from public, app');
    await refused(/^42501$/);
    await admin.query('grant connect on database closed to app');
    assert.equal((await database.query('select 1 as one')).rows[0]!.one, 1);
    for (const state of ['42501', '55000'])
      await assert.rejects(
        database.query(`do $$ begin raise exception 'x' using errcode = '${state}'; end $$`),
        (error) => !(error instanceof VezaError),
        'of a statement it is a defect',
      );
  } finally {
    await database.stop();
    await admin.stop();
    await server.stop();
  }
});

test('two processes may start on one PostgreSQL at once', async () => {
  const server = await startPostgres();
  const open = () => openDatabase({ url: server.url, dataDir: '/nonexistent', poolSize: 2, timeoutMs: 10_000, log: silentLog });
  const databases = await Promise.all([open(), open(), open()]);
  for (const database of databases) await database.stop();
  await server.stop();
});

test('a statement that takes too long, and a database that is not there, are unavailable', async () => {
  const server = await startPostgres();
  const options = { url: server.url, dataDir: '/nonexistent', poolSize: 2, timeoutMs: 500, log: silentLog };
  const database = await openDatabase(options);
  await assert.rejects(database.query('select pg_sleep(60)'), code('unavailable'));
  await server.stop();
  await assert.rejects(database.query('select 1'), code('unavailable'));
  await assert.rejects(
    database.transaction(async () => undefined),
    code('unavailable'),
  );
  await database.stop();
  await assert.rejects(openDatabase(options), code('unavailable'));
});

test("a connection that is lost inside a transaction is its transaction's error alone, and is not used again", async () => {
  const server = await startPostgres();
  const open = (poolSize: number) =>
    openDatabase({ url: server.url, dataDir: '/nonexistent', poolSize, timeoutMs: 10_000, log: silentLog });
  const database = await open(1);
  const other = await open(4);
  const pidOf = async (connection: Queryable) => (await connection.query<{ pid: number }>('select pg_backend_pid() as pid')).rows[0]!.pid;
  const terminate = (pid: number) => other.query('select pg_terminate_backend($1)', [pid]);
  const isGone = (pid: number) =>
    eventually('the backend is gone', async () =>
      (await other.query('select 1 from pg_stat_activity where pid = $1', [pid])).rowCount === 0 ? true : undefined,
    );
  const lost: number[] = [];

  // Between two statements, when nothing waits for an answer.
  await assert.rejects(
    database.transaction(async (connection) => {
      lost.push(await pidOf(connection));
      await terminate(lost[0]!);
      await isGone(lost[0]!);
      await connection.query('select 1');
    }),
    code('unavailable'),
  );
  // After the last statement: `commit` meets it.
  await assert.rejects(
    database.transaction(async (connection) => {
      lost.push(await pidOf(connection));
      await terminate(lost[1]!);
      await isGone(lost[1]!);
    }),
    code('unavailable'),
  );
  // In a statement that waits for a lock.
  await other.transaction(async (holder) => {
    await holder.query('select pg_advisory_xact_lock(5)');
    await assert.rejects(
      database.transaction(async (connection) => {
        lost.push(await pidOf(connection));
        const waits = connection.query('select pg_advisory_xact_lock(5)');
        waits.catch(() => undefined);
        await terminate(lost[2]!);
        await waits;
      }),
      code('unavailable'),
    );
  });
  assert.ok(!lost.includes(await pidOf(database)));
  assert.equal(new Set(lost).size, 3);

  // The whole server, with several transactions at different points.
  const outcomes = [
    other.transaction((connection) => connection.query('select pg_sleep(30)')),
    other.transaction(async () => server.crash()),
    other.transaction(async (connection) => {
      await connection.query('select 1');
      await server.crash();
    }),
  ];
  for (const outcome of await Promise.allSettled(outcomes)) {
    assert.ok(outcome.status === 'rejected' && code('unavailable')(outcome.reason), JSON.stringify(outcome));
  }
  await server.restart();
  assert.equal((await other.transaction((connection) => connection.query('select 1 as one'))).rows[0]!.one, 1);
  assert.equal((await database.transaction((connection) => connection.query('select 1 as one'))).rows[0]!.one, 1);
  await database.stop();
  await other.stop();
  await server.stop();
});

test('bytes that are no answer break the connection and nothing else', async () => {
  const server = await startPostgres();
  const line = await FaultyLine.to({ path: `${new URL(server.url).searchParams.get('host')}/.s.PGSQL.5432` });
  const url = `postgres://postgres@127.0.0.1:${line.port}/postgres`;
  const database = await openDatabase({ url, dataDir: '/nonexistent', poolSize: 1, timeoutMs: 200, log: silentLog });
  // Each byte of the greeting, and of the first messages after it.
  for (let at = 0; at < 40; at++) {
    let passed = 0;
    let isDone = false;
    line.cutAll();
    line.fault = ({ from, bytes }) => {
      if (from === 'client' || isDone) return undefined;
      const start = passed;
      passed += bytes.length;
      if (at >= passed) return undefined;
      isDone = true;
      return { kind: 'garble', at: at - start, count: 1 };
    };
    await Promise.allSettled([database.query('select $1::text as text', ['abc']), database.query('select nonsense')]);
    assert.ok(isDone);
    line.heal();
  }
  await eventually('it is asked again', async () => (await database.query('select 1 as one')).rows[0]!.one === 1 || undefined);

  // What no server says to a commit is neither a success nor a defect of ours.
  const pid = async () => (await database.query('select pg_backend_pid() as pid')).rows[0]!.pid;
  const before = await pid();
  const changed = database.transaction(async (connection) => {
    await connection.query('select 1');
    line.fault = ({ from, bytes }) => {
      const at = from === 'server' ? bytes.indexOf('COMMIT') : -1;
      return at < 0 ? undefined : { kind: 'garble', at, count: 2 };
    };
  });
  await assert.rejects(changed, code('unavailable'));
  line.heal();
  assert.notEqual(await pid(), before, 'its connection is used no more');
  await database.stop();
  await line.stop();
  await server.stop();
});

test('embedded: a first start that takes longer than the limit of a statement is waited for, and says what it does', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'veza-db-'));
  const clock = new FakeClock();
  const told: Record<string, unknown>[] = [];
  const log = { ...silentLog, warn: (fields: object) => void told.push(fields as Record<string, unknown>) };
  const passing = setInterval(() => clock.advance(5000), 5);
  // Only what is said again and again: limits of a start do not pass.
  const unlimited: Clock = {
    monotonicMs: () => 0,
    wallMs: () => 0,
    every: (ms, task) => clock.every(ms, task),
    after: () => () => undefined,
  };
  let isStarting = true;
  // Nothing of it is done in a millisecond.
  const database = await openDatabase({
    ...{ url: undefined, dataDir, poolSize: 1, timeoutMs: 1, log, clock: unlimited },
    isStarting: () => isStarting,
  });
  clearInterval(passing);
  const steps = new Set(told.filter(({ event }) => event === 'database.starting').map(({ step }) => step));
  assert.ok(steps.size > 1, [...steps].join());
  // What the rest of a start asks has its time too, and then the limit holds.
  assert.equal((await database.query('select 1 as one')).rows[0]!.one, 1);
  isStarting = false;
  const many = await Promise.allSettled(Array.from({ length: 500 }, () => database.query('select 1')));
  assert.ok(many.some((outcome) => outcome.status === 'rejected' && code('unavailable')(outcome.reason)));
  isStarting = true;
  await database.stop();
  await rm(dataDir, { recursive: true });
});

test('tables that another process brings up to date are waited for', async () => {
  const server = await startPostgres();
  const options = { url: server.url, dataDir: '/nonexistent', poolSize: 2, timeoutMs: 300, log: silentLog };
  const first = await openDatabase(options);
  let opening: Promise<Database> | undefined;
  await first.transaction(async (holder) => {
    await holder.query('select pg_advisory_xact_lock($1)', [0x76657a61]);
    opening = openDatabase(options);
    opening.catch(() => undefined);
    await eventually('it has waited for longer than a statement may take', async () => {
      const waits = `select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%advisory%' and now() - query_start > interval '400 ms'`;
      return (await first.query(waits)).rowCount === 1 || undefined;
    });
  });
  await (await opening!).stop();
  await first.stop();
  await server.stop();
});

/** How many commits were answered, and how many of them are there when only what was synced is. */
async function powerCut(sync: boolean): Promise<{ answered: number; kept: number }> {
  const home = await mkdtemp(join(tmpdir(), 'veza-db-'));
  const [dataDir, left] = [join(home, 'data'), join(home, 'left')];
  const options = { url: undefined, poolSize: 1, timeoutMs: 10_000, log: silentLog, isStarting: () => true };
  const first = await openDatabase({ ...options, dataDir, sync });
  await first.query('create table counted (n int primary key)');
  await first.stop();
  await cp(dataDir, left, { recursive: true, filter: (path) => !/(?:lock|\.s\.PGSQL\.\d+)$/.test(path) });
  const watched = { POWER_CUT_OF: join(dataDir, 'database'), POWER_CUT_LEAVES: join(left, 'database') };
  const child = fork(new URL('./database-child.ts', import.meta.url), [dataDir, sync ? 'yes' : 'no'], {
    execArgv: ['--import', 'tsx', '--require', fileURLToPath(new URL('../support/power-cut.cjs', import.meta.url))],
    env: { ...process.env, ...watched },
  });
  let answered = 0;
  child.on('message', (n) => {
    answered = n as number;
  });
  while (answered < 30) await once(child, 'message');
  child.kill('SIGKILL');
  await once(child, 'exit');
  let kept = 0;
  try {
    const database = await openDatabase({ ...options, dataDir: left });
    kept = (await database.query<{ n: number }>('select count(*)::int as n from counted')).rows[0]!.n;
    await database.stop();
  } catch (error) {
    // Without syncs not even the rest need be whole.
    if (sync) throw error;
  }
  await rm(home, { recursive: true });
  return { answered, kept };
}

test('embedded: a power cut takes nothing that was answered, unless one asks for it', async () => {
  const [synced, relaxed] = await Promise.all([powerCut(true), powerCut(false)]);
  assert.ok(synced.kept >= synced.answered, JSON.stringify(synced));
  // Otherwise the test would not see a loss.
  assert.ok(relaxed.kept < relaxed.answered, JSON.stringify(relaxed));
});

test('embedded: kill -9 loses nothing that was committed, and the directory is not for two', async () => {
  // Longer than a Unix socket's address.
  const dataDir = join(await mkdtemp(join(tmpdir(), 'veza-db-')), 'a-directory-with-a-long-name'.repeat(4));
  const child = fork(new URL('./database-child.ts', import.meta.url), [dataDir], { execArgv: ['--import', 'tsx'] });
  const options = { url: undefined, dataDir, poolSize: 1, timeoutMs: 10_000, log: silentLog };
  let committed = 0;
  child.on('message', (n) => {
    committed = n as number;
  });
  while (committed < 200) await once(child, 'message');
  await assert.rejects(openDatabase(options), (error) => code('conflict')(error) && /in use by another Veza process/.test(String(error)));
  child.kill('SIGKILL');
  await once(child, 'exit');
  const database = await openDatabase(options);
  const { rows } = await database.query<{ n: number; top: number }>('select count(*)::int as n, max(n)::int as top from counted');
  assert.ok(rows[0]!.top >= committed, `${rows[0]!.top} of ${committed}`);
  assert.equal(rows[0]!.n, rows[0]!.top);
  await database.stop();
  await rm(dataDir, { recursive: true });
});
