import type { Database, Queryable } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import type { RoomRole } from '../protocol/protocol.js';
import type { RoomInfo } from '../rooms/room.js';

/** The person who moderates a room, or the service itself. */
export interface Moderator {
  /** The user's id, as messages carry it. */
  readonly id: string;
  readonly name: string;
  /**
   * The role in this room. Without a second factor, a moderator or administrator of the service is
   * a viewer.
   */
  readonly role: RoomRole;
  /** True: with a second factor the role would be higher. */
  readonly unproven?: boolean;
  /** The name in the audit log: `account:{id}`, `api-key:{id}` and so on. */
  readonly actor: string;
  readonly address?: string | undefined;
  readonly requestId?: string | undefined;
}

/** Names and roles of users, whether they are connected or not. */
export interface AccountDirectory {
  /**
   * Resolves to undefined when there is no account with this id. `role`: the role in the channel's
   * room, with or without a second factor.
   */
  find(userId: string, channelId: string | undefined): Promise<{ name: string; role: RoomRole } | undefined>;
  /** Names by user id. Unknown ids are left out. */
  names(userIds: readonly string[]): Promise<ReadonlyMap<string, string>>;
}

/** The part of the audit log that moderation writes to. */
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
  /** The user's name now; undefined: it is no longer known. */
  readonly userName: string | undefined;
  readonly details: Readonly<Record<string, unknown>>;
}

export interface ModerationActsOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly people: Pick<AccountDirectory, 'names'>;
  readonly audit: ModerationAudit;
}

/**
 * The moderation acts of rooms: a row for each decision, with its moderator and the user it is
 * about.
 */
export class ModerationActs {
  readonly #options: ModerationActsOptions;

  constructor(options: ModerationActsOptions) {
    this.#options = options;
  }

  /** The acts in a room, newest first. */
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

  /** Names by user id, of accounts and of recent writers in the room. */
  async names(roomId: string, userIds: readonly string[]): Promise<ReadonlyMap<string, string>> {
    if (userIds.length === 0) return new Map();
    const { rows } = await this.#options.database.query<{ user_id: string; user_name: string }>(
      'select user_id, user_name from room_writers where room_id = $1 and user_id = any($2)',
      [roomId, userIds],
    );
    return new Map([...rows.map((row) => [row.user_id, row.user_name] as const), ...(await this.#options.people.names(userIds))]);
  }

  /** Records the act and its line in the audit log. Runs in the transaction of the decision. */
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
