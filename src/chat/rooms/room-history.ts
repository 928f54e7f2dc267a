import type { Database } from '../../backing/database/database.js';
import { KEPT, type LogEntry } from '../../backing/room-log/room-log.js';
import { Batched } from '../../runtime/batched.js';
import type { Clock } from '../../runtime/clock.js';
import { logKeyOf } from '../protocol/entry-frame.js';
import { ConcurrencyGate } from './concurrency-gate.js';
import type { RoomInfo } from './room.js';

/** Entries per read. `SEED_BYTES`: bytes of entries that a room's log is opened with. */
const READ_LIMIT = 500;
const SEED_BYTES = 1024 * 1024;

export interface StoredRoom {
  readonly info: RoomInfo;
  readonly epoch: number;
  readonly floor: number;
  /** The time since the epoch was raised; Infinity: it never was. */
  readonly raisedAgoMs: number;
  /** True: the room had no epoch before. */
  readonly isFirstEpoch: boolean;
}

export interface StoredMessage {
  readonly offset: number;
  readonly epoch: number;
  readonly type: string;
  readonly userId: string | undefined;
}

/** An entry as an export contains it. */
export interface ExportedEntry {
  readonly offset: number;
  readonly type: string;
  readonly at: string;
  readonly [field: string]: unknown;
}

/**
 * The rows of rooms in PostgreSQL. Every method rejects with `unavailable` while PostgreSQL is
 * unavailable.
 */
export class RoomHistory {
  /**
   * Limits reads of old entries, which clients may request at any rate, so that new messages never
   * wait behind them.
   */
  readonly reads = new ConcurrencyGate();
  readonly #database: Database;
  readonly #finds: Batched<StoredRoom>;
  readonly #states: Batched<StoredRoom>;

  constructor(database: Database, clock: Clock) {
    this.#database = database;
    this.#finds = new Batched(clock, (idsOrSlugs) => this.#find(idsOrSlugs));
    this.#states = new Batched(clock, (roomIds) => this.#state(roomIds));
  }

  /** The room of a channel, by the room's id or the channel's slug. */
  async findRoom(idOrSlug: string): Promise<StoredRoom | undefined> {
    // A name that PostgreSQL would refuse must not make the shared query fail for other callers.
    return NAME.test(idOrSlug) ? this.#finds.load(idOrSlug) : undefined;
  }

  async #find(idsOrSlugs: readonly string[]): Promise<Map<string, StoredRoom>> {
    // Two queries in one. With `or` over two tables PostgreSQL would scan every room.
    const { rows } = await this.#database.query<StateRow>(
      `${SELECT_ROOM} where c.id is not null and r.id = any($1::uuid[]) union all ${SELECT_ROOM} where c.slug = any($2::text[])`,
      [idsOrSlugs.filter((id) => UUID.test(id)), idsOrSlugs],
    );
    const found = new Map<string, StoredRoom>();
    for (const row of rows) if (row.slug !== null) found.set(row.slug, stateOf(row));
    // Rows found by id come last and win: a slug may look like an id.
    for (const row of rows) found.set(row.id, stateOf(row));
    return found;
  }

  async readRoom(roomId: string): Promise<StoredRoom | undefined> {
    return UUID.test(roomId) ? this.#states.load(roomId) : undefined;
  }

  async #state(roomIds: readonly string[]): Promise<Map<string, StoredRoom>> {
    const { rows } = await this.#database.query<StateRow>(`${SELECT_ROOM} where r.id = any($1::uuid[])`, [roomIds]);
    return new Map(rows.map((row) => [row.id, stateOf(row)]));
  }

  /**
   * Raises the epoch. Resolves to undefined when the epoch is not the expected one. The new epoch
   * contains the time, so no database has used it before. It is above `above`, the highest epoch
   * that was seen anywhere: a database that was restored from a backup does not know that one.
   */
  async raiseEpoch(roomId: string, expected: number, above = 0): Promise<{ epoch: number; head: number; keep: number } | undefined> {
    const { rows } = await this.#database.query<{ epoch: number; head: number; keep: number }>(
      'select * from chat_raise_epoch($1::uuid, $2::bigint, $3::bigint)',
      [roomId, expected, above],
    );
    return rows[0];
  }

  /**
   * `keep`: the offset up to which a member who knows the epoch `since` keeps its entries. `ageMs`:
   * how long ago `epoch` was opened. `isFirst`: it is the room's first epoch.
   */
  async keptSince(roomId: string, since: number, epoch: number): Promise<{ keep: number; ageMs: number; isFirst: boolean }> {
    const { rows } = await this.#database.query<{ keep: number | null; is_known: boolean; age_ms: number | null; is_first: boolean }>(
      `select min(keep) filter (where epoch > $2) as keep, coalesce(bool_or(epoch = $2), false) as is_known,
         (extract(epoch from now() - max(opened_at) filter (where epoch = $3)) * 1000)::float8 as age_ms,
         not exists (select from room_epochs e where e.room_id = $1 and e.epoch < $3) as is_first
       from room_epochs where room_id = $1 and epoch >= least($2, $3) and epoch <= $3`,
      [roomId, since, epoch],
    );
    const { keep, is_known, age_ms, is_first } = rows[0]!;
    // An unknown epoch is very old, or this database was restored from a backup and never had it.
    return { keep: is_known ? (keep ?? Number.MAX_SAFE_INTEGER) : 0, ageMs: age_ms ?? 0, isFirst: is_first };
  }

  /**
   * The first `limit` entries from `from` to `to`, both inclusive, ascending. Entries that were
   * deleted by age are missing.
   */
  async readRange(roomId: string, from: number, to: number, limit = READ_LIMIT): Promise<LogEntry[]> {
    const { rows } = await this.#database.query<MessageRow>(
      `select "offset", type, mid, key, payload, created_at from messages where room_id = $1 and "offset" between $2 and $3 order by "offset" limit $4`,
      [roomId, from, to, Math.min(limit, READ_LIMIT)],
    );
    return rows.map(entryOf);
  }

  /** The newest entries up to `to`, inclusive, ascending. There may be holes between them. */
  async readKept(roomId: string, to: number, limit: number): Promise<LogEntry[]> {
    const { rows } = await this.#database.query<MessageRow>(
      `select "offset", type, mid, key, payload, created_at from messages where room_id = $1 and "offset" <= $2 order by "offset" desc limit $3`,
      [roomId, to, Math.min(limit, READ_LIMIT)],
    );
    return rows.reverse().map(entryOf);
  }

  /** The newest entries up to `head`, ascending: those that a room's log is opened with. */
  async readTail(roomId: string, head: number): Promise<LogEntry[]> {
    const { rows } = await this.#database.query<MessageRow>(
      `select * from (
         select "offset", type, mid, key, payload, created_at, sum(octet_length(payload)) over (order by "offset" desc) as bytes from (
           select * from messages where room_id = $1 and "offset" <= $2 order by "offset" desc limit $3) newest
       ) x where bytes <= $4 order by "offset"`,
      [roomId, head, KEPT, SEED_BYTES],
    );
    return rows.map(entryOf);
  }

  async findMessages(roomId: string, mids: readonly string[]): Promise<Map<string, StoredMessage>> {
    const { rows } = await this.#database.query<{ mid: string; offset: number; epoch: number; type: string; user_id: string | null }>(
      'select mid, "offset", epoch, type, user_id from messages where room_id = $1 and mid = any($2::text[])',
      [roomId, mids],
    );
    return new Map(rows.map(({ mid, offset, epoch, type, user_id }) => [mid, { offset, epoch, type, userId: user_id ?? undefined }]));
  }

  /** Offsets from `from` to `to`, both inclusive and above the floor, that have no row. */
  async missingOffsets(roomId: string, from: number, to: number): Promise<number[]> {
    const { rows } = await this.#database.query<{ offset: number }>(
      `select o as "offset" from rooms r, generate_series(greatest($2::bigint, r.floor + 1), $3::bigint) o
       where r.id = $1 and not exists (select from messages m where m.room_id = r.id and m."offset" = o) order by o`,
      [roomId, from, to],
    );
    return rows.map(({ offset }) => offset);
  }

  /**
   * Identifies the running PostgreSQL server. It changes with a restart and when a replica takes
   * over.
   */
  async server(): Promise<string> {
    const { rows } = await this.#database.query<{ server: string }>(
      "select concat_ws(' ', pg_postmaster_start_time(), inet_server_addr(), inet_server_port()) as server",
    );
    return rows[0]!.server;
  }

  /**
   * The offsets among these that have a row of this epoch. In another epoch the same offset belongs
   * to another entry.
   */
  async storedOffsets(roomId: string, epoch: number, offsets: readonly number[]): Promise<Set<number>> {
    const { rows } = await this.#database.query<{ offset: number }>(
      'select "offset" from messages where room_id = $1 and epoch = $2 and "offset" = any($3::bigint[])',
      [roomId, epoch, offsets],
    );
    return new Set(rows.map((row) => row.offset));
  }

  /** Rooms with a message of this account. */
  async roomsOf(userId: string): Promise<string[]> {
    const { rows } = await this.#database.query<{ room_id: string }>('select distinct room_id from messages where user_id = $1', [userId]);
    return rows.map((row) => row.room_id);
  }

  /**
   * Messages in a span of time (ms since 1970, `toMs` exclusive) with an offset above `after`,
   * ascending. Used for the replay beside a recording.
   */
  async readBetween(roomId: string, fromMs: number, toMs: number, after: number, limit: number): Promise<LogEntry[]> {
    const { rows } = await this.reads.run(() =>
      this.#database.query<MessageRow>(
        `select "offset", type, mid, key, payload, created_at from messages
         where room_id = $1 and created_at >= $2 and created_at < $3 and "offset" > $4 and deleted_at is null order by "offset" limit $5`,
        [roomId, new Date(fromMs), new Date(toMs), after, Math.min(limit, READ_LIMIT)],
      ),
    );
    return rows.map(entryOf);
  }

  /**
   * Yields every entry of the room in order, read page by page. Messages that only their author
   * sees are marked `shadow`.
   */
  async *export(roomId: string): AsyncGenerator<ExportedEntry> {
    for (let after = 0; ; ) {
      const entries = await this.reads.run(() => this.readRange(roomId, after + 1, Number.MAX_SAFE_INTEGER));
      for (const entry of entries) {
        yield {
          ...(JSON.parse(entry.payload) as object),
          offset: entry.offset,
          type: entry.type,
          at: new Date(entry.atMs).toISOString(),
        };
      }
      if (entries.length < READ_LIMIT) return;
      after = entries.at(-1)!.offset;
    }
  }
}

const SELECT_ROOM = `select r.id, r.channel_id, c.slug, c.visibility, r.settings, r.epoch, r.floor,
  (extract(epoch from now() - (select max(opened_at) from room_epochs e where e.room_id = r.id and e.epoch = r.epoch)) * 1000)::float8 as raised_ago_ms,
  not exists (select from room_epochs e where e.room_id = r.id and e.epoch < r.epoch) as is_first_epoch
  from rooms r left join channels c on c.id = r.channel_id`;

/** The form of an id or a slug. */
const NAME = /^[a-z0-9-]{1,64}$/;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

interface StoredRoomRow {
  id: string;
  channel_id: string | null;
  slug: string | null;
  visibility: 'public' | 'unlisted' | 'private' | null;
  settings: Record<string, unknown>;
}

const infoOf = (row: StoredRoomRow): RoomInfo => ({
  id: row.id,
  slug: row.slug ?? undefined,
  channelId: row.channel_id ?? undefined,
  visibility: row.visibility ?? undefined,
  settings: row.settings,
});

interface StateRow extends StoredRoomRow {
  epoch: number;
  floor: number;
  raised_ago_ms: number | null;
  is_first_epoch: boolean;
}

const stateOf = (row: StateRow): StoredRoom => ({
  info: infoOf(row),
  epoch: row.epoch,
  floor: row.floor,
  raisedAgoMs: row.raised_ago_ms ?? Number.POSITIVE_INFINITY,
  isFirstEpoch: row.is_first_epoch,
});

interface MessageRow {
  offset: number;
  type: string;
  mid: string | null;
  key: string | null;
  payload: string;
  created_at: Date;
}

const entryOf = ({ offset, type, mid, key, payload, created_at }: MessageRow): LogEntry => ({
  offset,
  atMs: created_at.getTime(),
  type,
  payload,
  key: mid === null || type === 'gone' ? undefined : logKeyOf(mid, key ?? ''),
});
