import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MIGRATIONS } from '../../src/backing/database/migrations/index.js';
import { type SourceFile, sourceFiles } from '../support/source-files.js';
import { tablesNamedIn } from '../support/sql-in-source.js';
import { TABLE_OWNERS } from '../support/table-owners.js';

/** What crosses today, by file or folder, and why. A table that is no longer named there has to leave the list. */
const CROSSINGS: readonly { readonly from: string; readonly tables: readonly string[]; readonly because: string }[] = [
  {
    from: 'src/access/accounts/account-export.ts',
    tables: ['api_keys', 'audit_log', 'channel_members', 'channels', 'passkeys', 'recovery_codes', 'sessions'],
    because: 'An export is everything that the service keeps about one account, read in one place so that nothing is left out.',
  },
  {
    from: 'src/access/accounts/accounts.ts',
    tables: ['channels', 'sessions'],
    because: 'Deleting or banning an account ends its sessions and takes its channels in the same transaction.',
  },
  {
    from: 'src/access/accounts/fresh-sign-in.ts',
    tables: ['sessions'],
    because: 'The proof is a column of the session; it is written under the lock that checks it.',
  },
  {
    from: 'src/access/accounts/ways-in.ts',
    tables: ['api_keys', 'passkeys'],
    because: 'What opens an account beside its password is counted in one statement, so that it is one moment.',
  },
  {
    from: 'src/access/channels.ts',
    tables: ['accounts'],
    because: 'The owner’s row is locked while the quota of channels is counted, and stream keys end with their maker.',
  },
  {
    from: 'src/access/members.ts',
    tables: ['accounts', 'channels'],
    because: 'The owner is a column of the channel, and members are listed by the names of their accounts, page by page.',
  },
  {
    from: 'src/access/playback/playback-rules.ts',
    tables: ['broadcasts', 'channels'],
    because: 'The rules are a copy in memory of what channels and recordings say; it is read whole, after each change.',
  },
  {
    from: 'src/access/second-factor',
    tables: ['accounts'],
    because: 'The authenticator app’s secret and its last used step are columns of the account.',
  },
  {
    from: 'src/access/tokens',
    tables: ['accounts'],
    because: 'A credential is worth what its account is now; role and ban are read with it in one statement.',
  },
  {
    from: 'src/access/vault.ts',
    tables: ['accounts', 'chat_secrets', 'mail_outbox', 'playback_keys', 'refresh_tokens', 'signing_keys', 'webhooks'],
    because: 'A new data key seals every stored secret again, whatever table it is in.',
  },
  {
    from: 'src/chat/moderation',
    tables: ['channels', 'messages', 'reactions', 'room_pins', 'rooms'],
    because: 'Sanctions lock the room’s row against what is being written, and rules are read with the room they are of.',
  },
  {
    from: 'src/chat/rooms/room-history.ts',
    tables: ['channels'],
    because: 'A room is found by its channel’s slug, and has its visibility.',
  },
  {
    from: 'src/chat/rooms/sweeper.ts',
    tables: ['broadcasts'],
    because: 'Messages are kept for as long as the recording that was made meanwhile.',
  },
  {
    from: 'src/library/broadcasts.ts',
    tables: ['channels', 'playback_changes', 'playback_closed'],
    because:
      'A recording has its channel’s slug, and its visibility and countries unless it has its own; one that is deleted is closed to playback in the same transaction.',
  },
  {
    from: 'src/live/title-notes.ts',
    tables: ['channels', 'now_playing'],
    because: 'The row is how the process with the broadcasts tells the process with the chat what is heard.',
  },
];

const isIn = (file: string, place: string) => file === place || file.startsWith(`${place}/`);

/** Named outside of its owner, and not on the list: `file: table`. */
function breachesIn(files: readonly SourceFile[]): string[] {
  return files
    .flatMap((file) => tablesNamedIn(file, Object.keys(TABLE_OWNERS)))
    .filter(({ file, table }) => !isIn(file, TABLE_OWNERS[table]!))
    .filter(({ file, table }) => !CROSSINGS.some(({ from, tables }) => isIn(file, from) && tables.includes(table)))
    .map(({ file, table }) => `${file}: ${table}`);
}

const files = sourceFiles(['src', 'workers']).filter(({ path }) => !isIn(path, 'src/backing/database/migrations'));

test('every table of the migrations has one owner, and every owner is there', () => {
  const made = MIGRATIONS.flatMap(({ sql }) => [...sql.matchAll(/create table (\w+)/g)].map(([, name]) => name!));
  assert.deepEqual([...made, 'schema_migrations'].sort(), Object.keys(TABLE_OWNERS).sort());
  for (const owner of new Set(Object.values(TABLE_OWNERS)))
    assert.ok(
      files.some(({ path }) => isIn(path, owner)),
      `there is no ${owner}`,
    );
});

test('only its owner names a table in SQL', () => {
  assert.deepEqual(breachesIn(files), []);
});

test('what the list of crossings allows is done', () => {
  const named = files.flatMap((file) => tablesNamedIn(file, Object.keys(TABLE_OWNERS)));
  const unused = CROSSINGS.flatMap(({ from, tables }) =>
    tables.filter((table) => !named.some((one) => one.table === table && isIn(one.file, from))).map((table) => `${from}: ${table}`),
  );
  assert.deepEqual(unused, []);
});

test('a statement in another room is found, in whatever form, and prose is not', () => {
  const path = 'src/live/breach.ts';
  const found = (text: string) => breachesIn([{ path, text }]);
  assert.deepEqual(found(`await database.query('select 1 from accounts where id = $1', [id]);`), [`${path}: accounts`]);
  assert.deepEqual(found('const sql = `select $' + '{columns} from rooms r\n  join messages m on m.room_id = r.id`;').sort(), [
    `${path}: messages`,
    `${path}: rooms`,
  ]);
  assert.deepEqual(found('const pattern = /[`\'"]/; const sql = `update $' + '{x ? `a` : "b"} set y; delete from sessions`;'), [
    `${path}: sessions`,
  ]);
  assert.deepEqual(found(`const one = { table: 'webhooks' };`), [`${path}: webhooks`]);
  assert.deepEqual(found(`// select from accounts\n/** delete from rooms */\nthrow new Error('nobody hears of accounts');`), []);
  const isAllowed = { path: 'src/access/tokens/x.ts', text: `query('select role from accounts')` };
  assert.deepEqual(breachesIn([isAllowed]), []);
});
