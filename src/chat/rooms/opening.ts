import type { RoomLog } from '../../backing/room-log/room-log.js';
import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { RoomHistory, StoredRoom } from './room-history.js';

export interface OpeningOptions {
  readonly roomLog: RoomLog;
  readonly history: RoomHistory;
  readonly clock: Clock;
  readonly log: Log;
  /** An epoch that must not be used although the log has it; 0: none. */
  readonly distrusted: number;
  /** The highest epoch that this process has seen. A new epoch is above it. */
  readonly known: number;
  readonly isStopped: () => boolean;
}

/**
 * The process that raised the epoch has this long to open the log under it. After that another
 * process raises it again.
 */
const OPENING_MS = 1000;
const POLL_MS = 50;
const ATTEMPTS = 40;

/**
 * Opens the room in the log under the epoch that PostgreSQL has, or under a new one. Resolves to
 * undefined when the room does not exist. Rejects with `unavailable`.
 *
 * An epoch is opened once, by the process that raised it, and never again, not even when the answer
 * to the opening is lost. If it were opened twice and the log wiped in between, one offset of one
 * epoch could belong to two messages. A process that cannot finish therefore gives up its epoch,
 * and the next one raises it again.
 */
export async function reopenRoom(roomId: string, options: OpeningOptions): Promise<StoredRoom | undefined> {
  const { roomLog, history, clock, log, distrusted } = options;
  let above = options.known;
  for (let attempt = 0; attempt < ATTEMPTS && !options.isStopped(); attempt++) {
    const state = await history.readRoom(roomId);
    if (!state) {
      await roomLog.remove(roomId);
      return undefined;
    }
    const page = await roomLog.read(roomId, Number.MAX_SAFE_INTEGER, 1);
    if (page) above = Math.max(above, page.epoch);
    const isBehind = state.epoch < above;
    if (page && page.epoch === state.epoch && page.epoch !== distrusted && !isBehind) return state;
    // The database was reset to an older state (a backup, or a replica that was behind). The
    // entries that it lacks are withdrawn by an epoch above all that were seen.
    if (page && page.epoch > state.epoch) await roomLog.remove(roomId);
    if (state.epoch !== distrusted && !isBehind && state.raisedAgoMs < OPENING_MS) {
      await new Promise<void>((resolve) => clock.after(POLL_MS, resolve));
      continue;
    }
    const raised = await history.raiseEpoch(roomId, state.epoch, above);
    if (!raised) continue;
    const entries = raised.head === 0 ? [] : await history.readTail(roomId, raised.head);
    const isOpened = await roomLog.open({ roomId, ...raised, atMs: entries.at(-1)?.atMs ?? 0, entries });
    log.info({ event: 'chat.room_opened', room: roomId, ...raised, isOpened }, 'a room was opened in the room log');
    return { ...state, epoch: raised.epoch, raisedAgoMs: 0, isFirstEpoch: state.epoch === 0 };
  }
  throw new VezaError('unavailable', 'The room cannot be opened now; try again.');
}
