import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { Room } from './room.js';

export interface ModerationResult {
  /**
   * The offset of the entry that informs the room; undefined: there is none, or the log is
   * unavailable. The decision is in force in any case.
   */
  readonly offset?: number;
}

/** The moderator as entries name them. */
export interface NoticeAuthor {
  readonly id: string;
  readonly name: string;
}

export interface ModerationNoticesOptions {
  readonly log: Log;
  readonly withRoom: <T>(roomId: string, work: (room: Pick<Room, 'appendEntry'>) => Promise<T>) => Promise<T>;
}

/**
 * Entries that one `appendCurrentState` appends at most. Each further one means that the state
 * changed during the append before.
 */
const MOST_ENTRIES = 20;

/** Appends the entries that inform a room's members of moderation decisions. */
export class ModerationNotices {
  readonly #options: ModerationNoticesOptions;

  constructor(options: ModerationNoticesOptions) {
    this.#options = options;
  }

  /** Appends one notice. Never rejects: the decision is in force even if the log is unavailable. */
  async appendNotice(roomId: string, by: NoticeAuthor, action: string, more: object, type = 'act'): Promise<ModerationResult> {
    const { withRoom, log } = this.#options;
    try {
      const payload = { ...(type === 'act' && { action }), ...more, by: { id: by.id, name: by.name } };
      const { offset } = await withRoom(roomId, (room) => room.appendEntry({ type, payload }));
      return { offset };
    } catch (error) {
      log.warn(
        { event: 'chat.act_not_announced', room: roomId, action, error: messageOf(error) },
        'could not announce the act of a moderator to its room',
      );
      return {};
    }
  }

  /**
   * Appends the current state, and again if it changed in the meantime: two moderators may append
   * in any order, and the last entry must have the state in force. Resolves to the last entry.
   * Rejects as `read` does.
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
