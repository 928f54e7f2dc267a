import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { emailAddress } from '../../src/access/accounts/email-address.js';
import { Mail } from '../../src/access/accounts/mail.js';
import { openVault, type Vault } from '../../src/access/vault.js';
import type { Database } from '../../src/backing/database/database.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { VezaError } from '../../src/runtime/errors.js';
import { type Log, silentLog } from '../../src/runtime/log.js';
import { openTestDatabase } from '../support/database.js';
import { freePorts } from '../support/free-port.js';
import { type SmtpServer, startSmtp } from '../support/smtp.js';

const DAY_MS = 24 * 3_600_000;

let dir: string;
let database: Database;
let vault: Vault;
let smtp: SmtpServer;
const clock = new FakeClock();
let lines: { level: string; message: string; fields: Record<string, unknown> }[];
const log: Log = (() => {
  const at = (level: string) => (fields: object, message: string) => void lines.push({ level, message, fields: { ...fields } });
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error'), child: () => log };
})();
let opened: Mail[];
const open = (smtpUrl: string | undefined, showsLinks = false) => {
  const mail = new Mail({ database, vault, clock, log, smtpUrl, from: 'Radio <radio@radio.example>', showsLinks });
  opened.push(mail);
  return mail;
};
const waiting = async () =>
  (await database.query<{ attempts: number; sealed_message: Buffer; next_attempt_at: Date }>('select * from mail_outbox order by id')).rows;
const HELLO = { to: 'ann@a.example', subject: 'Hello', text: 'A link:\n\nhttps://radio.example/account#token=secret\n' };

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'veza-mail-'));
  database = await openTestDatabase();
  vault = await openVault({ database, masterKey: Buffer.alloc(32, 7), clock: new FakeClock(), log: silentLog });
});
after(async () => {
  vault.stop();
  await database.stop();
  await rm(dir, { recursive: true });
});
beforeEach(async () => {
  lines = [];
  opened = [];
  smtp = await startSmtp();
  await database.query('delete from mail_outbox');
});
afterEach(async () => {
  for (const mail of opened) await mail.stop();
  await smtp.stop();
});

test('a mail arrives as it was written, and nothing of it stays', async () => {
  const mail = open(smtp.url);
  await mail.send({ ...HELLO, subject: 'Grüße', text: `${HELLO.text}Grüße\n${'long '.repeat(60)}\n` });
  await mail.idle();
  const [got] = smtp.mails;
  assert.equal(smtp.mails.length, 1);
  assert.equal(got!.from, 'radio@radio.example');
  assert.deepEqual(got!.to, ['ann@a.example']);
  assert.equal(got!.headers.get('from'), 'Radio <radio@radio.example>');
  assert.equal(got!.headers.get('to'), 'ann@a.example');
  assert.equal(got!.headers.get('auto-submitted'), 'auto-generated');
  assert.match(got!.headers.get('message-id')!, /^<veza\.\d+\.\d+@radio\.example>$/);
  assert.equal(got!.text, `${HELLO.text}Grüße\n${'long '.repeat(60)}\n`);
  assert.deepEqual(await waiting(), []);
});

test('what waits is sealed', async () => {
  await open('smtp://127.0.0.1:1').post(HELLO, database);
  const [row] = await waiting();
  assert.ok(!row!.sealed_message.includes('secret') && !row!.sealed_message.includes('ann@'));
});

test('it is sent only if its transaction is committed', async () => {
  const mail = open(smtp.url);
  await assert.rejects(
    database.transaction(async (connection) => {
      await mail.post(HELLO, connection);
      throw new Error('changed my mind');
    }),
    /changed my mind/,
  );
  mail.wake();
  await mail.idle();
  assert.deepEqual(smtp.mails, []);
});

test('a mail server that is away is tried again, less and less often, and given up after two days', async () => {
  const mail = open(`smtp://127.0.0.1:${(await freePorts(1))[0]}`);
  await mail.send(HELLO);
  await mail.idle();
  const waits: number[] = [];
  for (let tries = 1; ; tries++) {
    const [row] = await waiting();
    if (!row) break;
    assert.equal(row.attempts, tries);
    const waitMs = row.next_attempt_at.getTime() - clock.wallMs();
    waits.push(waitMs / 60_000);
    clock.advance(waitMs - 1);
    mail.wake();
    await mail.idle();
    assert.equal((await waiting())[0]!.attempts, tries, 'not before its time');
    clock.advance(1);
    mail.wake();
    await mail.idle();
  }
  assert.deepEqual(waits.slice(0, 8), [1, 2, 4, 8, 16, 32, 60, 60]);
  const hours = waits.reduce((sum, minutes) => sum + minutes, 0) / 60;
  assert.ok(hours >= 48 && hours < 50, `${hours} h`);
  assert.equal(lines.at(-1)!.level, 'error');
  assert.deepEqual(mail.counts, { sent: 0, retried: waits.length, dropped: 1 });
  assert.match(lines.at(-1)!.message, /two days/);
  assert.doesNotMatch(JSON.stringify(lines), /secret|ann@/, 'neither links nor addresses are in the log');
});

test('after an outage it arrives, and after a restart too', async () => {
  const before = open(`smtp://127.0.0.1:${(await freePorts(1))[0]}`);
  await before.send(HELLO);
  await before.idle();
  await before.stop();
  clock.advance(60_000);
  const next = open(smtp.url);
  next.start();
  await next.idle();
  assert.equal(smtp.mails.length, 1);
});

test('a poll finds what another process has posted', async () => {
  const mail = open(smtp.url);
  mail.start();
  await mail.idle();
  await mail.post(HELLO, database);
  clock.advance(15_000);
  await mail.idle();
  assert.equal(smtp.mails.length, 1);
});

test('two processes send a mail once', async () => {
  const [one, two] = [open(smtp.url), open(smtp.url)];
  for (let i = 0; i < 10; i++) await one!.post({ ...HELLO, to: `a${i}@a.example` }, database);
  one!.wake();
  two!.wake();
  await Promise.all([one!.idle(), two!.idle()]);
  assert.deepEqual(
    smtp.mails.map(({ to }) => to[0]).sort(),
    Array.from({ length: 10 }, (_, i) => `a${i}@a.example`),
  );
});

test('an address that is refused for good is not tried again; a server that is full is', async () => {
  const mail = open(smtp.url);
  smtp.refuse = (to) => (to.startsWith('gone') ? { responseCode: 550, message: 'no such user' } : { responseCode: 452, message: 'full' });
  await mail.send({ ...HELLO, to: 'gone@a.example' });
  await mail.send(HELLO);
  await mail.idle();
  assert.equal((await waiting()).length, 1);
  assert.deepEqual(lines.map(({ level }) => level).sort(), ['error', 'warn']);
  smtp.refuse = () => undefined;
  clock.advance(60_000);
  mail.wake();
  await mail.idle();
  assert.deepEqual(
    smtp.mails.map(({ to }) => to[0]),
    ['ann@a.example'],
  );
});

test('a mail whose link has expired is not sent any more', async () => {
  await open('smtp://127.0.0.1:1').post({ ...HELLO, untilMs: clock.wallMs() + 1000 }, database);
  clock.advance(1000);
  const mail = open(smtp.url);
  mail.wake();
  await mail.idle();
  assert.deepEqual([smtp.mails.length, (await waiting()).length], [0, 0]);
});

test('the outbox is bounded', async () => {
  const mail = open('smtp://127.0.0.1:1');
  await database.query(
    `insert into mail_outbox (sealed_message, next_attempt_at, created_at) select '\\x00', $1, $1 from generate_series(1, 10000)`,
    [new Date(clock.wallMs() + DAY_MS)],
  );
  await mail.post(HELLO, database);
  assert.equal((await database.query('select id from mail_outbox')).rowCount, 10_000);
  assert.match(lines.at(-1)!.message, /dropped/);
});

test('without a mail server links are in the log where that is wanted, and nowhere else', async () => {
  const link = 'https://radio.example/account#token=secret';
  await open(undefined, true).send({ ...HELLO, link });
  assert.equal(lines.at(-1)!.fields.link, link);
  lines = [];
  const silent = open(undefined, false);
  silent.start();
  await silent.send({ ...HELLO, link });
  assert.deepEqual(
    lines.map(({ level, message }) => [level, /SMTP_URL/.test(message)]),
    [['warn', true]],
  );
  assert.doesNotMatch(JSON.stringify(lines), /secret/);
  assert.deepEqual(await waiting(), []);
});

test('no header can be slipped in', async () => {
  const mail = open(smtp.url);
  for (const to of [
    'ann@a.example\r\nBcc: eve@a.example',
    'ann@a.example, eve@a.example',
    'Eve <eve@a.example>',
    'ann@a.example\u2028x',
    'a b@a.example',
  ]) {
    await assert.rejects(mail.send({ ...HELLO, to }), (error) => error instanceof VezaError && error.code === 'bad_request', to);
  }
  await assert.rejects(mail.send({ ...HELLO, subject: 'Hello\r\nBcc: eve@a.example' }), /not the subject/);
  assert.deepEqual(await waiting(), []);
  // What is text stays text.
  await mail.send({ ...HELLO, text: 'x\r\n.\r\nMAIL FROM:<eve@a.example>\r\nBcc: eve@a.example\r\n' });
  await mail.idle();
  assert.equal(smtp.mails.length, 1);
  assert.deepEqual(smtp.mails[0]!.to, ['ann@a.example']);
  assert.equal(smtp.mails[0]!.headers.get('bcc'), undefined);
});

test('addresses: one account whatever the case, and nothing but an address', () => {
  assert.deepEqual(emailAddress(' Ann.O+x@Radio.Example '), { shown: 'Ann.O+x@Radio.Example', key: 'ann.o+x@radio.example' });
  assert.equal(emailAddress('ANN@a.example').key, emailAddress('ann@A.example').key);
  // Full-width letters, a Kelvin sign, a ligature: all in their plain form.
  assert.deepEqual(emailAddress('ａnn@a.example'), { shown: 'ann@a.example', key: 'ann@a.example' });
  assert.equal(emailAddress('\u212aim@a.example').key, 'kim@a.example');
  assert.equal(emailAddress('ﬁn@a.example').key, 'fin@a.example');
  assert.equal(emailAddress('admin@localhost').key, 'admin@localhost');
  assert.equal(emailAddress('jürgen@münchen.example').shown, 'jürgen@münchen.example');
  const longest = `${'a'.repeat(64)}@${'b.'.repeat(90)}example.de`.slice(0, 254);
  assert.ok(emailAddress(longest.replace(/\.$/, 'x')));
  for (const wrong of [
    '',
    'ann',
    '@a.example',
    'ann@',
    'ann@@a.example',
    'a nn@a.example',
    'ann＠a.example＠b',
    'ann@a.example\n',
    'ann@a.ex\0ample',
    'ann@a..example',
    'ann@-a.example',
    'ann@a.example.',
    'ann\u200b@a.example',
    'ann\u202e@a.example',
    '"ann"@a.example',
    'ann@a.example，eve@a.example',
    `${'a'.repeat(65)}@a.example`,
    `${'a'.repeat(60)}@${'b'.repeat(200)}`,
    '\ud800@a.example',
  ]) {
    // A line break at the end is trimmed, and is no part of it.
    if (wrong === 'ann@a.example\n') assert.equal(emailAddress(wrong).shown, 'ann@a.example');
    else assert.throws(() => emailAddress(wrong), VezaError, JSON.stringify(wrong));
  }
});
