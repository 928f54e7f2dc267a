import type { Database } from '../../backing/database/database.js';
import type { RoomLog } from '../../backing/room-log/room-log.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { Archive } from './archive.js';
import { storeLostRows } from './lost-rows.js';
import type { RoomHistory } from './room-history.js';
import { settleRoom } from './writer.js';

const SWEEP_MS = 5000;
/** What waits so long in the log has nobody who stores it. */
const STUCK_MS = 5000;
const SWEEP_ROOMS = 20;
const RETAIN_MS = 600_000;
/** Rooms whose floor is raised in one statement. */
const FLOOR_ROOMS = 100;
/** Rooms, and rows of each, that are looked at in one statement. */
const DELETE_ROOMS = 20;
const DELETE_ROWS = 500;
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
  readonly history: RoomHistory;
  readonly retention: Retention | undefined;
  /** Rooms that are open in this process, and how to begin one anew whose epoch is not to be believed any more. */
  readonly openRooms?: () => Iterable<{ readonly id: string; distrustEpoch(epoch: number): Promise<void> }>;
}

/** Stores what a process that died had put into the log only; lets go what is old, where that is asked of it. Several processes may do both at once. */
export class RoomSweeper {
  readonly #options: SweeperOptions;
  readonly #cancels: (() => void)[] = [];
  #sweeping: Promise<void> | undefined;
  #retaining: Promise<void> | undefined;
  #isStopped = false;
  /** The PostgreSQL whose rows are known to be those of the log. */
  #server: string | undefined;

  constructor(options: SweeperOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#cancels.length > 0) return;
    const { clock, log } = this.#options;
    this.#cancels.push(
      clock.every(SWEEP_MS, () => {
        this.#sweeping ??= this.sweep()
          .catch((error) => log.debug({ event: 'chat.sweep_failed', error: messageOf(error) }, 'could not sweep the room logs'))
          .finally(() => {
            this.#sweeping = undefined;
          });
      }),
      clock.every(RETAIN_MS, () => {
        this.#retaining ??= this.retain()
          .catch((error) => log.warn({ event: 'chat.old_messages_not_deleted', error: messageOf(error) }, 'could not delete old messages'))
          .finally(() => {
            this.#retaining = undefined;
          });
      }),
    );
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    for (const cancel of this.#cancels.splice(0)) cancel();
    // A sweep may wait for a database that is away; the archive is told to stop after this, and answers then.
    await this.#retaining;
  }

  async sweep(): Promise<void> {
    const { roomLog, archive, log } = this.#options;
    if (archive.isAway) return;
    await this.#compareRows();
    for (const { roomId, archived, head } of await roomLog.unarchived(STUCK_MS, SWEEP_ROOMS)) {
      log.info(
        { event: 'chat.entries_archived_late', room: roomId, entries: head - archived },
        'unarchived entries of a room log were archived',
      );
      await settleRoom(roomId, head, this.#options);
    }
  }

  /** After PostgreSQL has begun anew: it may be an older one. */
  async #compareRows(): Promise<void> {
    const { history, openRooms = () => [] } = this.#options;
    const server = await history.server();
    if (server === this.#server) return;
    const isFirst = this.#server === undefined;
    // Rooms that are opened later are compared when they are.
    if (!isFirst)
      for (const room of [...openRooms()]) {
        const lost = await storeLostRows(room.id, this.#options);
        if (lost !== undefined) await room.distrustEpoch(lost);
      }
    this.#server = server;
  }

  /**
   * What was said while a recording was made is kept with it, and a pinned message while it is pinned, though they are below the floor. In small
   * statements: whoever stores messages meanwhile shares the locks of these rooms, and a service that has had no limit so far may have millions to let go.
   */
  async retain(): Promise<void> {
    const { retention, database, clock } = this.#options;
    if (!retention) return;
    const before = new Date(clock.wallMs() - Math.max(MIN_AGE_MS, retention.ageMs));
    // A room with nothing so old has no row here: `least` would pass over a null, and let go what is young.
    const { rows: due } = await database.query<{ id: string; up_to: number }>(
      `select r.id, least(newest."offset" - $1::bigint, old."offset") as up_to
       from rooms r
       cross join lateral (select m."offset" from messages m where m.room_id = r.id order by m."offset" desc limit 1) newest
       cross join lateral (select m."offset" from messages m
         where m.room_id = r.id and m.created_at < $2 and m.deleted_at is null order by m.created_at desc limit 1) old
       where r.epoch > 0 and least(newest."offset" - $1::bigint, old."offset") > r.floor`,
      // The newest stays, so that the time of a room never falls.
      [Math.max(1, retention.entries), before],
    );
    for (let at = 0; at < due.length && !this.#isStopped; at += FLOOR_ROOMS) {
      const some = due.slice(at, at + FLOOR_ROOMS);
      // Locked in the one order that everybody has, those who store as well.
      await database.query(
        `with locked as (select id from rooms where id = any($1::uuid[]) order by id for no key update)
         update rooms r set floor = greatest(r.floor, o.up_to), whole = greatest(r.whole, o.up_to)
         from locked join unnest($1::uuid[], $2::bigint[]) o(id, up_to) on o.id = locked.id where r.id = locked.id`,
        [some.map(({ id }) => id), some.map(({ up_to }) => up_to)],
      );
    }
    const { rows: unswept } = await database.query<{ id: string }>('select id from rooms where swept < floor order by id');
    let roomIds = unswept.map(({ id }) => id);
    while (roomIds.length > 0 && !this.#isStopped) {
      const again = await this.#letGo(roomIds.slice(0, DELETE_ROOMS));
      roomIds = [...again, ...roomIds.slice(DELETE_ROOMS)];
    }
  }

  /** Looks at the next rows of each of these rooms. Resolves to those of which there are more. */
  async #letGo(roomIds: readonly string[]): Promise<string[]> {
    const { database } = this.#options;
    const { rows } = await database.query<{ id: string; version: string; up_to: number; is_last: boolean }>(
      `with seen as (
         select r.id, r.channel_id, r.swept, r.xmin::text as version, r.floor,
           case when part.n < $2 then r.floor else part.last end as up_to
         from rooms r cross join lateral (
           select count(*) as n, max(x."offset") as last from (
             select m."offset" from messages m where m.room_id = r.id and m."offset" > r.swept and m."offset" <= r.floor order by m."offset" limit $2
           ) x) part
         where r.id = any($1::uuid[]) and r.swept < r.floor
       ), gone as (
         delete from messages m using seen s where m.room_id = s.id and m."offset" > s.swept and m."offset" <= s.up_to
           and not exists (select from broadcasts b where b.channel_id = s.channel_id and b.recording
             and b.started_at <= m.created_at and (b.ended_at is null or b.ended_at >= m.created_at))
           and not exists (select from room_pins p where p.room_id = m.room_id and p.mid = m.mid)
       ) select id, version, up_to, up_to = floor as is_last from seen`,
      [roomIds, DELETE_ROWS],
    );
    // Whatever has changed a room meanwhile may have been the end of what kept its messages: then it is looked at again, here or the next time.
    await database.query(
      `with locked as (select id from rooms where id = any($1::uuid[]) order by id for no key update)
       update rooms r set swept = s.up_to
       from locked join unnest($1::uuid[], $2::text[], $3::bigint[]) s(id, version, up_to) on s.id = locked.id
       where r.id = locked.id and r.xmin::text = s.version`,
      [rows.map(({ id }) => id), rows.map(({ version }) => version), rows.map(({ up_to }) => up_to)],
    );
    return rows.filter(({ is_last }) => !is_last).map(({ id }) => id);
  }
}
