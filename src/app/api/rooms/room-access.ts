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
import type { OperationCall } from '../openapi.js';
import { PATTERNS, text } from '../request-schemas.js';

/** The part of the chat that the API uses, in a process that has the chat. */
export interface RoomsApi {
  readonly rooms: {
    /** Finds a room by its id, or by the slug of its channel. */
    find(idOrSlug: string): Promise<RoomInfo | undefined>;
    open(roomId: string): Promise<Room>;
  };
  readonly desk: ModerationService;
  readonly history: { export(roomId: string): AsyncIterable<object> };
  readonly pageLimits: PageLimits;
  readonly presence: {
    count(roomId: string): number;
    /**
     * Signed-in people in the room, of all processes; incomplete when a process does not answer in
     * time.
     */
    people(roomId: string, limit: number): Promise<readonly { readonly id: string; readonly name: string }[]>;
  };
  /** The principal's identity in a room, the same as on the WebSocket. */
  who(principal: Principal, channelRole: ChannelRole | undefined): RoomPerson;
  /**
   * What automod would make of a viewer's text, without the remote classifier. Undefined: there is
   * no automod here.
   */
  tryText(roomId: string, text: string): Classification | undefined;
  /** When the account was made, ms since 1970. */
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
  slug: text({ min: 2, max: 63, pattern: SLUG.source, description: 'Slug of the channel, or id of the room.' }),
});
export const userIdSchema = text({
  max: MAX_USER_ID_LENGTH,
  pattern: PATTERNS.noControls,
  also: { isGood: isUserId, message: 'is not the id of a user; take it from a message' },
  description: `Id of a user, as in messages; percent-encoded in a path. At most ${MAX_USER_ID_LENGTH} UTF-16 code units.`,
});
export const userParams = roomParams.extend({ userId: userIdSchema });
export const midSchema = text({ min: 22, max: 22, pattern: '^[A-Za-z0-9_-]{22}$', description: 'The `mid` of a message.' });
/** The author of an entry, as they were at the time of writing. */
export const authorSchema = z.strictObject({ id: z.string(), name: z.string(), role: z.string() }).meta({ id: 'RoomAuthor' });
export const messageParams = roomParams.extend({ mid: midSchema });

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** How operations find their room and the people in it. */
export function roomAccess({ chat, members, reads }: RoomOperationsOptions) {
  const here = (): RoomsApi => {
    if (chat) return chat;
    throw new VezaError('unavailable', 'This process has no chat: ask a process with "chat" in its ROLES.');
  };
  /** The channel's slug, when the path has the id of a room. */
  const slugOf = async (slug: string): Promise<string> =>
    (chat && UUID.test(slug) ? (await chat.rooms.find(slug))?.slug : undefined) ?? slug;
  const channelOf = async <P extends { slug: string }>({ slug }: P) => ({ slug: await slugOf(slug), isPrivate: false });
  const roomOf = async (channel: Pick<Channel, 'slug'>): Promise<RoomInfo> => {
    const room = await here().rooms.find(channel.slug);
    if (!room) throw new VezaError('not_found', `There is no channel "${channel.slug}".`);
    return room;
  };
  const moderatorOf = ({ principal, channelRole, client }: Pick<OperationCall, 'principal' | 'channelRole' | 'client'>): Moderator => {
    const { id, name, role, moderates, actor } = here().who(principal, channelRole);
    const unproven = moderates === 'second-factor';
    return { id, name, role, unproven, actor, address: client.address, requestId: client.requestId };
  };
  return {
    here,
    channelOf,
    roomOf,
    moderatorOf,
    /**
     * Finds a channel's room and the caller's person in it. Rejects with `not_found` when the
     * caller may not see the channel, and with `unavailable` when this process has no chat.
     */
    async enter(principal: Principal, slug: string, client: OperationCall['client']) {
      const channelSlug = await slugOf(slug);
      const visible = () => members.visible(principal, channelSlug);
      const seen = principal.kind === 'anonymous' ? reads.channel(channelSlug, visible) : visible();
      const channel = await seen.catch((error) => {
        // The id of a room must not tell which channel it belongs to.
        throw error instanceof VezaError && error.code === 'not_found' ? new VezaError('not_found', `There is no room "${slug}".`) : error;
      });
      const room = await roomOf(channel);
      const channelRole = await members.roleOf(channel, principal.accountId);
      const person = principal.kind === 'anonymous' ? undefined : here().who(principal, channelRole);
      return { room, channelRole, person, author: person && ({ ...authorOf(person), address: client.address } satisfies Author) };
    },
    /** Does `work` in the open room, with its rules loaded. */
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

/** Throws `unauthorized` for a person who is not signed in. */
export function signedIn<T>(person: T | undefined): T {
  if (person === undefined) throw new VezaError('unauthorized', 'Sign in first.');
  return person;
}

export function mayWrite<T extends RoomPerson>(person: T | undefined): T {
  const known = signedIn(person);
  if (!known.mayWrite) throw new VezaError('forbidden', 'This API key may only read; make one with the scope "moderate".');
  return known;
}
