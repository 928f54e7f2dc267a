import type { Database } from '../backing/database.js';
import type { RoomLog } from '../backing/room-log.js';
import type { Clock } from '../runtime/clock.js';
import { messageOf } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import type { Archive } from './archive.js';
import type { History } from './history.js';
import { settleRoom } from './room-writer.js';

const SWEEP_MS = 5000;
/** What waits so long in the log has nobody who stores it. */
const STUCK_MS = 5000;
const SWEEP_ROOMS = 20;
const RETAIN_MS = 600_000;
const DELETE_ROWS = 5000;
/** Nothing younger is let go: its key may come again, and it may not be stored yet. */
const MIN_AGE_MS = 3_600_000;

export interface Retention {
  /** `MESSAGE_HISTORY_LIMIT`: the newest entries of each room that are kept whatever their age. */
  readonly entries: number;
  /** Younger ones are kept too; at least an hour. */
  readonly ageMs: number;
}

export interface SweeperOptions {
  readonly database: Database;
  readonly roomLog: RoomLog;
  readonly clock: Clock;
  readonly log: Log;
  readonly archive: Archive;
  readonly history: History;
  readonly retention: Retention | undefined;
}

/** Stores what a process that died had put into the log only; lets go what is old. Several processes may do both at once. */
export class RoomSweeper {
  readonly #options: SweeperOptions;
  readonly #cancels: (() => void)[] = [];
  #sweeping: Promise<void> | undefined;
  #retaining: Promise<void> | undefined;

  constructor(options: SweeperOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#cancels.length > 0) return;
    const { clock, log } = this.#options;
    this.#cancels.push(
      clock.every(SWEEP_MS, () => {
        this.#sweeping ??= this.sweep()
          .catch((error) => log.debug({ error: messageOf(error) }, 'the logs of the rooms cannot be swept'))
          .finally(() => {
            this.#sweeping = undefined;
          });
      }),
      clock.every(RETAIN_MS, () => {
        this.#retaining ??= this.retain()
          .catch((error) => log.warn({ error: messageOf(error) }, 'old messages are not let go'))
          .finally(() => {
            this.#retaining = undefined;
          });
      }),
    );
  }

  async stop(): Promise<void> {
    for (const cancel of this.#cancels.splice(0)) cancel();
    // A sweep may wait for a database that is away; the archive is told to stop after this, and answers then.
    await this.#retaining;
  }

  async sweep(): Promise<void> {
    const { roomLog, archive, log } = this.#options;
    if (archive.isAway) return;
    for (const { roomId, archived, head } of await roomLog.unarchived(STUCK_MS, SWEEP_ROOMS)) {
      log.info({ room: roomId, entries: head - archived }, 'entries that nobody has stored are stored');
      await settleRoom(roomId, head, this.#options);
    }
  }

  /** What was said while a recording was made is kept with it, though it is below the floor. */
  async retain(): Promise<void> {
    const { retention, database, clock } = this.#options;
    if (!retention) return;
    const before = new Date(clock.wallMs() - Math.max(MIN_AGE_MS, retention.ageMs));
    await database.query(
      `update rooms r set floor = o.up_to, whole = greatest(r.whole, o.up_to)
       from (select id, least(
           (select max("offset") from messages m where m.room_id = rooms.id) - $1::bigint,
           (select "offset" from messages m where m.room_id = rooms.id and m.created_at < $2 and m.deleted_at is null order by m.created_at desc limit 1)
         ) as up_to from rooms where epoch > 0) o
       where o.id = r.id and o.up_to > r.floor`,
      [Math.max(1, retention.entries), before],
    );
    for (;;) {
      const { rows } = await database.query<{ n: number }>(
        `with old as (
           select m.room_id, m."offset" from rooms r join messages m on m.room_id = r.id and m."offset" <= r.floor
           where r.floor > 0 and not exists (select from broadcasts b where b.channel_id = r.channel_id and b.recording
             and b.started_at <= m.created_at and (b.ended_at is null or b.ended_at >= m.created_at))
           limit $1
         ), gone as (
           delete from messages m using old where m.room_id = old.room_id and m."offset" = old."offset" returning m.room_id, m.mid
         ), counts as (
           delete from reaction_counts c using gone where c.room_id = gone.room_id and c.mid = gone.mid
         ), reacted as (
           delete from reactions x using gone where x.room_id = gone.room_id and x.mid = gone.mid
         ) select count(*) as n from gone`,
        [DELETE_ROWS],
      );
      if (rows[0]!.n < DELETE_ROWS) return;
    }
  }
}
