import { z } from 'zod';
import { keyOf, MAX_NAME_CHARS } from '../../../access/accounts/account-rows.js';
import type { Accounts } from '../../../access/accounts/accounts.js';
import { MAX_EMAIL_BYTES } from '../../../access/accounts/email-address.js';
import { MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS } from '../../../access/accounts/passwords.js';
import type { Registration } from '../../../access/accounts/registration.js';
import { isSeen } from '../../../access/shown-text.js';
import { type Operation, operation } from '../openapi.js';
import { PATTERN_PARTS, PATTERNS, text } from '../request-schemas.js';
import { roleSchema } from '../role-schemas.js';

/**
 * Excludes white space, all control and format characters that a portable pattern can name, and
 * characters with a meaning in the head of a mail.
 */
const EMAIL_PATTERN = `^[^@${PATTERN_PARTS.unseen}${PATTERN_PARTS.controls}<>()[\\]\\\\,;:"]{1,64}@[^@${PATTERN_PARTS.unseen}${PATTERN_PARTS.controls}<>()[\\]\\\\,;:"]+$`;
export const emailSchema = text({
  min: 3,
  max: MAX_EMAIL_BYTES,
  maxBytes: MAX_EMAIL_BYTES,
  format: 'email',
  pattern: EMAIL_PATTERN,
  also: { isGood: (given) => keyOf(given) !== undefined, message: 'is not an e-mail address' },
  description: `At most ${MAX_EMAIL_BYTES} bytes. Letters of all scripts are allowed, a quoted part and a host address in brackets are not.`,
});
/** A text that is no e-mail address gets the same answer as one without an account. */
const anyAddressSchema = text({ max: MAX_EMAIL_BYTES, description: 'The e-mail address of the account.' });
export const nameSchema = text({
  max: MAX_NAME_CHARS,
  pattern: PATTERNS.plainLine,
  trimmed: true,
  also: { isGood: isSeen, message: 'has no visible character' },
  description: 'One line with at least one visible character, without characters that change the direction of text.',
});
export const passwordSchema = text({ max: MAX_PASSWORD_CHARS, format: 'password' });
export const newPasswordSchema = text({
  min: MIN_PASSWORD_CHARS,
  max: MAX_PASSWORD_CHARS,
  format: 'password',
  description: 'A common password, or the name or address of the account, is refused with 400.',
});
const tokenSchema = text({ max: 200, description: 'The token of the link in the mail: `/account#token=…`.' });

export const signedInSchema = z
  .strictObject({
    accessToken: z.string(),
    expiresIn: z.int().meta({ description: 'Seconds until the access token expires.' }),
    refreshToken: z.string(),
    user: z.strictObject({ id: z.uuid(), email: z.string(), name: z.string(), role: roleSchema }),
  })
  .meta({ id: 'SignedIn' });

export interface SignInOperationsOptions {
  accounts: Accounts;
  registration: Registration;
}

/** Operations for registering, signing in and recovering an account. */
export function signInOperations({ accounts, registration }: SignInOperationsOptions): Operation[] {
  const open = { method: 'post', access: 'anyone', provenByBody: true } as const;
  return [
    operation({
      ...open,
      id: 'register',
      path: '/auth/register',
      summary: 'Registers an account.',
      description:
        'If the service sends mail, the account can be used after the link in the mail was opened. For an address with an account the answer is the same, and its owner gets a mail.',
      body: z.strictObject({ email: emailSchema, password: newPasswordSchema, name: nameSchema }),
      status: 201,
      answer: z.strictObject({ user: z.strictObject({ email: z.string(), name: z.string() }) }),
      errors: ['forbidden', 'rate_limited', 'busy'],
      async handle({ body, client, created }) {
        const user = await registration.register(body, client.address);
        created('/me');
        return { user };
      },
    }),
    operation({
      ...open,
      id: 'confirmAddress',
      path: '/auth/confirm',
      summary: 'Confirms the e-mail address of a registration.',
      description: 'Send the token of the mail and the password of the registration. The account can then be used.',
      body: z.strictObject({
        token: tokenSchema,
        password: passwordSchema.meta({
          ...passwordSchema.meta(),
          description: 'A later registration of an unconfirmed address replaces the password, so the link alone must not open the account.',
        }),
      }),
      status: 204,
      errors: ['invalid_credentials', 'not_found', 'rate_limited', 'busy'],
      async handle({ body, client, audit, proven }) {
        const accountId = await registration.confirm(body.token, body.password, client.address);
        await proven(accountId);
        audit({ target: `account:${accountId}` });
      },
    }),
    operation({
      ...open,
      id: 'signIn',
      path: '/auth/login',
      summary: 'Signs in with e-mail address and password.',
      description: 'An account with a second factor also needs `code`, from the authenticator app or a recovery code.',
      body: z.strictObject({
        email: anyAddressSchema,
        password: passwordSchema,
        code: text({ max: 40 }).optional().meta({ description: 'The app’s six digits, or a recovery code.' }),
      }),
      status: 200,
      answer: signedInSchema,
      errors: ['invalid_credentials', 'second_factor_required', 'forbidden', 'unauthorized', 'rate_limited', 'busy'],
      async handle({ body, client, audit, proven }) {
        const { account, tokens } = await accounts.signIn({ ...body, client });
        await proven(account.id);
        audit({ target: `account:${account.id}`, details: { sessionId: tokens.sessionId } });
        const { id, email, name, role } = account;
        const { accessToken, expiresIn, refreshToken } = tokens;
        return { accessToken, expiresIn, refreshToken, user: { id, email, name, role } };
      },
    }),
    operation({
      ...open,
      id: 'recoverPassword',
      path: '/auth/recover',
      summary: 'Sends a link for choosing a new password.',
      description: 'Sends a mail if there is such an account, at most one within 15 minutes. The answer is the same without an account.',
      body: z.strictObject({ email: anyAddressSchema }),
      status: 202,
      answer: z.strictObject({ message: z.string() }),
      errors: ['rate_limited'],
      async handle({ body, client }) {
        await registration.recover(body.email, client.address);
        return { message: 'If there is an account with this address, a mail is on its way to it.' };
      },
    }),
    operation({
      ...open,
      id: 'resetPassword',
      path: '/auth/reset',
      summary: 'Chooses a new password.',
      description: 'Send the token of a recovery or an invitation. All sessions end.',
      body: z.strictObject({ token: tokenSchema, newPassword: newPasswordSchema }),
      status: 204,
      errors: ['not_found', 'rate_limited', 'busy'],
      async handle({ body, client, audit, proven }) {
        const accountId = await registration.reset(body.token, body.newPassword, client.address);
        await proven(accountId);
        audit({ target: `account:${accountId}` });
      },
    }),
  ];
}
