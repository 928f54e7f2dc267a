import { z } from 'zod';
import type { Channel, Channels } from '../../../access/channels.js';
import type { Members } from '../../../access/members.js';
import type { ChannelRole } from '../../../access/roles.js';
import { VezaError } from '../../../runtime/errors.js';
import { emailSchema } from '../accounts/sign-in.js';
import { isoOf, type Operation, operation, page, pageOf, pageQuery, positionOf } from '../openapi.js';
import { channelRoleSchema } from '../role-schemas.js';
import { myChannelSchema, slugParams, slugSchema } from './channels.js';

const roleSchema = channelRoleSchema.describe('`owner` hands the channel over: the previous owner becomes a host.');
const memberSchema = z
  .strictObject({ accountId: z.uuid(), name: z.string(), role: channelRoleSchema, addedAt: z.iso.datetime() })
  .meta({ id: 'Member' });
const memberParams = z.strictObject({ slug: slugSchema, accountId: z.uuid() });

/** The methods of accounts that these operations use. */
interface MemberAccounts {
  byEmail(email: string): Promise<{ id: string } | undefined>;
}

/**
 * The methods of the limits that these operations use. Without a limit, an owner could find out
 * which e-mail addresses have an account.
 */
interface MemberLimits {
  take(bucket: 'member-email', key: string): Promise<unknown>;
}

export interface MemberOperationsOptions {
  channels: Channels;
  members: Members;
  accounts: MemberAccounts;
  limits: MemberLimits;
  /** Returns a channel in the form that `GET /channels` gives it. */
  shownChannel: (channel: Channel) => object;
}

/** Operations on the members of a channel, and on one's own memberships. */
export function memberOperations({ channels, members, accounts, limits, shownChannel }: MemberOperationsOptions): Operation[] {
  return [
    operation({
      id: 'listMyChannels',
      method: 'get',
      path: '/me/channels',
      summary: 'Lists the channels in which I have a role.',
      description: 'Sorted by slug.',
      access: 'account',
      query: z.strictObject(pageQuery),
      status: 200,
      answer: pageOf(myChannelSchema),
      errors: [],
      async handle({ query, principal }) {
        const after = query.cursor === undefined ? '' : positionOf(query.cursor, z.tuple([z.string().max(63)]))[0];
        const found = await members.channelsOf(principal.accountId!, after, query.limit + 1);
        const shown = async ({ slug, role }: (typeof found)[number]) => ({ role, channel: await channels.get(slug) });
        const { items, next } = page(found, query.limit, shown, ({ slug }) => [slug]);
        return {
          // A channel may have been deleted since its membership was read.
          items: (await Promise.all(items)).flatMap(({ role, channel }) => (channel ? [{ ...shownChannel(channel), role }] : [])),
          next,
        };
      },
    }),
    operation({
      id: 'listMembers',
      method: 'get',
      path: '/channels/{slug}/members',
      summary: 'Lists the members of a channel.',
      description: 'The owner comes first, then the others by name.',
      access: 'channel.see-members',
      params: slugParams,
      query: z.strictObject(pageQuery),
      status: 200,
      answer: pageOf(memberSchema),
      errors: [],
      async handle({ query, channel }) {
        const position =
          query.cursor === undefined ? undefined : positionOf(query.cursor, z.tuple([z.int32(), z.string().max(500), z.uuid()]));
        const after = position && { place: position[0], name: position[1], accountId: position[2] };
        const found = await members.list(channel, after, query.limit + 1);
        return page(
          found,
          query.limit,
          ({ accountId, name, role, addedAtMs }) => ({ accountId, name, role, addedAt: isoOf(addedAtMs) }),
          ({ role, name, accountId }) => [role === 'owner' ? 0 : 1, name, accountId],
        );
      },
    }),
    operation({
      id: 'setMember',
      method: 'put',
      path: '/channels/{slug}/members/{accountId}',
      summary: 'Gives an account a role in a channel, or changes its role.',
      access: 'channel.set-members',
      wantsFreshSignIn: true,
      params: memberParams,
      body: z.strictObject({ role: roleSchema }),
      status: 204,
      errors: ['not_found', 'conflict', 'quota_exceeded'],
      async handle({ params, body, channel, audit }) {
        audit({ target: `account:${params.accountId}`, details: { role: body.role } });
        await members.set(channel, params.accountId, body.role);
      },
    }),
    operation({
      id: 'addMember',
      method: 'post',
      path: '/channels/{slug}/members',
      summary: 'Gives the account with this e-mail address a role in a channel.',
      access: 'channel.set-members',
      wantsFreshSignIn: true,
      params: slugParams,
      body: z.strictObject({ email: emailSchema, role: roleSchema }),
      status: 201,
      answer: z.strictObject({ accountId: z.uuid(), role: channelRoleSchema }).meta({ id: 'AddedMember' }),
      errors: ['not_found', 'conflict', 'quota_exceeded', 'rate_limited'],
      async handle({ body, channel, principal, audit, created }): Promise<{ accountId: string; role: ChannelRole }> {
        // The limit counts per account, whichever of its keys is used.
        await limits.take('member-email', principal.accountId === undefined ? principal.id : `account:${principal.accountId}`);
        const account = await accounts.byEmail(body.email);
        if (!account) throw new VezaError('not_found', 'There is no account with this e-mail address.');
        audit({ target: `account:${account.id}`, details: { role: body.role } });
        await members.set(channel, account.id, body.role);
        created(`/channels/${channel.slug}/members/${account.id}`);
        return { accountId: account.id, role: body.role };
      },
    }),
    operation({
      id: 'removeMember',
      method: 'delete',
      path: '/channels/{slug}/members/{accountId}',
      summary: 'Takes away an account’s role in a channel.',
      description:
        'A stream key that the account made is void within 5 s, and a broadcast with it ends. Keys that others made stay good: if the account knew one, make a new key (`rotateStreamKey`). Playback links that the account made end too. Links of others stay good: to end them all, make new playback keys (`replacePlaybackKey`).',
      access: 'channel.set-members',
      params: memberParams,
      status: 204,
      errors: ['not_found'],
      async handle({ params, channel, audit }) {
        audit({ target: `account:${params.accountId}` });
        await members.remove(channel, params.accountId);
      },
    }),
  ];
}
