import type { Database } from '../../backing/database/database.js';
import { VezaError } from '../../runtime/errors.js';
import type { RoomRole } from '../protocol/protocol.js';
import type { Room, RoomInfo } from '../rooms/room.js';
import type { AccountDirectory, Moderator } from './acts.js';
import type { RecentWriter, RecentWriters } from './recent-writers.js';
import { rankOf } from './settings.js';

/** The bearer of the server's own token file. This moderator outranks everyone. */
export const ROOT = 'admin-token';

export interface ModerationTargetsOptions {
  readonly database: Database;
  readonly people: AccountDirectory;
  readonly writers: RecentWriters;
  readonly withRoom: <T>(roomId: string, work: (room: Pick<Room, 'untilStored' | 'recentMessage'>) => Promise<T>) => Promise<T>;
}

/** Finds the user whom a moderation act is about. */
export class ModerationTargets {
  readonly #options: ModerationTargetsOptions;

  constructor(options: ModerationTargetsOptions) {
    this.#options = options;
  }

  /** Rejects with `not_found`, or with `forbidden` when the moderator does not outrank the user. */
  async findUser(
    room: RoomInfo,
    moderator: Moderator,
    userId: string,
  ): Promise<{ user: { id: string; name: string }; writer: RecentWriter | undefined }> {
    const writer = await this.#options.writers.findWriter(room.id, userId);
    const person = await this.#options.people.find(userId, room.channelId);
    const known = person ?? (writer && { name: writer.name, role: writer.role as RoomRole }) ?? (await this.#findInMessages(room, userId));
    if (!known) throw new VezaError('not_found', 'There is no such user.');
    mustOutrank(moderator, userId, known.role);
    return { user: { id: userId, name: known.name }, writer };
  }

  /** The author of a message, stored or not; undefined: there is no such message. */
  async findAuthor(room: RoomInfo, mid: string): Promise<string | undefined> {
    const { database, withRoom } = this.#options;
    const find = async () => {
      const { rows } = await database.query<{ user_id: string | null }>('select user_id from messages where room_id = $1 and mid = $2', [
        room.id,
        mid,
      ]);
      return rows[0];
    };
    return withRoom(room.id, async (told) => {
      const found = await find();
      if (found) return found.user_id ?? undefined;
      await told.untilStored(mid);
      return (await find())?.user_id ?? told.recentMessage(mid)?.userId;
    });
  }

  /**
   * Finds a user without an account by their messages, even before another process has stored the
   * user as a recent writer.
   */
  async #findInMessages(room: RoomInfo, userId: string): Promise<{ name: string; role: RoomRole } | undefined> {
    const { database, withRoom } = this.#options;
    const find = async () => {
      const { rows: said } = await database.query<{ payload: string }>(
        `select payload from messages where room_id = $1 and user_id = $2 and type in ('msg', 'shadow') order by "offset" desc limit 1`,
        [room.id, userId],
      );
      if (said[0]) return (JSON.parse(said[0].payload) as { user: { name: string; role: RoomRole } }).user;
      const { rows: held } = await database.query<{ name: string; role: RoomRole }>(
        'select user_name as name, user_role as role from held_messages where room_id = $1 and user_id = $2 limit 1',
        [room.id, userId],
      );
      return held[0];
    };
    const found = await find();
    if (found) return found;
    await withRoom(room.id, (told) => told.untilStored());
    return find();
  }
}

/** Throws `forbidden` or `second_factor_missing` unless the moderator may moderate. */
export function mustModerate({ role, unproven }: Moderator): void {
  if (rankOf(role) >= rankOf('moderator')) return;
  if (unproven) throw new VezaError('second_factor_missing', 'This wants a second factor: set one up, or sign in with it.');
  throw new VezaError('forbidden', 'Only moderators of this room may do that.');
}

/** Throws `forbidden` unless the moderator has a higher role than the user. */
export function mustOutrank(moderator: Moderator, userId: string, role: RoomRole): void {
  if (moderator.id === ROOT && userId !== ROOT) return;
  if (rankOf(moderator.role) <= rankOf(role)) throw new VezaError('forbidden', 'You cannot moderate a user of an equal or higher role.');
}
