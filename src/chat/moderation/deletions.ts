import type { Database, Queryable } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import type { Log } from '../../runtime/log.js';
import type { ModerationNotices, ModerationResult, NoticeAuthor } from '../rooms/moderation-notices.js';
import type { Pins } from '../rooms/pins.js';
import type { HeldMessage, Room } from '../rooms/room.js';
import type { HeldMessageQueue } from './held-message-queue.js';
import type { RoomRules } from './rules.js';
import type { Sanctions } from './sanctions.js';

/** The methods of a room that deletions use. */
type ErasingRoom = Pick<Room, 'eraseMessages' | 'untilStored' | 'barUser'>;

export interface DeletionsOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly log: Log;
  readonly held: HeldMessageQueue;
  readonly pins: Pins;
  readonly news: ModerationNotices;
  readonly rules: Pick<RoomRules, 'applyChanges'>;
  readonly sanctions: Pick<Sanctions, 'findBan' | 'findTimeout'>;
  readonly withRoom: <T>(roomId: string, work: (room: ErasingRoom) => Promise<T>) => Promise<T>;
}

/** Messages that one `del` entry deletes at most. */
const MAX_MIDS = 100;
/**
 * How long the log refuses a user's messages. A process that reaches the database learns of a ban
 * or timeout within seconds, long before this ends.
 */
const BAR_MS = 60_000;

/**
 * Deletes messages of a room together with the pin and the held messages that depend on them. A
 * message may be published, held, approved or pinned at the same time, here or in another process.
 * Each of these operations, and the deletion, checks again at its end, so the later one finds the
 * earlier.
 */
export class Deletions {
  readonly #options: DeletionsOptions;

  constructor(options: DeletionsOptions) {
    this.#options = options;
  }

  /** Rejects with `unavailable` or `busy`; the messages may then still exist. */
  async deleteMessages(roomId: string, by: NoticeAuthor, mids: readonly string[]): Promise<ModerationResult> {
    const said = await this.#options.withRoom(roomId, (room) => room.eraseMessages({ mids }, named(by)));
    await this.#afterwards(roomId, by);
    return said ? { offset: said.offset } : {};
  }

  /** Deletes every message of a user in the room so far. Rejects as `deleteMessages` does. */
  async deleteAllOf(roomId: string, by: NoticeAuthor, userId: string): Promise<ModerationResult> {
    const { held, withRoom } = this.#options;
    // A process that approves one of these messages after this does not find its row, and then
    // deletes the message itself.
    await held.deleteOfUser(roomId, userId);
    const said = await withRoom(roomId, async (room) => {
      const wiped = await room.eraseMessages({ userId }, named(by));
      // Messages that were retracted in the meantime are held now. One of them may have been
      // approved.
      const approved = await held.deleteOfUser(roomId, userId);
      for (let at = 0; at < approved.length; at += MAX_MIDS)
        await room.eraseMessages({ mids: approved.slice(at, at + MAX_MIDS) }, named(by));
      return wiped;
    });
    await this.#afterwards(roomId, by);
    return said ? { offset: said.offset } : {};
  }

  /**
   * Deletes a message and holds a copy of it under another `mid`, because a deleted `mid` cannot be
   * published again. `record` writes the act in the same transaction. A second call for the same
   * message does no harm. Rejects with `unavailable` or `busy`.
   */
  async holdInstead(by: NoticeAuthor, mid: string, message: HeldMessage, record: (connection: Queryable) => Promise<void>): Promise<void> {
    const { database, held, withRoom, log } = this.#options;
    const { roomId } = message;
    await withRoom(roomId, async (room) => {
      await room.untilStored(mid);
      const outcome = await database.transaction(async (connection) => {
        const holding = await held.holdInstead(connection, message, mid);
        if (holding === 'held' || holding === 'full') await record(connection);
        return holding;
      });
      // The message was deleted in the meantime, or a moderator has decided about it.
      if (outcome === 'gone' || outcome === 'decided') return;
      // The message is deleted even if no copy is held. The list of acts has the reason.
      if (outcome === 'full')
        log.warn(
          { event: 'chat.held_messages_full', room: roomId, mid },
          'a retracted message is not held for a moderator: too many are held',
        );
      await room.eraseMessages({ mids: [mid] }, named(by));
    });
    await this.#afterwards(roomId, by);
  }

  /**
   * Makes the log refuse messages of a banned or timed-out user from now on, or accept them again
   * when the sanction was lifted. Other processes may not know of the sanction yet, and messages
   * may be on their way to the log. Rejects with `unavailable`; the log then accepts no message of
   * any user.
   */
  async barSanctioned(roomId: string, userId: string): Promise<void> {
    const { sanctions, clock, withRoom } = this.#options;
    const wanted = async () => {
      const ban = await sanctions.findBan(roomId, userId);
      if (ban && !ban.isShadow) return { why: 'banned', untilMs: ban.untilMs ?? Number.POSITIVE_INFINITY } as const;
      return { why: 'timed_out', untilMs: (await sanctions.findTimeout(roomId, userId))?.untilMs ?? 0 } as const;
    };
    await withRoom(roomId, async (room) => {
      // The sanction may change during the call to the log. The last call has to carry the state in
      // force.
      for (let last = await wanted(), isOther = true; isOther; ) {
        await room.barUser(userId, Math.max(0, Math.ceil(Math.min(BAR_MS, last.untilMs - clock.wallMs()))), last.why);
        const now = await wanted();
        isOther = now.why !== last.why || now.untilMs !== last.untilMs;
        last = now;
      }
    });
  }

  /** Makes the log refuse messages of a deleted account for `BAR_MS`. */
  async barDeleted(roomId: string, userId: string): Promise<void> {
    await this.#options.withRoom(roomId, (room) => room.barUser(userId, BAR_MS, 'banned'));
  }

  async #afterwards(roomId: string, by: NoticeAuthor): Promise<void> {
    const { pins, news, rules } = this.#options;
    const wasPinned = await pins.unpinErased(roomId);
    await rules.applyChanges(roomId);
    if (wasPinned) await news.appendCurrentState(roomId, by, 'pin', () => pins.currentPin(roomId), 'pin');
  }
}

const named = ({ id, name }: NoticeAuthor) => ({ id, name });
