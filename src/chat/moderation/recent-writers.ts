import type { Database } from '../../backing/database/database.js';
import { BoundedMap } from '../../runtime/bounded-map.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { addressHash } from '../protocol/address.js';
import type { Author } from '../rooms/room.js';

export interface RecentWriter {
  readonly name: string;
  readonly role: string;
  readonly addressHash: string | undefined;
}

/** Writers are stored at this interval. Until then only their own process knows them. */
const FLUSH_MS = 200;
/** Writers that wait to be stored. A writer beyond this is noted with their next message. */
const MAX_WAITING = 2000;
/**
 * Writers whose stored row is known to be current, so that it is not written with each message. A
 * new one replaces the oldest.
 */
const MAX_KNOWN = 20_000;
/**
 * How long writers of a room and their address hashes are kept. A row is renewed when half of this
 * has passed.
 */
const WRITER_KEPT_MS = 24 * 3_600_000;
const CLEAN_MS = 600_000;

/**
 * The writers of the last day in each room, with a hash of their address. Bans by address and names
 * in the list of bans use them.
 */
export class RecentWriters {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #addressKey: Uint8Array;
  readonly #known = new BoundedMap<string, { is: string; untilMs: number }>(MAX_KNOWN);
  #waiting = new Map<string, { roomId: string; author: Author }>();
  #writing: Promise<void> | undefined;
  readonly #cancels: (() => void)[];

  constructor({ database, clock, log, addressKey }: { database: Database; clock: Clock; log: Log; addressKey: Uint8Array }) {
    this.#database = database;
    this.#clock = clock;
    this.#log = log;
    this.#addressKey = addressKey;
    this.#cancels = [clock.every(FLUSH_MS, () => void this.flush()), clock.every(CLEAN_MS, () => void this.#clean())];
  }

  /** Notes the author of a message. Called for every message; costs one lookup in a map. */
  noteWriter(roomId: string, author: Author): void {
    const key = `${roomId}\0${author.id}`;
    const is = `${author.name}\0${author.role}\0${author.address ?? ''}`;
    const known = this.#known.get(key);
    if (known?.is === is && known.untilMs > this.#clock.wallMs()) return;
    if (this.#waiting.size >= MAX_WAITING) return;
    this.#known.set(key, { is, untilMs: this.#clock.wallMs() + WRITER_KEPT_MS / 2 });
    this.#waiting.set(key, { roomId, author });
  }

  /**
   * Stores the waiting writers. Never rejects: a writer that could not be stored is noted with
   * their next message.
   */
  flush(): Promise<void> {
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined;
    });
    return this.#writing;
  }

  async findWriter(roomId: string, userId: string): Promise<RecentWriter | undefined> {
    await this.flush();
    const { rows } = await this.#database.query<{ user_name: string; user_role: string; address_hash: string | null }>(
      'select user_name, user_role, address_hash from room_writers where room_id = $1 and user_id = $2',
      [roomId, userId],
    );
    const row = rows[0];
    return row && { name: row.user_name, role: row.user_role, addressHash: row.address_hash ?? undefined };
  }

  /** A second call does no harm. */
  async stop(): Promise<void> {
    for (const cancel of this.#cancels.splice(0)) cancel();
    await this.flush();
  }

  async #write(): Promise<void> {
    if (this.#waiting.size === 0) return;
    const waiting = this.#waiting;
    this.#waiting = new Map();
    const all = [...waiting.values()];
    try {
      await this.#database.query(
        `insert into room_writers (room_id, user_id, user_name, user_role, address_hash, seen_at)
         select g.room_id, g.user_id, g.user_name, g.user_role, g.address_hash, $6
         from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[]) g(room_id, user_id, user_name, user_role, address_hash)
         where exists (select 1 from rooms where id = g.room_id)
         order by g.room_id, g.user_id
         on conflict (room_id, user_id) do update set user_name = excluded.user_name, user_role = excluded.user_role,
           address_hash = coalesce(excluded.address_hash, room_writers.address_hash), seen_at = excluded.seen_at`,
        [
          all.map(({ roomId }) => roomId),
          all.map(({ author }) => author.id),
          all.map(({ author }) => author.name),
          all.map(({ author }) => author.role),
          all.map(({ author }) => (author.address === undefined ? null : (addressHash(this.#addressKey, author.address) ?? null))),
          new Date(this.#clock.wallMs()),
        ],
      );
    } catch (error) {
      for (const key of waiting.keys()) this.#known.delete(key);
      this.#log.warn({ event: 'chat.authors_not_recorded', error: messageOf(error) }, 'could not record the authors of a room');
    }
  }

  async #clean(): Promise<void> {
    await this.#database
      .query('delete from room_writers where seen_at < $1', [new Date(this.#clock.wallMs() - WRITER_KEPT_MS)])
      .catch((error) =>
        this.#log.warn({ event: 'chat.old_authors_not_deleted', error: messageOf(error) }, 'could not delete old authors of rooms'),
      );
  }
}
