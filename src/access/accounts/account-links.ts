import type { Queryable } from '../../backing/database/database.js';
import type { Mail } from './mail.js';
import { confirmationMail, invitationMail, knownAddressMail, type MailText, recoveryMail } from './mail-texts.js';
import type { LinkIssue, LinkPurpose, OneTimeLinks } from './one-time-links.js';

/**
 * At most one mail per account and purpose in this time: the first link is still good, and nobody
 * can fill somebody else's mailbox.
 */
export const MAIL_INTERVAL_MS = 15 * 60_000;

export type LinkMail = LinkPurpose | 'known-address';

const TEXTS: Readonly<Record<LinkMail, (link: string) => MailText>> = {
  recovery: recoveryMail,
  'known-address': knownAddressMail,
  confirmation: confirmationMail,
  invitation: invitationMail,
};

export interface ShownLink {
  readonly link: string;
  readonly expiresAtMs: number;
}

/** One-time links in the form in which people get them: by mail, or from an administrator. */
export class AccountLinks {
  readonly #links: OneTimeLinks;
  readonly #mail: Mail;
  readonly #publicUrl: string;

  constructor({ links, mail, publicUrl }: { links: OneTimeLinks; mail: Mail; publicUrl: string }) {
    this.#links = links;
    this.#mail = mail;
    this.#publicUrl = publicUrl;
  }

  /**
   * Posts a mail with a new link, in the transaction of `connection`, which must hold the lock on
   * the account's row. The caller calls `mail.wake()` after its commit. Nothing is posted if a link
   * younger than `MAIL_INTERVAL_MS` is still good. Without a mail server every call makes a new
   * link and writes it to the log. If links are not logged either, none is made: otherwise anybody
   * who asks for a mail could void the link that an administrator has handed over.
   */
  async post(connection: Queryable, account: { id: string; email: string }, kind: LinkMail): Promise<void> {
    if (!this.#mail.reachesSomebody) return;
    const purpose = kind === 'known-address' ? 'recovery' : kind;
    if (this.#mail.canSend && (await this.#links.isFresh(connection, account.id, purpose, MAIL_INTERVAL_MS))) return;
    await this.mailShown(connection, account, kind, await this.show(connection, account.id, purpose));
  }

  /** Posts a mail with a link that was made before. */
  async mailShown(connection: Queryable, account: { id: string; email: string }, kind: LinkMail, shown: ShownLink): Promise<void> {
    const { link, expiresAtMs } = shown;
    await this.#mail.post({ to: account.email, ...TEXTS[kind](link), link, accountId: account.id, untilMs: expiresAtMs }, connection);
  }

  /** Makes a new link, for an administrator to hand over. */
  async show(connection: Queryable, accountId: string, purpose: LinkPurpose, issue: LinkIssue = {}): Promise<ShownLink> {
    const { token, expiresAtMs } = await this.#links.issue(connection, accountId, purpose, issue);
    // The token is in the fragment, which no request carries and so no log shows.
    return { link: `${this.#publicUrl}/account#token=${token}&for=${purpose}`, expiresAtMs };
  }
}
