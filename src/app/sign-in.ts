import { z } from 'zod';
import { MAX_NAME_CHARS } from '../access/accounts/account-rows.js';
import type { Accounts } from '../access/accounts/accounts.js';
import { MAX_EMAIL_BYTES } from '../access/accounts/email-address.js';
import { MAX_PASSWORD_UNITS } from '../access/accounts/passwords.js';
import type { Registration } from '../access/accounts/registration.js';
import { ROLES } from '../access/roles.js';
import { type Operation, operation } from './openapi.js';

export const emailSchema = z.string().min(3).max(MAX_EMAIL_BYTES);
export const nameSchema = z
  .string()
  .min(1)
  .max(4 * MAX_NAME_CHARS)
  .meta({ description: `1 to ${MAX_NAME_CHARS} characters.` });
export const passwordSchema = z.string().min(1).max(MAX_PASSWORD_UNITS);
export const newPasswordSchema = passwordSchema.meta({
  description: '8 to 256 characters, and not one of those that are tried first.',
});
const tokenSchema = z.string().min(1).max(200).meta({ description: 'Of the link in the mail: `/account#token=…`.' });

export interface SignInOperationsOptions {
  accounts: Accounts;
  registration: Registration;
}

/** Making an account, signing in to it, and coming back to it when the password is lost. */
export function signInOperations({ accounts, registration }: SignInOperationsOptions): Operation[] {
  const open = { method: 'post', access: 'anyone', provenByBody: true } as const;
  return [
    operation({
      ...open,
      id: 'register',
      path: '/auth/register',
      summary:
        'Makes an account. An address that has one already gets the same answer, and a mail. Where mail is sent, the account can be used once its link was followed.',
      body: z.strictObject({ email: emailSchema, password: newPasswordSchema, name: nameSchema }),
      status: 201,
      answer: z.strictObject({ user: z.strictObject({ email: z.string(), name: z.string() }) }),
      errors: ['forbidden', 'rate_limited', 'busy'],
      handle: async ({ body, client }) => ({ user: await registration.register(body, client.address) }),
    }),
    operation({
      ...open,
      id: 'confirmAddress',
      path: '/auth/confirm',
      summary:
        'With the token of the mail and the password of the registration: address and password belong together, and the account can be used.',
      body: z.strictObject({
        token: tokenSchema,
        password: passwordSchema.meta({
          description: 'Whoever registers an address that is not confirmed yet replaces the password: the link alone might open another’s.',
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
      summary: 'Signs in. With a second factor set up, `code` is a code of the app or a recovery code.',
      body: z.strictObject({
        email: z.string().min(1).max(MAX_EMAIL_BYTES),
        password: passwordSchema,
        code: z.string().min(1).max(40).optional(),
      }),
      status: 200,
      answer: z.strictObject({
        accessToken: z.string(),
        expiresIn: z.int().meta({ description: 'Seconds.' }),
        refreshToken: z.string(),
        user: z.strictObject({ id: z.uuid(), email: z.string(), name: z.string(), role: z.enum(ROLES) }),
      }),
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
      summary: 'Sends a link to choose a new password, if there is such an account; not twice within 15 minutes.',
      body: z.strictObject({ email: emailSchema }),
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
      summary: 'With the token of a recovery or an invitation: a new password. Ends all sessions.',
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
