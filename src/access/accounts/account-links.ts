import type { Queryable } from '../../backing/database/database.js';
import type { Mail } from './mail.js';
import { confirmationMail, invitationMail, knownAddressMail, type MailText, recoveryMail } from './mail-texts.js';
import type { LinkIssue, LinkPurpose, OneTimeLinks } from './one-time-links.js';

/** No second mail to one account within this time: the link of the first is good, and nobody can fill somebody else's mailbox. */
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

/** One-time links as people get them: by mail, or from an administrator. */
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
   * Posts a mail with a new link, in the transaction of `connection`, which holds the account's row; `mail.wake()` after its commit. Nothing
   * happens when one was posted a moment ago. Without a mail server each one is new and shown in the log; where that is not done either, none is
   * made: strangers could void with it, by asking, the link that an administrator has handed over.
   */
  async post(connection: Queryable, account: { id: string; email: string }, kind: LinkMail): Promise<void> {
    if (!this.#mail.reachesSomebody) return;
    const purpose = kind === 'known-address' ? 'recovery' : kind;
    if (this.#mail.canSend && (await this.#links.isFresh(connection, account.id, purpose, MAIL_INTERVAL_MS))) return;
    await this.mailShown(connection, account, kind, await this.show(connection, account.id, purpose));
  }

  /** The same for a link that is there already. */
  async mailShown(connection: Queryable, account: { id: string; email: string }, kind: LinkMail, shown: ShownLink): Promise<void> {
    const { link, expiresAtMs } = shown;
    await this.#mail.post({ to: account.email, ...TEXTS[kind](link), link, accountId: account.id, untilMs: expiresAtMs }, connection);
  }

  /** A new link, to be handed over. */
  async show(connection: Queryable, accountId: string, purpose: LinkPurpose, issue: LinkIssue = {}): Promise<ShownLink> {
    const { token, expiresAtMs } = await this.#links.issue(connection, accountId, purpose, issue);
    // In the fragment, which is in no request and so in no log.
    return { link: `${this.#publicUrl}/account#token=${token}&for=${purpose}`, expiresAtMs };
  }
}
