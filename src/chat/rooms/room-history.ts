import type { Database } from '../../backing/database/database.js';
import { KEPT, type LogEntry } from '../../backing/room-log/room-log.js';
import { Batched } from '../../runtime/batched.js';
import type { Clock } from '../../runtime/clock.js';
import { logKeyOf } from '../protocol/entry-frame.js';
import { ConcurrencyGate } from './concurrency-gate.js';
import type { RoomInfo } from './room.js';

/** Entries that are read at once; a room's log is begun with at most so many bytes of them. */
const READ_LIMIT = 500;
const SEED_BYTES = 1024 * 1024;

export interface StoredRoom {
  readonly info: RoomInfo;
  readonly epoch: number;
  readonly floor: number;
  /** Since the epoch was raised; Infinity: it never was. */
  readonly raisedAgoMs: number;
  /** There was no epoch before it. */
  readonly isFirstEpoch: boolean;
}

export interface StoredMessage {
  readonly offset: number;
  readonly epoch: number;
  readonly type: string;
  readonly userId: string | undefined;
}

/** An entry as an export has it. */
export interface ExportedEntry {
  readonly offset: number;
  readonly type: string;
  readonly at: string;
  readonly [field: string]: unknown;
}

/** What PostgreSQL knows of rooms. Everything rejects with `unavailable` while it is away. */
export class RoomHistory {
  /** For reads of old entries, which somebody may ask for as often as he likes: what is being said never waits behind them. */
  readonly reads = new ConcurrencyGate();
  readonly #database: Database;
  readonly #finds: Batched<StoredRoom>;
  readonly #states: Batched<StoredRoom>;

  constructor(database: Database, clock: Clock) {
    this.#database = database;
    this.#finds = new Batched(clock, (idsOrSlugs) => this.#find(idsOrSlugs));
    this.#states = new Batched(clock, (roomIds) => this.#state(roomIds));
  }

  /** The room of a channel, by its own id or by the channel's slug. */
  async findRoom(idOrSlug: string): Promise<StoredRoom | undefined> {
    // What PostgreSQL would refuse must not spoil the question for others.
    return NAME.test(idOrSlug) ? this.#finds.load(idOrSlug) : undefined;
  }

  async #find(idsOrSlugs: readonly string[]): Promise<Map<string, StoredRoom>> {
    // Two questions in one: with `or` over two tables PostgreSQL would look at every room there is.
    const { rows } = await this.#database.query<StateRow>(
      `${SELECT_ROOM} where c.id is not null and r.id = any($1::uuid[]) union all ${SELECT_ROOM} where c.slug = any($2::text[])`,
      [idsOrSlugs.filter((id) => UUID.test(id)), idsOrSlugs],
    );
    const found = new Map<string, StoredRoom>();
    for (const row of rows) if (row.slug !== null) found.set(row.slug, stateOf(row));
    // A slug that looks like an id comes second.
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
   * Undefined: the epoch is not the expected one. The new epoch is a number that no database has given before (the time is in it) and is above `above`:
   * the highest epoch that was seen anywhere, which this database has forgotten if it was restored from a backup.
   */
  async raiseEpoch(roomId: string, expected: number, above = 0): Promise<{ epoch: number; head: number; keep: number } | undefined> {
    const { rows } = await this.#database.query<{ epoch: number; head: number; keep: number }>(
      'select * from chat_raise_epoch($1::uuid, $2::bigint, $3::bigint)',
      [roomId, expected, above],
    );
    return rows[0];
  }

  /** Up to where a member who comes from the epoch `since` may keep what he has; how long ago `epoch` was opened, and whether it is the room's first. */
  async keptSince(roomId: string, since: number, epoch: number): Promise<{ keep: number; ageMs: number; isFirst: boolean }> {
    const { rows } = await this.#database.query<{ keep: number | null; is_known: boolean; age_ms: number | null; is_first: boolean }>(
      `select min(keep) filter (where epoch > $2) as keep, coalesce(bool_or(epoch = $2), false) as is_known,
         (extract(epoch from now() - max(opened_at) filter (where epoch = $3)) * 1000)::float8 as age_ms,
         not exists (select from room_epochs e where e.room_id = $1 and e.epoch < $3) as is_first
       from room_epochs where room_id = $1 and epoch >= least($2, $3) and epoch <= $3`,
      [roomId, since, epoch],
    );
    const { keep, is_known, age_ms, is_first } = rows[0]!;
    // An epoch that is not known is very old, or of a time that this database has never seen: it was restored from a backup.
    return { keep: is_known ? (keep ?? Number.MAX_SAFE_INTEGER) : 0, ageMs: age_ms ?? 0, isFirst: is_first };
  }

  /** Ascending, from `from` to `to`, both inclusive, the first `limit`. What was let go by age is not there. */
  async readRange(roomId: string, from: number, to: number, limit = READ_LIMIT): Promise<LogEntry[]> {
    const { rows } = await this.#database.query<MessageRow>(
      `select "offset", type, mid, key, payload, created_at from messages where room_id = $1 and "offset" between $2 and $3 order by "offset" limit $4`,
      [roomId, from, to, Math.min(limit, READ_LIMIT)],
    );
    return rows.map(entryOf);
  }

  /** The newest up to `to`, inclusive, ascending, also where there are holes between them. */
  async readKept(roomId: string, to: number, limit: number): Promise<LogEntry[]> {
    const { rows } = await this.#database.query<MessageRow>(
      `select "offset", type, mid, key, payload, created_at from messages where room_id = $1 and "offset" <= $2 order by "offset" desc limit $3`,
      [roomId, to, Math.min(limit, READ_LIMIT)],
    );
    return rows.reverse().map(entryOf);
  }

  /** The newest up to `head`, ascending, with what a room's log is begun. */
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

  /** Offsets of this span, both inclusive and above the floor, that have no row. */
  async missingOffsets(roomId: string, from: number, to: number): Promise<number[]> {
    const { rows } = await this.#database.query<{ offset: number }>(
      `select o as "offset" from rooms r, generate_series(greatest($2::bigint, r.floor + 1), $3::bigint) o
       where r.id = $1 and not exists (select from messages m where m.room_id = r.id and m."offset" = o) order by o`,
      [roomId, from, to],
    );
    return rows.map(({ offset }) => offset);
  }

  /** Which start of which server answers: another one after a restart, and after a replica took over. */
  async server(): Promise<string> {
    const { rows } = await this.#database.query<{ server: string }>(
      "select concat_ws(' ', pg_postmaster_start_time(), inet_server_addr(), inet_server_port()) as server",
    );
    return rows[0]!.server;
  }

  /** Those of the offsets that have a row of this epoch: in another one the same offset is another entry's place. */
  async storedOffsets(roomId: string, epoch: number, offsets: readonly number[]): Promise<Set<number>> {
    const { rows } = await this.#database.query<{ offset: number }>(
      'select "offset" from messages where room_id = $1 and epoch = $2 and "offset" = any($3::bigint[])',
      [roomId, epoch, offsets],
    );
    return new Set(rows.map((row) => row.offset));
  }

  /** Rooms in which this account has said something that is there still. */
  async roomsOf(userId: string): Promise<string[]> {
    const { rows } = await this.#database.query<{ room_id: string }>('select distinct room_id from messages where user_id = $1', [userId]);
    return rows.map((row) => row.room_id);
  }

  /** What was said in a span of time (ms since 1970, the end exclusive), ascending, from the first after `after`: for the replay beside a recording. */
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

  /** Everything that is there, in order, read as it is asked for. What others do not see is marked `shadow`. */
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

/** Of an id, or of a slug. */
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
