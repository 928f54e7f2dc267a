import type { RoomLog } from '../../backing/room-log/room-log.js';
import type { Log } from '../../runtime/log.js';
import type { Archive } from './archive.js';
import type { RoomHistory } from './room-history.js';

/** Entries of the log that are read and stored at a time. */
const READ_ENTRIES = 500;

export interface LostRowsOptions {
  readonly roomLog: RoomLog;
  readonly archive: Archive;
  readonly history: RoomHistory;
  readonly log: Log;
}

/**
 * Finds rows of a room that PostgreSQL had reported as stored and no longer has: it was restored
 * from a backup, or a replica that was behind has taken over. Entries that the log still holds are
 * stored again. Resolves to the log's epoch if entries are lost for good, because the room then
 * needs a new epoch; otherwise to undefined. Rejects with `unavailable`.
 */
export async function storeLostRows(roomId: string, { roomLog, archive, history, log }: LostRowsOptions): Promise<number | undefined> {
  const page = await roomLog.read(roomId, 0, 1);
  if (!page || page.archived === 0) return undefined;
  const { epoch, archived } = page;
  // The check includes the entry just before those that the log holds. If its row is missing too,
  // entries are lost for good.
  const first = page.entries[0]?.offset ?? archived + 1;
  const missing = new Set(await history.missingOffsets(roomId, Math.max(1, first - 1), archived));
  if (missing.size === 0) return undefined;
  const from = Math.min(...missing);
  let stored = 0;
  for (let after = from - 1; after < archived; ) {
    const held = await roomLog.read(roomId, after, READ_ENTRIES);
    if (!held || held.epoch !== epoch || held.entries.length === 0) break;
    const lost = held.entries.filter(({ offset }) => missing.has(offset));
    const outcomes = await Promise.all(lost.map((entry) => archive.storeEntry({ ...entry, roomId, epoch })));
    for (const [index, { kind }] of outcomes.entries()) {
      if (kind === 'fenced') continue;
      missing.delete(lost[index]!.offset);
      stored++;
    }
    after = held.entries.at(-1)!.offset;
  }
  log.warn(
    { event: 'chat.rows_lost', room: roomId, from, stored, lost: missing.size },
    'the database lost entries of a room; the entries in the log are archived again',
  );
  return missing.size > 0 ? epoch : undefined;
}
