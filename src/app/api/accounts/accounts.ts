import { z } from 'zod';
import { type Account, MAX_BAN_REASON_CHARS, noAccount } from '../../../access/accounts/account-rows.js';
import type { Accounts } from '../../../access/accounts/accounts.js';
import type { Registration } from '../../../access/accounts/registration.js';
import { beyondKeys, keyReaches } from '../../../access/roles.js';
import { VezaError } from '../../../runtime/errors.js';
import { isoOf, type Operation, operation, page, pageOf, pageQuery, positionOf } from '../openapi.js';
import { PATTERNS, text } from '../request-schemas.js';
import { roleSchema } from '../role-schemas.js';
import { deletedChannels } from './me.js';
import { emailSchema, nameSchema } from './sign-in.js';

const accountSchema = z
  .strictObject({
    id: z.uuid(),
    email: z.string(),
    name: z.string(),
    role: roleSchema,
    state: z.enum(['active', 'invited', 'unconfirmed', 'banned']).meta({
      description: '`invited`: without a password until its link is used; `unconfirmed`: until the link in the mail is used.',
    }),
    createdAt: z.iso.datetime(),
    bannedAt: z.iso.datetime().nullable(),
    banReason: z.string().nullable(),
  })
  .meta({ id: 'Account' });

const shown = (account: Account): z.infer<typeof accountSchema> => ({
  id: account.id,
  email: account.email,
  name: account.name,
  role: account.role,
  state: account.state,
  createdAt: isoOf(account.createdAtMs),
  bannedAt: account.bannedAtMs === undefined ? null : isoOf(account.bannedAtMs),
  banReason: account.banReason ?? null,
});

const linkShape = {
  link: z.url().meta({ description: 'Works once; anybody who has it can choose the password.' }),
  linkExpiresAt: z.iso.datetime(),
};
/** The end of the year 9999, which every database can store. */
const MAX_WALL_MS = 253_402_300_799_999;
const idParams = z.strictObject({ id: z.uuid() });
const reasonSchema = text({ max: MAX_BAN_REASON_CHARS, pattern: PATTERNS.song, trimmed: true });

export interface AccountOperationsOptions {
  accounts: Accounts;
  registration: Registration;
  /** Ends the broadcasts of channels that were just deleted. */
  endShows: (slugs: readonly string[]) => Promise<void>;
}

/** Operations on other people's accounts, for moderators and administrators. */
export function accountOperations({ accounts, registration, endShows }: AccountOperationsOptions): Operation[] {
  const targetOf = (id: string) => ({ target: `account:${id}` });
  return [
    operation({
      id: 'listAccounts',
      method: 'get',
      path: '/accounts',
      summary: 'Lists accounts.',
      description: 'The newest comes first.',
      access: 'accounts.read',
      query: z.strictObject({
        ...pageQuery,
        query: text({ max: 254, pattern: PATTERNS.song, trimmed: true })
          .optional()
          .meta({ description: 'An e-mail address, or part of an address or name.' }),
      }),
      status: 200,
      answer: pageOf(accountSchema),
      errors: [],
      async handle({ query }) {
        const position =
          query.cursor === undefined ? undefined : positionOf(query.cursor, z.tuple([z.int().min(0).max(MAX_WALL_MS), z.uuid()]));
        const after = position && { createdAtMs: position[0], id: position[1] };
        const found = await accounts.list(query.query, after, query.limit + 1);
        return page(found, query.limit, shown, ({ createdAtMs, id }) => [createdAtMs, id]);
      },
    }),
    operation({
      id: 'createAccount',
      method: 'post',
      path: '/accounts',
      summary: 'Invites a person.',
      description: 'Creates an account without a password, and the link that opens it. If the service sends mail, the link is also mailed.',
      access: 'accounts.manage',
      wantsFreshSignIn: true,
      body: z.strictObject({ email: emailSchema, name: nameSchema, role: roleSchema.default('listener') }),
      status: 201,
      answer: z.strictObject({ account: accountSchema, ...linkShape }).meta({ id: 'Invitation' }),
      errors: ['conflict'],
      async handle({ body, principal, audit, created }) {
        if (!keyReaches(principal, body.role)) throw beyondKeys();
        const { account, link, expiresAtMs } = await registration.invite(body, principal);
        audit({ ...targetOf(account.id), details: { role: account.role } });
        created(`/accounts/${account.id}`);
        return { account: shown(account), link, linkExpiresAt: isoOf(expiresAtMs) };
      },
    }),
    operation({
      id: 'getAccount',
      method: 'get',
      path: '/accounts/{id}',
      summary: 'Shows an account.',
      access: 'accounts.read',
      params: idParams,
      status: 200,
      answer: accountSchema,
      errors: ['not_found'],
      async handle({ params }) {
        const account = await accounts.get(params.id);
        if (!account) throw noAccount();
        return shown(account);
      },
    }),
    operation({
      id: 'updateAccount',
      method: 'patch',
      path: '/accounts/{id}',
      summary: 'Changes the role of an account.',
      description: 'Its sessions end. The last administrator’s role cannot be changed.',
      access: 'accounts.manage',
      wantsFreshSignIn: true,
      params: idParams,
      body: z.strictObject({ role: roleSchema }),
      status: 200,
      answer: accountSchema,
      errors: ['not_found', 'conflict'],
      async handle({ params, body, principal, audit }) {
        const before = await accounts.get(params.id);
        if (!before) throw noAccount();
        // The key must reach the old role too: it could otherwise lower an account and then open it
        // by a link.
        if (!keyReaches(principal, body.role) || !keyReaches(principal, before.role)) throw beyondKeys();
        const account = await accounts.setRole(params.id, body.role);
        audit({ ...targetOf(params.id), details: { role: body.role } });
        return shown(account);
      },
    }),
    operation({
      id: 'deleteAccount',
      method: 'delete',
      path: '/accounts/{id}',
      summary: 'Deletes an account with its data.',
      description: 'Its acts stay in the audit log.',
      access: 'accounts.manage',
      params: idParams,
      query: z.strictObject({ channels: deletedChannels }),
      status: 204,
      errors: ['not_found', 'conflict'],
      async handle({ params, query, principal, audit }) {
        if (query.channels === 'delete' && principal.scopes && !principal.scopes.includes('channels:write'))
          throw new VezaError('forbidden', 'To delete its channels too, a key needs the scope "channels:write".');
        const before = await accounts.get(params.id);
        if (before && !keyReaches(principal, before.role)) throw beyondKeys();
        const slugs = await accounts.delete(params.id, query.channels === 'delete');
        audit({ ...targetOf(params.id), details: { channelsDeleted: slugs } });
        await endShows(slugs);
      },
    }),
    operation({
      id: 'banAccount',
      method: 'post',
      path: '/accounts/{id}/ban',
      summary: 'Bans an account.',
      description: 'Its sessions end, and its owner cannot sign in; an attempt shows the reason.',
      access: 'accounts.ban',
      params: idParams,
      body: z.strictObject({ reason: reasonSchema.optional() }),
      status: 200,
      answer: accountSchema,
      errors: ['not_found', 'conflict'],
      async handle({ params, body, principal, audit }) {
        const account = await accounts.ban(principal, params.id, body.reason);
        audit({ ...targetOf(params.id), details: { reason: body.reason ?? null } });
        return shown(account);
      },
    }),
    operation({
      id: 'unbanAccount',
      method: 'post',
      path: '/accounts/{id}/unban',
      summary: 'Lifts the ban of an account.',
      access: 'accounts.ban',
      wantsFreshSignIn: true,
      params: idParams,
      status: 200,
      answer: accountSchema,
      errors: ['not_found'],
      async handle({ params, principal, audit }) {
        const account = await accounts.unban(principal, params.id);
        audit(targetOf(params.id));
        return shown(account);
      },
    }),
    operation({
      id: 'createAccountLink',
      method: 'post',
      path: '/accounts/{id}/link',
      summary: 'Makes a link with which an account’s owner chooses a password.',
      description: 'For people who get no mail. Earlier links of the account stop working.',
      access: 'accounts.manage',
      wantsFreshSignIn: true,
      params: idParams,
      status: 201,
      answer: z.strictObject(linkShape).meta({ id: 'AccountLink' }),
      errors: ['not_found'],
      async handle({ params, principal, audit, created }) {
        const { link, expiresAtMs } = await registration.link(principal, params.id);
        audit(targetOf(params.id));
        created(link);
        return { link, linkExpiresAt: isoOf(expiresAtMs) };
      },
    }),
  ];
}
