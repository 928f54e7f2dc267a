import type { Database } from '../../backing/database/database.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { ModerationResult } from '../rooms/moderation-notices.js';
import type { Room, RoomInfo } from '../rooms/room.js';
import type { ModerationActs, Moderator } from './acts.js';
import type { Deletions } from './deletions.js';
import { type HeldMessageQueue, type HeldRow, recordOf } from './held-message-queue.js';
import { ROOT } from './targets.js';

export interface HeldDecisionsOptions {
  readonly database: Database;
  readonly log: Log;
  readonly held: HeldMessageQueue;
  readonly acts: ModerationActs;
  readonly deletions: Deletions;
  readonly withRoom: <T>(roomId: string, work: (room: Pick<Room, 'publishHeld' | 'untilStored'>) => Promise<T>) => Promise<T>;
}

/**
 * Approves and denies held messages. The decision and its act are stored in one transaction; the
 * entry in the room follows.
 */
export class HeldDecisions {
  readonly #options: HeldDecisionsOptions;

  constructor(options: HeldDecisionsOptions) {
    this.#options = options;
  }

  /**
   * Publishes the message. Rejects with `conflict` when all messages of its author were deleted at
   * the same time.
   */
  async approve(room: RoomInfo, moderator: Moderator, mid: string): Promise<ModerationResult> {
    const { withRoom, log } = this.#options;
    const record = await this.#decide(room, moderator, mid, 'approved', undefined);
    try {
      const said = await withRoom(room.id, (told) => told.publishHeld(record.message));
      if (await this.#options.held.markPublished(room.id, mid, said.offset)) return { offset: said.offset };
    } catch (error) {
      // If this write fails, the queue shows the message again after `STUCK_MS`.
      await this.#options.held
        .markWaiting(room.id, mid)
        .catch((failure) =>
          log.warn(
            { event: 'chat.held_message_stuck', room: room.id, mid, error: messageOf(failure) },
            'could not put a held message back into the queue',
          ),
        );
      throw error;
    }
    // All messages of the author were deleted in the meantime, and this one was appended after
    // that.
    await this.#options.deletions.deleteMessages(room.id, moderator, [mid]);
    throw new VezaError('conflict', 'All messages of this user have just been deleted.');
  }

  async deny(room: RoomInfo, moderator: Moderator, mid: string, reason: string | undefined): Promise<ModerationResult> {
    await this.#decide(room, moderator, mid, 'denied', reason);
    // An earlier approval with an unknown outcome may have published the message.
    const { withRoom, database, log } = this.#options;
    try {
      await withRoom(room.id, (told) => told.untilStored(mid));
      const { rowCount } = await database.query("select 1 from messages where room_id = $1 and mid = $2 and type = 'msg'", [room.id, mid]);
      if (rowCount > 0) await this.#options.deletions.deleteMessages(room.id, moderator, [mid]);
    } catch (error) {
      log.warn(
        { event: 'chat.denied_message_unknown', room: room.id, mid, error: messageOf(error) },
        'could not check whether a denied message was published before',
      );
    }
    return {};
  }

  async #decide(room: RoomInfo, moderator: Moderator, mid: string, decision: 'approved' | 'denied', reason: string | undefined) {
    const record = await this.#options.database.transaction(async (connection) => {
      const { rows } = await connection.query<HeldRow>(
        ...this.#options.held.decisionStatement(room.id, mid, decision, moderator.name, reason),
      );
      const row = rows[0];
      if (!row) return undefined;
      if (row.user_id === moderator.id && moderator.id !== ROOT)
        throw new VezaError('forbidden', 'Another moderator has to decide about your own message.');
      const details = { mid, ...(reason !== undefined && { reason }) };
      await this.#options.acts.recordAct(connection, room, moderator, decision === 'approved' ? 'approve' : 'deny', row.user_id, details);
      return recordOf(row);
    });
    if (record) return record;
    if (await this.#options.held.findMessage(room.id, mid))
      throw new VezaError('conflict', 'A moderator has already decided about this message.');
    throw new VezaError('not_found', 'No such message waits for a moderator.');
  }
}
