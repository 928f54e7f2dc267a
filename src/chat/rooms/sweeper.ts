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
/** Entries that are still not stored after this belong to a process that has probably ended. */
const STUCK_MS = 5000;
const SWEEP_ROOMS = 20;
const RETAIN_MS = 600_000;
/** Rooms whose floor is raised in one statement. */
const FLOOR_ROOMS = 100;
/** Rooms per statement that deletes rows, and rows of each room. */
const DELETE_ROOMS = 20;
const DELETE_ROWS = 500;
/**
 * No younger message is deleted: its key may be sent again, and the message may not be stored yet.
 */
const MIN_AGE_MS = 3_600_000;

export interface Retention {
  /** `MESSAGE_HISTORY_LIMIT`: the newest entries of each room, which are kept at any age. */
  readonly entries: number;
  /** Younger entries are kept as well. At least one hour. */
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
  /** The rooms that are open in this process. `distrustEpoch` gives a room a new epoch. */
  readonly openRooms?: () => Iterable<{ readonly id: string; distrustEpoch(epoch: number): Promise<void> }>;
}

/**
 * Stores entries that an ended process had only appended to the log, and deletes old messages where
 * `retention` is set. Several processes may do both at the same time.
 */
export class RoomSweeper {
  readonly #options: SweeperOptions;
  readonly #cancels: (() => void)[] = [];
  #sweeping: Promise<void> | undefined;
  #retaining: Promise<void> | undefined;
  #isStopped = false;
  /** The PostgreSQL server whose rows were last compared with the log. */
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
    // A running sweep is not awaited: it may wait for an unavailable database. The archive is
    // stopped after this and then answers it.
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

  /**
   * Compares the rows of open rooms with the log after PostgreSQL has restarted, because it may
   * have an older state.
   */
  async #compareRows(): Promise<void> {
    const { history, openRooms = () => [] } = this.#options;
    const server = await history.server();
    if (server === this.#server) return;
    const isFirst = this.#server === undefined;
    // Rooms that are opened later are compared when they are opened.
    if (!isFirst)
      for (const room of [...openRooms()]) {
        const lost = await storeLostRows(room.id, this.#options);
        if (lost !== undefined) await room.distrustEpoch(lost);
      }
    this.#server = server;
  }

  /**
   * Raises the floors of rooms and deletes the messages below them. Messages that were published
   * during a recording are kept with it, and a pinned message while it is pinned. The statements
   * are small: archiving waits for the same row locks, and a service that had no retention before
   * may have millions of messages to delete.
   */
  async retain(): Promise<void> {
    const { retention, database, clock } = this.#options;
    if (!retention) return;
    const before = new Date(clock.wallMs() - Math.max(MIN_AGE_MS, retention.ageMs));
    // A room without old messages gives no row here. With a left join, `least` would ignore the
    // null and delete young messages.
    const { rows: due } = await database.query<{ id: string; up_to: number }>(
      `select r.id, least(newest."offset" - $1::bigint, old."offset") as up_to
       from rooms r
       cross join lateral (select m."offset" from messages m where m.room_id = r.id order by m."offset" desc limit 1) newest
       cross join lateral (select m."offset" from messages m
         where m.room_id = r.id and m.created_at < $2 and m.deleted_at is null order by m.created_at desc limit 1) old
       where r.epoch > 0 and least(newest."offset" - $1::bigint, old."offset") > r.floor`,
      // The newest entry is kept, so that the room's time never falls.
      [Math.max(1, retention.entries), before],
    );
    for (let at = 0; at < due.length && !this.#isStopped; at += FLOOR_ROOMS) {
      const some = due.slice(at, at + FLOOR_ROOMS);
      // Rows are locked in the order of their ids, as in archiving.
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

  /** Deletes the next rows of each of these rooms. Resolves to the rooms that have more. */
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
    // A change of the room in the meantime may have ended the reason for keeping messages. Such a
    // room is not marked as swept, so its rows are checked again.
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
