import type { Database } from '../../backing/database/database.js';
import { Batched } from '../../runtime/batched.js';
import type { Clock } from '../../runtime/clock.js';
import { type RoomSettings, type RoomTerms, storedSettings } from './settings.js';

/** A pinned message as clients show it above the others. */
export interface Pinned {
  readonly mid: string;
  readonly offset: number;
  readonly user: { readonly id: string; readonly name: string; readonly role: string };
  readonly body: Readonly<Record<string, unknown>>;
  /** ms since 1970. */
  readonly at: number;
}

/** The rules that apply to a whole room. */
export interface StoredRules {
  readonly settings: RoomSettings;
  readonly terms: RoomTerms;
  readonly pinned: Pinned | undefined;
  /** When the ban of each address ends (ms since 1970), by the address' hash. */
  readonly addresses: Map<string, number>;
}

/** A sanction in force, or the number of a user's unseen warnings. */
export interface StoredSanction {
  readonly kind: 'ban' | 'timeout' | 'warning';
  readonly userId: string;
  readonly isShadow: boolean;
  /** Infinity: the ban has no end. */
  readonly untilMs: number;
  readonly unseen: number;
}

/**
 * Reads the rules of rooms from PostgreSQL. Rooms that are requested at the same time share a
 * statement.
 */
export class RulesReader {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #rooms: Batched<RoomRulesRow>;
  readonly #sanctions: Batched<readonly SanctionRow[]>;

  constructor({ database, clock }: { database: Database; clock: Clock }) {
    this.#database = database;
    this.#clock = clock;
    this.#rooms = new Batched(clock, (roomIds) => this.#roomRows(roomIds));
    this.#sanctions = new Batched<readonly SanctionRow[]>(clock, (roomIds) => this.#allSanctionRows(roomIds));
  }

  async readRoom(roomId: string): Promise<StoredRules> {
    const row = await this.#rooms.load(roomId);
    return {
      settings: storedSettings(row?.settings),
      terms: { blocked: row?.blocked ?? [], allowed: row?.allowed ?? [] },
      pinned: row && pinnedOf(row),
      addresses: new Map(row?.addresses?.map(([hash, until]) => [hash, Date.parse(until)])),
    };
  }

  /** The sanctions of these users; `userIds` undefined: of all users. */
  async readSanctions(roomId: string, userIds: readonly string[] | undefined): Promise<StoredSanction[]> {
    const rows = userIds ? await this.#sanctionRows([roomId], userIds) : ((await this.#sanctions.load(roomId)) ?? []);
    return rows.map(({ kind, user_id, shadow, until, unseen }) => ({
      kind,
      userId: user_id,
      isShadow: shadow,
      untilMs: until?.getTime() ?? Number.POSITIVE_INFINITY,
      unseen: unseen ?? 0,
    }));
  }

  async #roomRows(roomIds: readonly string[]): Promise<Map<string, RoomRulesRow>> {
    const { rows } = await this.#database.query<RoomRulesRow>(
      `select r.id, r.settings, t.blocked, t.allowed, m.mid, m.payload, m."offset", m.created_at,
           (select json_agg(json_build_array(address_hash, until)) from room_address_bans where room_id = r.id and until > $2) as addresses
         from rooms r
         left join room_terms t on t.room_id = r.id
         left join room_pins p on p.room_id = r.id
         left join messages m on m.room_id = p.room_id and m.mid = p.mid and m.type = 'msg'
       where r.id = any($1::uuid[])`,
      [roomIds, new Date(this.#clock.wallMs())],
    );
    return new Map(rows.map((row) => [row.id, row]));
  }

  /** `userIds` null: the sanctions of all users. */
  async #sanctionRows(roomIds: readonly string[], userIds: readonly string[] | null): Promise<SanctionRow[]> {
    const { rows } = await this.#database.query<SanctionRow>(
      `select 'ban' as kind, room_id, user_id, shadow, until, null::int as unseen from room_bans
         where room_id = any($1::uuid[]) and lifted_at is null and (until is null or until > $2) and ($3::text[] is null or user_id = any($3))
       union all select 'timeout', room_id, user_id, false, until, null from room_timeouts
         where room_id = any($1::uuid[]) and until > $2 and ($3::text[] is null or user_id = any($3))
       union all select 'warning', room_id, user_id, false, null, count(*)::int from room_warnings
         where room_id = any($1::uuid[]) and seen_at is null and ($3::text[] is null or user_id = any($3)) group by room_id, user_id`,
      [roomIds, new Date(this.#clock.wallMs()), userIds],
    );
    return rows;
  }

  async #allSanctionRows(roomIds: readonly string[]): Promise<Map<string, SanctionRow[]>> {
    const found = new Map<string, SanctionRow[]>();
    for (const row of await this.#sanctionRows(roomIds, null)) {
      const rows = found.get(row.room_id);
      if (rows) rows.push(row);
      else found.set(row.room_id, [row]);
    }
    return found;
  }
}

interface SanctionRow {
  room_id: string;
  kind: 'ban' | 'timeout' | 'warning';
  user_id: string;
  shadow: boolean;
  until: Date | null;
  unseen: number | null;
}

interface RoomRulesRow {
  id: string;
  settings: unknown;
  blocked: string[] | null;
  allowed: string[] | null;
  addresses: [string, string][] | null;
  mid: string | null;
  payload: string | null;
  offset: number | null;
  created_at: Date | null;
}

function pinnedOf({ mid, payload, offset, created_at }: RoomRulesRow): Pinned | undefined {
  if (mid === null || payload === null || offset === null || created_at === null) return undefined;
  const { user, body } = JSON.parse(payload) as Pick<Pinned, 'user' | 'body'>;
  return { mid, offset, user, body, at: created_at.getTime() };
}
