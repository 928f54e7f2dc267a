import { z } from 'zod';
import type { Accounts } from '../../../access/accounts/accounts.js';
import type { FreshSignIn } from '../../../access/accounts/fresh-sign-in.js';
import type { Members } from '../../../access/members.js';
import type { Principal } from '../../../access/roles.js';
import type { Passkeys } from '../../../access/second-factor/passkeys.js';
import type { TwoFactor } from '../../../access/second-factor/two-factor.js';
import { VezaError } from '../../../runtime/errors.js';
import { lines } from '../../http/lines.js';
import { isoOf, type Operation, operation } from '../openapi.js';
import { channelRoleSchema, roleSchema } from '../role-schemas.js';
import { nameSchema, newPasswordSchema, passwordSchema } from './sign-in.js';
import { codeSchema } from './two-factor.js';

const meSchema = z
  .strictObject({
    id: z.uuid(),
    email: z.string(),
    name: z.string(),
    role: roleSchema,
    createdAt: z.iso.datetime(),
    secondFactor: z.strictObject({
      totp: z.boolean().meta({ description: 'Whether an authenticator app is set up.' }),
      recoveryCodesLeft: z.int(),
      passkeys: z.int(),
      needed: z.boolean().meta({ description: 'Whether the role needs a second factor that the account does not have yet.' }),
    }),
    channels: z.array(z.strictObject({ slug: z.string(), role: channelRoleSchema })).meta({
      description: 'Channels in which the account has a role, at most 1,000. `GET /me/channels` has all of them.',
    }),
  })
  .meta({ id: 'Me' });

const at = z.iso.datetime();
const chatRecordSchema = z
  .looseObject({
    kind: z.enum(['message', 'held', 'reaction', 'ban', 'timeout', 'warning', 'appeal', 'writer']),
    room: z.uuid(),
    channel: z.string().nullable(),
  })
  .meta({
    id: 'ChatRecord',
    description:
      'A record of the chat about me: a message, a held message, a reaction, a ban, a timeout, a warning or an appeal; `writer`: when I last wrote in the room.',
  });
/** Most characters of chat data in `GET /me/export`; `GET /me/export/chat` has no limit. */
const MAX_CHAT_CHARS = 8_000_000;
const CHUNK_CHARS = 64 * 1024;

const exportSchema = z
  .strictObject({
    account: z.strictObject({
      id: z.uuid(),
      email: z.string(),
      name: z.string(),
      role: roleSchema,
      state: z.string(),
      createdAt: at,
      confirmedAt: at.nullable(),
      bannedAt: at.nullable(),
      banReason: z.string().nullable(),
      authenticatorAppSince: at.nullable(),
      recoveryCodesLeft: z.int(),
    }),
    sessions: z.array(
      z.strictObject({ id: z.uuid(), client: z.string(), address: z.string(), createdAt: at, lastUsedAt: at, endedAt: at.nullable() }),
    ),
    passkeys: z.array(z.strictObject({ name: z.string(), createdAt: at, lastUsedAt: at.nullable() })),
    apiKeys: z.array(
      z.strictObject({
        name: z.string(),
        hint: z.string(),
        scopes: z.array(z.string()),
        createdAt: at,
        lastUsedAt: at.nullable(),
        expiresAt: at.nullable(),
      }),
    ),
    channels: z.array(z.strictObject({ slug: z.string(), role: z.string(), since: at })),
    audit: z.array(
      z.strictObject({
        at,
        action: z.string(),
        target: z.string().nullable(),
        channel: z.string().nullable(),
        byMe: z.boolean(),
        address: z.string().nullable(),
        details: z.record(z.string(), z.unknown()),
      }),
    ),
    auditIsComplete: z.boolean(),
    chat: z.array(chatRecordSchema),
    chatIsComplete: z.boolean().meta({ description: 'False when there is more: `GET /me/export/chat` has all of it.' }),
  })
  .meta({ id: 'AccountExport' });

export const deletedChannels = z.enum(['keep', 'delete']).default('keep').meta({
  description: 'What happens to channels that the account owns. `keep` leaves them without an owner until an administrator chooses one.',
});

export interface MeOperationsOptions {
  accounts: Accounts;
  members: Members;
  freshSignIn: Pick<FreshSignIn, 'prove'>;
  twoFactor: Pick<TwoFactor, 'status'>;
  passkeys: Pick<Passkeys, 'count'>;
  /** Ends the broadcasts of channels that were just deleted. */
  endShows: (slugs: readonly string[]) => Promise<void>;
  /** Yields the chat's records about an account as they are read. */
  chatRecords: (accountId: string) => AsyncIterable<z.infer<typeof chatRecordSchema>>;
}

/** Operations on one's own account. */
export function meOperations({
  accounts,
  members,
  freshSignIn,
  twoFactor,
  passkeys,
  endShows,
  chatRecords,
}: MeOperationsOptions): Operation[] {
  const shown = async ({ accountId }: Principal): Promise<z.infer<typeof meSchema>> => {
    const account = await accounts.get(accountId!);
    if (!account) throw new VezaError('unauthorized', 'This account is deleted.');
    const { id, email, name, role, createdAtMs } = account;
    const { totp, recoveryCodesLeft } = await twoFactor.status(id);
    const count = await passkeys.count(id);
    const needed = (role === 'moderator' || role === 'admin') && !totp && count === 0;
    return {
      id,
      email,
      name,
      role,
      createdAt: isoOf(createdAtMs),
      secondFactor: { totp, recoveryCodesLeft, passkeys: count, needed },
      channels: await members.channelsOf(id),
    };
  };
  const self = (principal: Principal) => `account:${principal.accountId}`;

  return [
    operation({
      id: 'getMe',
      method: 'get',
      path: '/me',
      summary: 'Shows my account.',
      access: 'account',
      status: 200,
      answer: meSchema,
      errors: [],
      handle: ({ principal }) => shown(principal),
    }),
    operation({
      id: 'updateMe',
      method: 'patch',
      path: '/me',
      summary: 'Changes my account.',
      description: 'Members that are left out do not change.',
      access: 'account',
      body: z.strictObject({ name: nameSchema.optional() }),
      status: 200,
      answer: meSchema,
      errors: ['not_found'],
      async handle({ principal, body, audit }) {
        if (body.name !== undefined) await accounts.rename(principal.accountId!, body.name);
        audit({ target: self(principal) });
        return shown(principal);
      },
    }),
    operation({
      id: 'proveMe',
      method: 'post',
      path: '/me/proof',
      summary: 'Proves me again with the password or a code of the app.',
      description: 'For ten minutes this session may do what otherwise fails with `fresh_sign_in_required`.',
      access: 'account',
      body: z.union([z.strictObject({ password: passwordSchema }), z.strictObject({ code: codeSchema })]),
      status: 204,
      errors: ['invalid_credentials', 'rate_limited', 'busy'],
      async handle({ principal, body, audit }) {
        audit({ target: self(principal) });
        await freshSignIn.prove(principal, body);
      },
    }),
    operation({
      id: 'changePassword',
      method: 'post',
      path: '/me/password',
      summary: 'Changes my password.',
      description: 'All other sessions end.',
      access: 'account',
      body: z.strictObject({ password: passwordSchema, newPassword: newPasswordSchema }),
      status: 204,
      errors: ['invalid_credentials', 'conflict', 'rate_limited', 'busy'],
      async handle({ principal, body, audit }) {
        await accounts.changePassword(principal.accountId!, body.password, body.newPassword, principal.sessionId);
        audit({ target: self(principal) });
      },
    }),
    operation({
      id: 'deleteMe',
      method: 'post',
      path: '/me/delete',
      summary: 'Deletes my account with its data.',
      description: 'Its acts stay in the audit log.',
      access: 'account',
      body: z.strictObject({ password: passwordSchema, channels: deletedChannels }),
      status: 204,
      errors: ['invalid_credentials', 'conflict', 'not_found', 'rate_limited', 'busy'],
      async handle({ principal, body, audit }) {
        if (!(await accounts.checkPassword(principal.accountId!, body.password)))
          throw new VezaError('invalid_credentials', 'The password is wrong.');
        const slugs = await accounts.delete(principal.accountId!, body.channels === 'delete');
        audit({ target: self(principal), details: { channelsDeleted: slugs } });
        await endShows(slugs);
      },
    }),
    operation({
      id: 'exportMe',
      method: 'get',
      path: '/me/export',
      summary: 'Exports all data about my account.',
      access: 'account',
      status: 200,
      answer: exportSchema,
      errors: ['not_found'],
      async handle({ principal }) {
        const exported = await accounts.export(principal.accountId!);
        const chat: z.infer<typeof chatRecordSchema>[] = [];
        let chars = 0;
        let chatIsComplete = true;
        for await (const record of chatRecords(principal.accountId!)) {
          chars += JSON.stringify(record).length;
          chatIsComplete = chars <= MAX_CHAT_CHARS;
          if (!chatIsComplete) break;
          chat.push(record);
        }
        return { ...exported, chat, chatIsComplete };
      },
    }),
    operation({
      id: 'exportMyChat',
      method: 'get',
      path: '/me/export/chat',
      summary: 'Exports all data of the chat about my account.',
      description: 'JSON Lines, room by room: my messages and reactions, and moderators’ decisions about me.',
      access: 'account',
      status: 200,
      answer: chatRecordSchema,
      contentType: 'application/jsonl',
      errors: [],
      handle: async ({ principal }) => lines(chatRecords(principal.accountId!), CHUNK_CHARS),
    }),
  ];
}
