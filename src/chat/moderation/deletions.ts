import type { Database, Queryable } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import type { Log } from '../../runtime/log.js';
import type { ModerationNotices, ModerationResult, NoticeAuthor } from '../rooms/moderation-notices.js';
import type { Pins } from '../rooms/pins.js';
import type { HeldMessage, Room } from '../rooms/room.js';
import type { HeldMessageQueue } from './held-message-queue.js';
import type { RoomRules } from './rules.js';
import type { Sanctions } from './sanctions.js';

/** The part of a room that deleting needs. */
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

/** Messages that one `del` entry deletes. */
const MAX_MIDS = 100;
/** How long the log bars a user: far longer than a process that reaches the database takes to learn of a ban or timeout. */
const BAR_MS = 60_000;

/**
 * Deletes messages of a room with everything that depends on them: the pin, and held messages. A message may be published, held,
 * approved or pinned at the same time, here or in another process. Each of these operations checks once more after its part, and so
 * does deletion: the later one finds the earlier.
 */
export class Deletions {
  readonly #options: DeletionsOptions;

  constructor(options: DeletionsOptions) {
    this.#options = options;
  }

  /** Rejects with `unavailable` or `busy`; the messages may then still be there. */
  async deleteMessages(roomId: string, by: NoticeAuthor, mids: readonly string[]): Promise<ModerationResult> {
    const said = await this.#options.withRoom(roomId, (room) => room.eraseMessages({ mids }, named(by)));
    await this.#afterwards(roomId, by);
    return said ? { offset: said.offset } : {};
  }

  /** Deletes every message of a user in the room so far. Rejects as `deleteMessages` does. */
  async deleteAllOf(roomId: string, by: NoticeAuthor, userId: string): Promise<ModerationResult> {
    const { held, withRoom } = this.#options;
    // A message that is approved after this does not find its row again, and its approver deletes it.
    await held.deleteOfUser(roomId, userId);
    const said = await withRoom(roomId, async (room) => {
      const wiped = await room.eraseMessages({ userId }, named(by));
      // Messages that were retracted meanwhile are held now, and one of them may have been approved.
      const approved = await held.deleteOfUser(roomId, userId);
      for (let at = 0; at < approved.length; at += MAX_MIDS)
        await room.eraseMessages({ mids: approved.slice(at, at + MAX_MIDS) }, named(by));
      return wiped;
    });
    await this.#afterwards(roomId, by);
    return said ? { offset: said.offset } : {};
  }

  /**
   * Deletes a message and holds a copy under another `mid`, because a deleted `mid` does not come back. `record` writes the act, in
   * the same transaction. Twice is harmless. Rejects with `unavailable` or `busy`.
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
      // The message was deleted or decided about meanwhile.
      if (outcome === 'gone' || outcome === 'decided') return;
      // It is deleted all the same, and the list of acts says why.
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
   * Makes the log refuse a banned or timed-out user from now on, or accept them again: other processes may not know of the sanction
   * yet, and messages may be on their way. Rejects with `unavailable`; the log then takes no message from anybody.
   */
  async barSanctioned(roomId: string, userId: string): Promise<void> {
    const { sanctions, clock, withRoom } = this.#options;
    const wanted = async () => {
      const ban = await sanctions.findBan(roomId, userId);
      if (ban && !ban.isShadow) return { why: 'banned', untilMs: ban.untilMs ?? Number.POSITIVE_INFINITY } as const;
      return { why: 'timed_out', untilMs: (await sanctions.findTimeout(roomId, userId))?.untilMs ?? 0 } as const;
    };
    await withRoom(roomId, async (room) => {
      // The sanction may change while the log is told of it: the log has to be told the state in force last.
      for (let last = await wanted(), isOther = true; isOther; ) {
        await room.barUser(userId, Math.max(0, Math.ceil(Math.min(BAR_MS, last.untilMs - clock.wallMs()))), last.why);
        const now = await wanted();
        isOther = now.why !== last.why || now.untilMs !== last.untilMs;
        last = now;
      }
    });
  }

  /** Bars a deleted account; nothing lifts it before it ends. */
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
