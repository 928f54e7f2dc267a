import type { Database, Queryable } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import type { RoomRole } from '../protocol/protocol.js';
import type { RoomInfo } from '../rooms/room.js';

/** Who moderates. */
export interface Moderator {
  /** As messages have it. */
  readonly id: string;
  readonly name: string;
  /** In this room. Of a moderator or administrator of the service only what is proven: without the second factor he is a viewer. */
  readonly role: RoomRole;
  /** He would be more with a second factor. */
  readonly unproven?: boolean;
  /** For the audit log: `account:{id}`, `api-key:{id}`, … */
  readonly actor: string;
  readonly address?: string | undefined;
  readonly requestId?: string | undefined;
}

/** Who people are. */
export interface AccountDirectory {
  /** Undefined: nobody is known by this id. `role` is that in the room of this channel, proven or not. */
  find(userId: string, channelId: string | undefined): Promise<{ name: string; role: RoomRole } | undefined>;
  /** By id; whoever is not known is not in it. */
  names(userIds: readonly string[]): Promise<ReadonlyMap<string, string>>;
}

/** Where everything that is decided is written down. */
export interface ModerationAudit {
  record(
    entry: {
      principal: { id: string; name: string };
      action: string;
      address?: string | undefined;
      requestId?: string | undefined;
      channel?: string | undefined;
      target?: string | undefined;
      details?: Readonly<Record<string, unknown>> | undefined;
    },
    connection: Queryable,
  ): Promise<void>;
}

export interface ModerationAct {
  readonly id: number;
  readonly atMs: number;
  readonly action: string;
  readonly byId: string;
  readonly byName: string;
  readonly userId: string | undefined;
  /** As he is called now; undefined: nobody knows any more. */
  readonly userName: string | undefined;
  readonly details: Readonly<Record<string, unknown>>;
}

export interface ModerationActsOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly people: Pick<AccountDirectory, 'names'>;
  readonly audit: ModerationAudit;
}

/** Who did what in rooms, and about whom. */
export class ModerationActs {
  readonly #options: ModerationActsOptions;

  constructor(options: ModerationActsOptions) {
    this.#options = options;
  }

  /** Who did what here, newest first. */
  async listActs(roomId: string, userId: string | undefined, before: number | undefined, limit: number): Promise<ModerationAct[]> {
    const { rows } = await this.#options.database.query<ActRow>(
      `select * from room_acts where room_id = $1 and ($2::text is null or user_id = $2) and ($3::bigint is null or id < $3)
       order by id desc limit $4`,
      [roomId, userId ?? null, before ?? null, limit],
    );
    const namesOf = await this.names(roomId, [...new Set(rows.flatMap(({ user_id }) => user_id ?? []))]);
    return rows.map((row) => ({
      id: row.id,
      atMs: row.at.getTime(),
      action: row.action,
      byId: row.by_id,
      byName: row.by_name,
      userId: row.user_id ?? undefined,
      userName: row.user_id === null ? undefined : namesOf.get(row.user_id),
      details: row.details,
    }));
  }

  /** Of accounts, and of others who have written here of late. */
  async names(roomId: string, userIds: readonly string[]): Promise<ReadonlyMap<string, string>> {
    if (userIds.length === 0) return new Map();
    const { rows } = await this.#options.database.query<{ user_id: string; user_name: string }>(
      'select user_id, user_name from room_writers where room_id = $1 and user_id = any($2)',
      [roomId, userIds],
    );
    return new Map([...rows.map((row) => [row.user_id, row.user_name] as const), ...(await this.#options.people.names(userIds))]);
  }

  /** With the audit log, in the transaction of what was done. */
  async recordAct(
    connection: Queryable,
    room: RoomInfo,
    by: Moderator,
    action: string,
    userId: string | undefined,
    details: Readonly<Record<string, unknown>>,
  ): Promise<void> {
    const { clock, audit } = this.#options;
    await connection.query(
      'insert into room_acts (room_id, at, action, by_id, by_name, user_id, details) values ($1, $2, $3, $4, $5, $6, $7)',
      [room.id, new Date(clock.wallMs()), action, by.id, by.name, userId ?? null, JSON.stringify(details)],
    );
    await audit.record(
      {
        principal: { id: by.actor, name: by.name },
        action: `chat.${action}`,
        address: by.address,
        requestId: by.requestId,
        channel: room.slug,
        target: userId === undefined ? `room:${room.id}` : `user:${userId}`,
        details,
      },
      connection,
    );
  }
}

interface ActRow {
  id: number;
  at: Date;
  action: string;
  by_id: string;
  by_name: string;
  user_id: string | null;
  details: Record<string, unknown>;
}
