import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { Room } from './room.js';

export interface ModerationResult {
  /** Of the entry that tells the room; undefined: nobody is told, or the log is away. What was decided is in force in either case. */
  readonly offset?: number;
}

/** Who did it, as entries name him. */
export interface NoticeAuthor {
  readonly id: string;
  readonly name: string;
}

export interface ModerationNoticesOptions {
  readonly log: Log;
  readonly withRoom: <T>(roomId: string, work: (room: Pick<Room, 'appendEntry'>) => Promise<T>) => Promise<T>;
}

/** Every further entry takes another change of the same thing while the one before was written. */
const MOST_ENTRIES = 20;

/** Entries that tell those who are in a room what was decided about it. */
export class ModerationNotices {
  readonly #options: ModerationNoticesOptions;

  constructor(options: ModerationNoticesOptions) {
    this.#options = options;
  }

  /** Never rejects: what was decided is in force already, so that it is no failure when the log is away. */
  async appendNotice(roomId: string, by: NoticeAuthor, action: string, more: object, type = 'act'): Promise<ModerationResult> {
    const { withRoom, log } = this.#options;
    try {
      const payload = { ...(type === 'act' && { action }), ...more, by: { id: by.id, name: by.name } };
      const { offset } = await withRoom(roomId, (room) => room.appendEntry({ type, payload }));
      return { offset };
    } catch (error) {
      log.warn({ room: roomId, action, error: messageOf(error) }, 'a room was not told what a moderator did');
      return {};
    }
  }

  /**
   * Tells how something stands now, and again when that has changed while it was told: two who change it at once write their entries in any order, and
   * the last entry has to be what is in force. Resolves to the last one. Rejects as `read` does.
   */
  async appendCurrentState(
    roomId: string,
    by: NoticeAuthor,
    action: string,
    read: () => Promise<object>,
    type = 'act',
  ): Promise<ModerationResult> {
    let told: string | undefined;
    let result: ModerationResult = {};
    for (let entries = 0; entries < MOST_ENTRIES; entries++) {
      const state = await read();
      const text = JSON.stringify(state);
      if (text === told) break;
      told = text;
      result = await this.appendNotice(roomId, by, action, state, type);
    }
    return result;
  }
}
