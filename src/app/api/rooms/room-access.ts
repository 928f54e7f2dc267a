import { z } from 'zod';
import { type Channel, SLUG } from '../../../access/channels.js';
import type { Members } from '../../../access/members.js';
import type { ChannelRole, Principal } from '../../../access/roles.js';
import type { Classification } from '../../../chat/automod/classifier.js';
import type { Moderator } from '../../../chat/moderation/acts.js';
import type { ModerationService } from '../../../chat/moderation/service.js';
import type { RoomRole } from '../../../chat/protocol/protocol.js';
import type { PageLimits } from '../../../chat/rooms/page-limits.js';
import type { Author, Room, RoomInfo } from '../../../chat/rooms/room.js';
import type { Clock } from '../../../runtime/clock.js';
import { VezaError } from '../../../runtime/errors.js';
import { isUserId, MAX_USER_ID_LENGTH } from '../../../runtime/user-id.js';
import type { PublicReads } from '../../http/public-reads.js';
import type { Call } from '../openapi.js';
import { PATTERNS, text } from '../request-schemas.js';

/** What the API asks of the chat, of a process that has it. */
export interface RoomsApi {
  readonly rooms: {
    /** By id, or by the slug of its channel. */
    find(idOrSlug: string): Promise<RoomInfo | undefined>;
    open(roomId: string): Promise<Room>;
  };
  readonly desk: ModerationService;
  readonly history: { export(roomId: string): AsyncIterable<object> };
  readonly pageLimits: PageLimits;
  readonly presence: {
    count(roomId: string): number;
    /** Those who are signed in, of all processes; as far as can be had in a moment. */
    people(roomId: string, limit: number): Promise<readonly { readonly id: string; readonly name: string }[]>;
  };
  /** What somebody is in a room, as the WebSocket has it. */
  who(principal: Principal, channelRole: ChannelRole | undefined): RoomPerson;
  /** What the automatic moderation would make of a viewer's text, the remote judge not asked; undefined: there is none here. */
  tryText(roomId: string, text: string): Classification | undefined;
  /** Since when there is an account, ms since 1970. */
  sinceMs(accountId: string): Promise<number | undefined>;
}

export interface RoomPerson {
  readonly id: string;
  readonly name: string;
  readonly role: RoomRole;
  readonly moderates: 'yes' | 'no' | 'second-factor';
  readonly mayWrite: boolean;
  readonly actor: string;
}

export interface RoomOperationsOptions {
  /** Undefined: this process has no chat. */
  readonly chat: RoomsApi | undefined;
  readonly members: Pick<Members, 'roleOf' | 'visible'>;
  readonly reads: Pick<PublicReads, 'channel'>;
  readonly clock: Clock;
}

export const roomParams = z.strictObject({
  slug: text({ min: 2, max: 63, pattern: SLUG.source, description: 'Of the channel, or the id of the room.' }),
});
export const userIdSchema = text({
  max: MAX_USER_ID_LENGTH,
  pattern: PATTERNS.noControls,
  also: { isGood: isUserId, message: 'the id of a user, as messages have it' },
  description: `As messages have it; in a path percent-encoded. At most ${MAX_USER_ID_LENGTH} UTF-16 code units.`,
});
export const userParams = roomParams.extend({ userId: userIdSchema });
export const midSchema = text({ min: 22, max: 22, pattern: '^[A-Za-z0-9_-]{22}$', description: 'The `mid` of a message.' });
/** Who wrote something, as it was when it was written. */
export const authorSchema = z.strictObject({ id: z.string(), name: z.string(), role: z.string() }).meta({ id: 'RoomAuthor' });
export const messageParams = roomParams.extend({ mid: midSchema });

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** How operations about rooms come to their room. */
export function roomAccess({ chat, members, reads }: RoomOperationsOptions) {
  const here = (): RoomsApi => {
    if (chat) return chat;
    throw new VezaError('unavailable', 'This process has no chat: ask one whose ROLES has "chat" in it.');
  };
  /** For a permission about the channel. */
  const slugOf = async (slug: string): Promise<string> =>
    (chat && UUID.test(slug) ? (await chat.rooms.find(slug))?.slug : undefined) ?? slug;
  const channelOf = async <P extends { slug: string }>({ slug }: P) => ({ slug: await slugOf(slug), isPrivate: false });
  const roomOf = async (channel: Pick<Channel, 'slug'>): Promise<RoomInfo> => {
    const room = await here().rooms.find(channel.slug);
    if (!room) throw new VezaError('not_found', `There is no channel "${channel.slug}".`);
    return room;
  };
  const moderatorOf = ({ principal, channelRole, client }: Pick<Call, 'principal' | 'channelRole' | 'client'>): Moderator => {
    const { id, name, role, moderates, actor } = here().who(principal, channelRole);
    const unproven = moderates === 'second-factor';
    return { id, name, role, unproven, actor, address: client.address, requestId: client.requestId };
  };
  return {
    here,
    channelOf,
    roomOf,
    moderatorOf,
    /** For whoever may see the channel, and may be in its room. Rejects with `not_found`, `unauthorized`, `forbidden`. */
    async enter(principal: Principal, slug: string, client: Call['client']) {
      const channelSlug = await slugOf(slug);
      const visible = () => members.visible(principal, channelSlug);
      const seen = principal.kind === 'anonymous' ? reads.channel(channelSlug, visible) : visible();
      const channel = await seen.catch((error) => {
        // Who has the id of a room does not know its channel by that.
        throw error instanceof VezaError && error.code === 'not_found' ? new VezaError('not_found', `There is no room "${slug}".`) : error;
      });
      const room = await roomOf(channel);
      const channelRole = await members.roleOf(channel, principal.accountId);
      const person = principal.kind === 'anonymous' ? undefined : here().who(principal, channelRole);
      return { room, channelRole, person, author: person && ({ ...authorOf(person), address: client.address } satisfies Author) };
    },
    /** With its rules known. */
    async within<T>(room: RoomInfo, work: (room: Room) => Promise<T>): Promise<T> {
      const { rooms, desk } = here();
      await desk.rules.openRoom(room.id);
      try {
        const opened = await rooms.open(room.id);
        try {
          return await work(opened);
        } finally {
          opened.release();
        }
      } finally {
        desk.rules.releaseRoom(room.id);
      }
    },
  };
}

const authorOf = ({ id, name, role }: RoomPerson): Author => ({ id, name, role });

/** Whoever is signed in, in any way. */
export function signedIn<T>(person: T | undefined): T {
  if (person === undefined) throw new VezaError('unauthorized', 'Sign in first.');
  return person;
}

export function mayWrite<T extends RoomPerson>(person: T | undefined): T {
  const known = signedIn(person);
  if (!known.mayWrite) throw new VezaError('forbidden', 'This API key only reads; make one with the scope "moderate".');
  return known;
}
