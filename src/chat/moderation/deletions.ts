import type { Database, Queryable } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import type { Log } from '../../runtime/log.js';
import type { ModerationNotices, ModerationResult, NoticeAuthor } from '../rooms/moderation-notices.js';
import type { Pins } from '../rooms/pins.js';
import type { HeldMessage, Room } from '../rooms/room.js';
import type { HeldMessageQueue } from './held-message-queue.js';
import type { RoomRules } from './rules.js';
import type { Sanctions } from './sanctions.js';

/** What is asked of the room. */
export type ErasingRoom = Pick<Room, 'eraseMessages' | 'untilStored' | 'barUser'>;

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

/** Deleted by one entry. */
const MAX_MIDS = 100;
/** Until every process that reaches the database has long heard of a ban or a timeout. */
const BAR_MS = 60_000;

/**
 * Takes messages out of a room with everything that hangs on them: the pin, and what waits for a moderator. Somebody may be writing, holding, approving
 * or pinning one of them at the same time, in this process or another. Each of these looks once more after it has done its part, and so does this:
 * whoever comes second finds the other.
 */
export class Deletions {
  readonly #options: DeletionsOptions;

  constructor(options: DeletionsOptions) {
    this.#options = options;
  }

  /** Rejects with `unavailable`, `busy`: then they may be there still. */
  async deleteMessages(roomId: string, by: NoticeAuthor, mids: readonly string[]): Promise<ModerationResult> {
    const said = await this.#options.withRoom(roomId, (room) => room.eraseMessages({ mids }, named(by)));
    await this.#afterwards(roomId, by);
    return said ? { offset: said.offset } : {};
  }

  /** Everything that somebody has said in the room so far. Rejects as `deleteMessages`. */
  async deleteAllOf(roomId: string, by: NoticeAuthor, userId: string): Promise<ModerationResult> {
    const { held, withRoom } = this.#options;
    // What is approved after this does not find its row again, and is taken back by whoever approves it.
    await held.deleteOfUser(roomId, userId);
    const said = await withRoom(roomId, async (room) => {
      const wiped = await room.eraseMessages({ userId }, named(by));
      // What was taken back meanwhile waits now instead of being in the room; and one of those may have been approved.
      const approved = await held.deleteOfUser(roomId, userId);
      for (let at = 0; at < approved.length; at += MAX_MIDS)
        await room.eraseMessages({ mids: approved.slice(at, at + MAX_MIDS) }, named(by));
      return wiped;
    });
    await this.#afterwards(roomId, by);
    return said ? { offset: said.offset } : {};
  }

  /**
   * A message leaves the room and waits for a moderator under another mid: what was deleted under a mid does not come back under it. `record` writes
   * down that it does, with it. Twice is harmless. Rejects with `unavailable`, `busy`.
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
      // Somebody was faster: it is deleted, or decided about.
      if (outcome === 'gone' || outcome === 'decided') return;
      // It is deleted all the same, and the list of acts says why.
      if (outcome === 'full') log.warn({ room: roomId, mid }, 'a message that was taken back does not wait for a moderator: too many do');
      await room.eraseMessages({ mids: [mid] }, named(by));
    });
    await this.#afterwards(roomId, by);
  }

  /**
   * Sets the log to what is in force: nothing of somebody who is banned or has a timeout is taken from now on, in no process, though some may not have
   * heard of it yet and messages may be on their way. Rejects with `unavailable`; then no message is taken of anybody.
   */
  async barSanctioned(roomId: string, userId: string): Promise<void> {
    const { sanctions, clock, withRoom } = this.#options;
    const wanted = async () => {
      const ban = await sanctions.findBan(roomId, userId);
      if (ban && !ban.isShadow) return { why: 'banned', untilMs: ban.untilMs ?? Number.POSITIVE_INFINITY } as const;
      return { why: 'timed_out', untilMs: (await sanctions.findTimeout(roomId, userId))?.untilMs ?? 0 } as const;
    };
    await withRoom(roomId, async (room) => {
      // Somebody may lift or shorten it while the log is told of it, and the other way round: whoever is told last has to be right.
      for (let last = await wanted(), isOther = true; isOther; ) {
        await room.barUser(userId, Math.max(0, Math.ceil(Math.min(BAR_MS, last.untilMs - clock.wallMs()))), last.why);
        const now = await wanted();
        isOther = now.why !== last.why || now.untilMs !== last.untilMs;
        last = now;
      }
    });
  }

  /** Of an account that is deleted: nobody asks for it to be let in again. */
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
