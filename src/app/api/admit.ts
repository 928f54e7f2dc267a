import type { Access } from '../../access/access.js';
import type { Channel } from '../../access/channels.js';
import { type ChannelRole, judge, type Principal } from '../../access/roles.js';
import { VezaError } from '../../runtime/errors.js';
import { isAboutChannel, type Operation } from './openapi.js';

/**
 * Checks whether the principal may do the operation, and resolves to the channel that it is about. Rejects with `forbidden`,
 * `second_factor_missing`, or, where the principal must not learn that there is such a channel, `not_found`.
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
    throw new VezaError('forbidden', 'This is for a person who is signed in, not for a key or a token.');
  }
  let about: { channel: Channel; channelRole: ChannelRole | undefined } | undefined;
  if (isAboutChannel(wanted)) {
    const named = channelOf ? await channelOf(params) : { slug: (params as { slug: string }).slug, isPrivate: false };
    if (!named) throw noSuchThing();
    const seen = () =>
      members.visible(principal, named.slug, named.isPrivate).catch((error) => {
        // The id of a recording must not tell which channel it is of.
        throw channelOf && error instanceof VezaError && error.code === 'not_found' ? noSuchThing() : error;
      });
    const channel = (await channels.get(named.slug)) ?? (await seen());
    const channelRole = await members.roleOf(channel, principal.accountId);
    // A principal that may do it needs no right to see the channel beside that: a key may be good for issuing links alone.
    if (judge(principal, wanted, channelRole) !== 'yes') await seen();
    about = { channel, channelRole };
  }
  const verdict = judge(principal, wanted, about?.channelRole);
  if (verdict === 'second-factor')
    throw new VezaError('second_factor_missing', 'This wants a second factor: set one up, or sign in with it.');
  if (verdict === 'no') throw new VezaError('forbidden', `This needs the permission "${wanted}".`, { details: { permission: wanted } });
  return about;
}

const noSuchThing = () => new VezaError('not_found', 'There is no such thing.');
