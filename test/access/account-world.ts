import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Access, type AccessOptions, openAccess } from '../../src/access/access.js';
import { type AccountRow, accountOf } from '../../src/access/accounts/account-rows.js';
import type { Database } from '../../src/backing/database/database.js';
import { FakeClock } from '../../src/runtime/clock.js';
import type { Log } from '../../src/runtime/log.js';
import { openTestDatabase } from '../support/database.js';
import { type SmtpServer, startSmtp } from '../support/smtp.js';

export const client = { address: '192.0.2.1', userAgent: 'Test/1' };
export const PASSWORD = 'three quiet herons';

export interface AccountWorld {
  readonly access: Access;
  readonly database: Database;
  readonly clock: FakeClock;
  readonly smtp: SmtpServer;
  /** Messages of the log with their fields. */
  readonly lines: { message: string; fields: Record<string, unknown> }[];
  /** Another process on the same database. */
  open(options?: Partial<AccessOptions>): Promise<Access>;
  /** Waits until what was asked for has arrived, and takes it: the mails to this address. */
  mailsTo(address: string): Promise<{ subject: string; token: string | undefined; text: string }[]>;
  /** Registered and confirmed; its id. */
  account(email: string, role?: string): Promise<string>;
  state(email: string): Promise<string | undefined>;
  stop(): Promise<void>;
}

/** Accounts with a real database, real hashes, a real mail server, and a clock that stands. `poolSize`: statements that run at once. */
export async function accountWorld(given: Partial<AccessOptions> = {}, poolSize = 1): Promise<AccountWorld> {
  const dataDir = await mkdtemp(join(tmpdir(), 'veza-accounts-'));
  const database = await openTestDatabase({ poolSize });
  const clock = new FakeClock();
  const smtp = await startSmtp();
  const lines: AccountWorld['lines'] = [];
  const add = (fields: object, message: string) => void lines.push({ message, fields: { ...fields } });
  const log: Log = { debug: add, info: add, warn: add, error: add, child: () => log };
  const opened: Access[] = [];
  const open = async (options: Partial<AccessOptions> = {}) => {
    const made = await openAccess({
      ...{ database, dataDir, clock, log, publicUrl: 'https://radio.example', environment: 'test' },
      ...{ smtpUrl: smtp.url, rateLimitPerMinute: 100_000 },
      ...given,
      ...options,
    });
    opened.push(made);
    // Not `start`: its timers would run a month of polls when the clock is moved by one.
    await made.signingKeys.reload();
    return made;
  };
  const access = await open();
  const world: AccountWorld = {
    access,
    database,
    clock,
    smtp,
    lines,
    open,
    async mailsTo(address) {
      for (const one of opened) {
        await one.registration.idle();
        await one.mail.idle();
      }
      const mine = smtp.mails.filter(({ to }) => to.some((one) => one.toLowerCase() === address.toLowerCase()));
      smtp.mails.splice(0, smtp.mails.length, ...smtp.mails.filter((mail) => !mine.includes(mail)));
      return mine.map(({ headers, token, text }) => ({ subject: headers.get('subject')!, token, text }));
    },
    async account(email, role = 'listener') {
      await access.registration.register({ email, password: PASSWORD, name: 'Somebody' }, client.address);
      const id = (await access.accounts.byEmail(email))!.id;
      await database.query('update accounts set confirmed_at = now(), role = $2 where id = $1', [id, role]);
      await world.mailsTo(email);
      return id;
    },
    async state(email) {
      const { rows } = await database.query<AccountRow>('select * from accounts where email_key = $1', [email]);
      return rows[0] && accountOf(rows[0]).state;
    },
    async stop() {
      for (const one of opened) await one.stop();
      await smtp.stop();
      await database.stop();
      await rm(dataDir, { recursive: true });
    },
  };
  return world;
}
