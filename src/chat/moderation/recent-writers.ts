import type { Database } from '../../backing/database/database.js';
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

/** So long another process may not know who writes here. */
const FLUSH_MS = 200;
/** Written at a time, and kept until then; those beyond are noted with their next message. */
const MAX_WAITING = 2000;
/** Whose row is as it should be, so that it is not written with each of their messages. The oldest goes first. */
const MAX_KNOWN = 20_000;
/** For so long it is kept who wrote in a room and from where. Rows are renewed when half of it is over. */
const WRITER_KEPT_MS = 24 * 3_600_000;
const CLEAN_MS = 600_000;

/** Who wrote in a room within the last day, and a hash of where from: what a ban by address, and the name in a list of bans, come from. */
export class RecentWriters {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #addressKey: Uint8Array;
  readonly #known = new Map<string, { is: string; untilMs: number }>();
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

  /** With each message; costs a look-up. */
  noteWriter(roomId: string, author: Author): void {
    const key = `${roomId}\0${author.id}`;
    const is = `${author.name}\0${author.role}\0${author.address ?? ''}`;
    const known = this.#known.get(key);
    if (known?.is === is && known.untilMs > this.#clock.wallMs()) return;
    if (this.#waiting.size >= MAX_WAITING) return;
    this.#known.delete(key);
    if (this.#known.size >= MAX_KNOWN) this.#known.delete(this.#known.keys().next().value!);
    this.#known.set(key, { is, untilMs: this.#clock.wallMs() + WRITER_KEPT_MS / 2 });
    this.#waiting.set(key, { roomId, author });
  }

  /** Writes what waits. Never rejects: what could not be written is noted with the next message. */
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

  /** Twice is harmless. */
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
