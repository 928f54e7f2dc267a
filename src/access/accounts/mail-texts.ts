import type { WaysIn } from './ways-in.js';

/**
 * The text of a mail. It contains no text that another person typed, neither a name nor a reason:
 * entering the address of somebody else must not be a way to send them a message.
 */
export interface MailText {
  readonly subject: string;
  readonly text: string;
}

const mail = (subject: string, ...paragraphs: string[]): MailText => ({
  subject,
  text: `${['Hello,', ...paragraphs, 'Veza'].join('\n\n')}\n`,
});

const NOT_YOU = 'If this was not you, you need not do anything: nothing happens without this link.';

export const confirmationMail = (link: string): MailText =>
  mail(
    'Confirm your address',
    'an account was made with this address. To open it, follow this link within two days and enter the password that you chose:',
    link,
    NOT_YOU,
  );

export const recoveryMail = (link: string): MailText =>
  mail('Choose a new password', 'to choose a new password for your account, follow this link within an hour:', link, NOT_YOU);

export const knownAddressMail = (link: string): MailText =>
  mail(
    'You have an account already',
    'somebody tried to make an account with this address, which has one already. If it was you, sign in. If you have forgotten your password, choose a new one within an hour:',
    link,
    NOT_YOU,
  );

export const invitationMail = (link: string): MailText =>
  mail(
    'You are invited',
    'an administrator has made an account for you. To open it, follow this link within a week and choose a password:',
    link,
    'If you did not expect this, you need not do anything: nothing happens without this link.',
  );

/** `page`: the address of the account page. */
export function passwordChangedMail(page: string, { apiKeys, passkeys, hasApp }: WaysIn): MailText {
  const left = [
    ...(apiKeys > 0 ? [`${apiKeys} API ${apiKeys === 1 ? 'key' : 'keys'}`] : []),
    ...(passkeys > 0 ? [`${passkeys} ${passkeys === 1 ? 'passkey' : 'passkeys'}`] : []),
    ...(hasApp ? ['the authenticator app with its recovery codes'] : []),
  ];
  return mail(
    'Your password was changed',
    'the password of your account was changed a moment ago, and every other device is signed out.',
    ...(left.length > 0 ? [`These still open the account: ${left.join(', ')}. Delete there what is not yours: ${page}`] : []),
    `If this was not you, choose a new password now: ${page}`,
  );
}

export type AddedWayIn = 'passkey' | 'app' | 'api-key';
const ADDED: Readonly<Record<AddedWayIn, { subject: string; what: string }>> = {
  passkey: { subject: 'A passkey was added', what: 'a passkey was added to your account a moment ago. It signs in without the password.' },
  app: {
    subject: 'An authenticator app was added',
    what: 'an authenticator app was set up for your account a moment ago, and every other device is signed out.',
  },
  'api-key': { subject: 'An API key was made', what: 'an API key was made for your account a moment ago. A program with it acts for you.' },
};

/** `page`: the address of the account page. */
export const wayInAddedMail = (page: string, added: AddedWayIn): MailText =>
  mail(ADDED[added].subject, ADDED[added].what, `If this was not you, delete it and choose a new password now: ${page}`);

export const deletedMail = (): MailText =>
  mail('Your account is deleted', 'your account and its data were deleted, as you asked. You need not do anything else.');
