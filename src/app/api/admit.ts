import type { Access } from '../../access/access.js';
import type { Channel } from '../../access/channels.js';
import { type ChannelRole, judge, type Principal } from '../../access/roles.js';
import { VezaError } from '../../runtime/errors.js';
import { isAboutChannel, type Operation } from './openapi.js';

/**
 * Checks whether the principal may do the operation, and resolves to the channel that the operation
 * is about. Rejects with `forbidden`, `second_factor_missing` or, when the principal must not learn
 * that the channel exists, `not_found`.
 */
export async function admit(
  { access: wanted, channelOf }: Operation,
  principal: Principal,
  params: unknown,
  { channels, members }: Access,
): Promise<{ channel: Channel; channelRole: ChannelRole | undefined } | undefined> {
  if (wanted === 'anyone') return undefined;
  if (wanted === 'account') {
    if (principal.kind === 'account') return undefined;
    throw new VezaError('forbidden', 'This needs a signed-in person, not a key or the admin token.');
  }
  let about: { channel: Channel; channelRole: ChannelRole | undefined } | undefined;
  if (isAboutChannel(wanted)) {
    const named = channelOf ? await channelOf(params) : { slug: (params as { slug: string }).slug, isPrivate: false };
    if (!named) throw noSuchThing();
    const seen = () =>
      members.visible(principal, named.slug, named.isPrivate).catch((error) => {
        // The error must not tell which channel a recording belongs to.
        throw channelOf && error instanceof VezaError && error.code === 'not_found' ? noSuchThing() : error;
      });
    const channel = (await channels.get(named.slug)) ?? (await seen());
    const channelRole = await members.roleOf(channel, principal.accountId);
    // A principal with the permission does not need to see the channel: a key may be made for
    // issuing links alone.
    if (judge(principal, wanted, channelRole) !== 'yes') await seen();
    about = { channel, channelRole };
  }
  const verdict = judge(principal, wanted, about?.channelRole);
  if (verdict === 'second-factor')
    throw new VezaError('second_factor_missing', 'This needs a second factor: set one up, or sign in with it.');
  if (verdict === 'no') throw new VezaError('forbidden', `This needs the permission "${wanted}".`, { details: { permission: wanted } });
  return about;
}

const noSuchThing = () => new VezaError('not_found', 'This does not exist.');
