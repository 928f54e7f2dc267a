import type { Database, Queryable } from '../../backing/database/database.js';
import { VezaError } from '../../runtime/errors.js';

/**
 * The contents of a `pin` entry. It does not repeat the message's text, which would outlive the
 * message's deletion.
 */
export interface PinState {
  readonly mid: string | null;
  /** The offset of the message, so that a client without the message can fetch it. */
  readonly messageOffset?: number;
}

/** The pinned message of each room: its rows. */
export class Pins {
  readonly #database: Database;

  constructor({ database }: { database: Database }) {
    this.#database = database;
  }

  /**
   * Replaces the pin. Locks the room first and then the message, in the same order as every other
   * statement. The message cannot be erased before this is committed, and a later erasure finds the
   * pin. Rejects with `not_found`.
   */
  async pin(connection: Queryable, roomId: string, mid: string, byId: string): Promise<void> {
    await connection.query('select 1 from rooms where id = $1 for no key update', [roomId]);
    const { rowCount } = await connection.query("select 1 from messages where room_id = $1 and mid = $2 and type = 'msg' for share", [
      roomId,
      mid,
    ]);
    if (rowCount === 0) throw new VezaError('not_found', 'There is no such message.');
    await connection.query(
      `insert into room_pins (room_id, mid, by_id) values ($1, $2, $3)
       on conflict (room_id) do update set mid = excluded.mid, by_id = excluded.by_id`,
      [roomId, mid, byId],
    );
  }

  async unpin(connection: Queryable, roomId: string): Promise<void> {
    await connection.query('select 1 from rooms where id = $1 for no key update', [roomId]);
    await connection.query('delete from room_pins where room_id = $1', [roomId]);
  }

  /** Removes the pin if its message was erased. Resolves to whether it was removed. */
  async unpinErased(roomId: string): Promise<boolean> {
    const { rowCount: pinned } = await this.#database.query('select 1 from room_pins where room_id = $1', [roomId]);
    if (pinned === 0) return false;
    return this.#database.transaction(async (connection) => {
      await connection.query('select 1 from rooms where id = $1 for no key update', [roomId]);
      const { rowCount } = await connection.query(
        `delete from room_pins p where p.room_id = $1
           and not exists (select from messages m where m.room_id = p.room_id and m.mid = p.mid and m.type = 'msg')`,
        [roomId],
      );
      return rowCount > 0;
    });
  }

  async currentPin(roomId: string): Promise<PinState> {
    const { rows } = await this.#database.query<{ mid: string; offset: number }>(
      `select p.mid, m."offset" from room_pins p join messages m on m.room_id = p.room_id and m.mid = p.mid and m.type = 'msg' where p.room_id = $1`,
      [roomId],
    );
    return rows[0] ? { mid: rows[0].mid, messageOffset: rows[0].offset } : { mid: null };
  }
}
