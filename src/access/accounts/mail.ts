import { createTransport } from 'nodemailer';
import type { Database, Queryable } from '../../backing/database/database.js';
import { BoundedLog } from '../../runtime/bounded-log.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { Vault } from '../vault.js';
import { emailAddress } from './email-address.js';

export interface MailMessage {
  readonly to: string;
  readonly subject: string;
  readonly text: string;
  /**
   * The link that is in `text`. A service without a mail server writes it to its log in
   * development.
   */
  readonly link?: string | undefined;
  /**
   * The account that the mail is about. If the account is deleted, its waiting mails are deleted
   * with it.
   */
  readonly accountId?: string | undefined;
  /** After this wall clock time in milliseconds the mail is dropped: its link has expired. */
  readonly untilMs?: number | undefined;
}

export interface MailOptions {
  readonly database: Database;
  readonly vault: Vault;
  readonly clock: Clock;
  readonly log: Log;
  /** `SMTP_URL`. Undefined: no mail can be sent. */
  readonly smtpUrl: string | undefined;
  readonly from: string;
  /**
   * Writes the links of mails that cannot be sent to the log. Not for production, where other
   * people read the log.
   */
  readonly showsLinks: boolean;
}

const PURPOSE = 'mail';
const GIVE_UP_MS = 2 * 24 * 3_600_000;
const FIRST_RETRY_MS = 60_000;
const LONGEST_RETRY_MS = 3_600_000;
/**
 * Longer than the timeouts of one delivery together. After it another process may send the mail.
 */
const LEASE_MS = 5 * 60_000;
const POLL_MS = 15_000;
const CONNECT_WITHIN_MS = 10_000;
const ANSWER_WITHIN_MS = 20_000;
/**
 * At most this many mails wait; a further one is dropped with a log line. The number is reached
 * only when the mail server does not answer and somebody floods the service.
 */
const MAX_WAITING = 10_000;
const MAX_TEXT_CHARS = 10_000;

/**
 * Sends mails by way of an outbox table. A mail that is posted in a transaction is sent after its
 * commit, by any one process, and is tried again for two days. A mail is sent twice if the server
 * took it and its answer was lost; both copies have the same Message-ID.
 */
export class Mail {
  readonly canSend: boolean;
  /** Whether a posted mail is sent, or its link is written to the log. */
  readonly reachesSomebody: boolean;
  /**
   * `dropped`: given up after two days, refused permanently, expired, or posted into a full outbox.
   */
  readonly counts = { sent: 0, retried: 0, dropped: 0 };
  readonly #options: MailOptions;
  readonly #transport: ReturnType<typeof createTransport> | undefined;
  #cancelPoll: () => void = () => undefined;
  #sending: Promise<void> | undefined;
  readonly #dropLog: BoundedLog;
  #wanted = false;
  #stopped = false;

  constructor(options: MailOptions) {
    this.#options = options;
    this.#dropLog = new BoundedLog(options.log, options.clock);
    this.canSend = options.smtpUrl !== undefined;
    this.reachesSomebody = this.canSend || options.showsLinks;
    this.#transport = this.canSend
      ? createTransport({
          url: options.smtpUrl!,
          connectionTimeout: CONNECT_WITHIN_MS,
          greetingTimeout: CONNECT_WITHIN_MS,
          dnsTimeout: CONNECT_WITHIN_MS,
          socketTimeout: ANSWER_WITHIN_MS,
          disableFileAccess: true,
          disableUrlAccess: true,
        })
      : undefined;
  }

  start(): void {
    const { clock, log, showsLinks } = this.#options;
    if (this.canSend) {
      this.#cancelPoll = clock.every(POLL_MS, () => this.wake());
      this.wake();
    } else if (!showsLinks) {
      log.warn({ event: 'mail.not_configured' }, 'SMTP_URL is not set: forgotten passwords cannot be reset by mail');
    }
  }

  /** Waits for the mail that is being sent. A second call does nothing. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancelPoll();
    await this.#sending;
    this.#transport?.close();
    this.#dropLog.close();
  }

  /** Posts a mail and starts sending. */
  async send(message: MailMessage): Promise<void> {
    await this.post(message, this.#options.database);
    this.wake();
  }

  /**
   * Posts a mail into the outbox, in the transaction of `connection`. The caller calls `wake` after
   * its commit. Throws if a header could contain a line break: no text from outside is put into a
   * header, so that is a programming error.
   */
  async post(message: MailMessage, connection: Queryable): Promise<void> {
    const { vault, clock, log, showsLinks } = this.#options;
    const to = emailAddress(message.to).shown;
    if (/\p{Cc}/u.test(message.subject) || message.subject.length > 200) throw new Error('this is not the subject of a mail');
    if (message.text.length > MAX_TEXT_CHARS) throw new Error('this mail is too long');
    if (!this.canSend) {
      if (showsLinks && message.link !== undefined)
        log.info(
          { event: 'mail.not_configured_link', to, subject: message.subject, link: message.link },
          'SMTP_URL is not set: the link of a mail is written here',
        );
      return;
    }
    const sealed = vault.seal(PURPOSE, JSON.stringify({ to, subject: message.subject, text: message.text, untilMs: message.untilMs }));
    const { rowCount } = await connection.query(
      `insert into mail_outbox (account_id, sealed_message, next_attempt_at, created_at)
       select $1, $2, $3, $3 where (select count(*) from mail_outbox) < $4`,
      [message.accountId ?? null, sealed, new Date(clock.wallMs()), MAX_WAITING],
    );
    if (rowCount > 0) return;
    this.counts.dropped++;
    this.#dropLog.error({ event: 'mail.queue_full', waiting: MAX_WAITING }, 'too many mails wait for the mail server: a mail was dropped');
  }

  /** Starts sending the mails that are due. */
  wake(): void {
    if (!this.canSend || this.#stopped) return;
    this.#wanted = true;
    this.#sending ??= this.#sendDue().finally(() => {
      this.#sending = undefined;
      // `wake` was called after the last query for due mails.
      if (this.#wanted) this.wake();
    });
  }

  /** Resolves when no mail is due any more. */
  async idle(): Promise<void> {
    while (this.#sending) await this.#sending;
  }

  async #sendDue(): Promise<void> {
    try {
      while (this.#wanted && !this.#stopped) {
        this.#wanted = false;
        while (!this.#stopped && (await this.#sendOne()));
      }
    } catch (error) {
      this.#options.log.warn(
        { event: 'mail.outbox_unreadable', error: messageOf(error) },
        'could not read the outbox of mails; will try again',
      );
    }
  }

  /** Sends one mail. Resolves to false if none is due. */
  async #sendOne(): Promise<boolean> {
    const { database, vault, clock, log, from } = this.#options;
    const now = clock.wallMs();
    const { rows } = await database.query<OutboxRow>(
      `update mail_outbox set attempts = attempts + 1, next_attempt_at = $2
       where id = (select id from mail_outbox where next_attempt_at <= $1 order by next_attempt_at, id limit 1 for update skip locked)
       returning id, sealed_message, attempts, created_at`,
      [new Date(now), new Date(now + LEASE_MS)],
    );
    const row = rows[0];
    if (!row) return false;
    const mail = { mail: row.id, attempts: row.attempts };
    const done = async (how: 'sent' | 'dropped') => {
      await database.query('delete from mail_outbox where id = $1', [row.id]);
      this.counts[how]++;
    };
    try {
      const message = JSON.parse((await vault.open(PURPOSE, row.sealed_message)).toString()) as OutboxMessage;
      if (message.untilMs !== undefined && message.untilMs <= now) {
        log.error({ event: 'mail.expired', ...mail }, 'a mail was not sent in time and was dropped');
        await done('dropped');
        return true;
      }
      const { to, subject, text } = message;
      await this.#transport!.sendMail({
        from,
        // An object is always one address to nodemailer, whatever characters it contains.
        to: { name: '', address: to },
        subject,
        text,
        messageId: `<veza.${row.id}.${row.created_at.getTime()}@${from.slice(from.lastIndexOf('@') + 1).replace(/>.*$/, '')}>`,
        date: row.created_at,
        // RFC 3834: asks for no automatic answer such as an out-of-office notice.
        headers: { 'Auto-Submitted': 'auto-generated' },
      });
      await done('sent');
    } catch (error) {
      const failure = { ...mail, error: messageOf(error) };
      if (isFinal(error)) {
        log.error({ event: 'mail.refused', ...failure }, 'the mail server refused a mail permanently; the mail was dropped');
        await done('dropped');
      } else if (now - row.created_at.getTime() >= GIVE_UP_MS) {
        log.error({ event: 'mail.given_up', ...failure }, 'a mail could not be sent for two days and was dropped');
        await done('dropped');
      } else {
        this.counts.retried++;
        const waitMs = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(row.attempts - 1, 10));
        log.warn({ event: 'mail.send_failed', ...failure, retryInS: waitMs / 1000 }, 'could not send a mail; will try again');
        await database.query('update mail_outbox set next_attempt_at = $2 where id = $1', [row.id, new Date(now + waitMs)]);
      }
    }
    return true;
  }
}

interface OutboxRow {
  id: number;
  sealed_message: Buffer;
  attempts: number;
  created_at: Date;
}

interface OutboxMessage {
  to: string;
  subject: string;
  text: string;
  untilMs?: number;
}

/**
 * A 5xx answer about the recipient or the message is final. An answer about this service (a wrong
 * password, a full server) may change while the mail waits.
 */
function isFinal(error: unknown): boolean {
  const { responseCode, command } = error as { responseCode?: unknown; command?: unknown };
  return typeof responseCode === 'number' && responseCode >= 550 && responseCode <= 554 && (command === 'RCPT TO' || command === 'DATA');
}
