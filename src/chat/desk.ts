import type { Database, Queryable } from '../backing/database.js';
import type { Clock } from '../runtime/clock.js';
import { messageOf, VezaError } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import { type Appeal, Appeals } from './appeals.js';
import { ControlRoom } from './control.js';
import { midOf } from './frame.js';
import { HELD_KEPT_MS, HeldMessages, type HeldRecord, type HeldRow, recordOf } from './held.js';
import type { ModAction } from './mod-actions.js';
import { checkTerms } from './moderation/terms.js';
import type { Author, ChatRole, HeldMessage, Room, RoomInfo } from './room.js';
import { RoomRules } from './rules.js';
import { type Ban, Sanctions, type Timeout, type Warning } from './sanctions.js';
import { changedSettings, type RoomSettings, rankOf, storedSettings } from './settings.js';
import { Writers } from './writers.js';

/** Who moderates. */
export interface Moderator {
  /** As messages have it. */
  readonly id: string;
  readonly name: string;
  /** In this room. Of a moderator or administrator of the service only what is proven: without the second factor he is a viewer. */
  readonly role: ChatRole;
  /** He would be more with a second factor. */
  readonly unproven?: boolean;
  /** For the audit log: `account:{id}`, `api-key:{id}`, … */
  readonly actor: string;
  readonly address?: string | undefined;
  readonly requestId?: string | undefined;
}

/** Who people are. */
export interface People {
  /** Undefined: nobody is known by this id. `role` is that in the room of this channel, proven or not. */
  find(userId: string, channelId: string | undefined): Promise<{ name: string; role: ChatRole } | undefined>;
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

/** What is asked of a room. */
export type ToldRoom = Pick<Room, 'act' | 'erase' | 'approve' | 'recent'>;

export interface DeskOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly log: Log;
  readonly people: People;
  readonly audit: ModerationAudit;
  /** 32 bytes, the same in every process. */
  readonly addressKey: Uint8Array;
  /** Opens the room for as long as `work` takes. */
  readonly withRoom: <T>(roomId: string, work: (room: ToldRoom) => Promise<T>) => Promise<T>;
}

/** What somebody may know of how he stands in a room. */
export interface OwnStanding {
  readonly ban: Ban | undefined;
  readonly timeout: Timeout | undefined;
  /** Unseen. */
  readonly warnings: readonly Warning[];
  readonly appeal: Appeal | undefined;
  /** What became of what he wrote and was held; newest first. */
  readonly held: readonly HeldRecord[];
}

export interface ModResult {
  /** Of the entry that tells the room; undefined: nobody is told, or the log is away. What was decided is in force in either case. */
  readonly offset?: number;
}

export interface RoomAct {
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

const CLEAN_MS = 3_600_000;
const DAY_MS = 86_400_000;
/** Acts and warnings are kept for a year. */
const ACTS_KEPT_MS = 365 * DAY_MS;
/** Who takes back what a judge is against. */
const AUTOMATIC: Moderator = { id: 'service', name: 'Automatic moderation', role: 'admin', actor: 'service' };
/** Who may do everything: he holds the server's own file. */
const ROOT = 'admin-token';

/**
 * Where a room is moderated: one way for REST, for `mod` frames and for whoever else. What is decided is written down first, with who did it; then it
 * counts here, a moment later everywhere, and the room is told.
 */
export class Desk {
  readonly control: ControlRoom;
  readonly rules: RoomRules;
  readonly held: HeldMessages;
  readonly sanctions: Sanctions;
  readonly appeals: Appeals;
  readonly writers: Writers;
  readonly #options: DeskOptions;
  #cancel: (() => void) | undefined;

  constructor(options: DeskOptions) {
    this.#options = options;
    this.control = new ControlRoom(options);
    this.writers = new Writers(options);
    this.rules = new RoomRules({ ...options, control: this.control, writers: this.writers });
    this.held = new HeldMessages(options);
    this.sanctions = new Sanctions(options);
    this.appeals = new Appeals({ ...options, sanctions: this.sanctions });
  }

  async start(): Promise<void> {
    await this.control.start();
    this.#cancel ??= this.#options.clock.every(CLEAN_MS, () => {
      this.clean().catch((error) => this.#options.log.warn({ error: messageOf(error) }, 'old decisions in chat rooms are not cleaned up'));
    });
  }

  /** Twice is harmless. */
  async stop(): Promise<void> {
    this.#cancel?.();
    this.#cancel = undefined;
    this.rules.stop();
    await this.control.stop();
    await this.writers.stop();
  }

  /**
   * Rejects: `forbidden` (not his room, or somebody of an equal or higher role), `second_factor_missing`, `not_found`, `conflict`, `bad_request`,
   * `unavailable`.
   */
  async moderate(room: RoomInfo, moderator: Moderator, action: ModAction): Promise<ModResult> {
    mustModerate(moderator);
    switch (action.action) {
      case 'delete':
        return this.#delete(room, moderator, action.mid);
      case 'purge':
        return this.#purge(room, moderator, action.user);
      case 'timeout':
      case 'untimeout':
      case 'ban':
      case 'shadowBan':
      case 'unban':
      case 'warn':
        return this.#sanction(room, moderator, action);
      case 'slow':
        return this.#set(room, moderator, 'slow', { slowS: action.seconds });
      case 'followers':
        return this.#set(room, moderator, 'followers', { followersMin: action.minutes });
      case 'unique':
      case 'emoteOnly':
      case 'shield':
        return this.#set(room, moderator, action.action, { [action.action]: action.on });
      case 'pin':
        return this.#pin(room, moderator, action.mid);
      case 'approve':
        return this.#approve(room, moderator, action.mid);
      case 'deny':
        return this.#deny(room, moderator, action.mid, action.reason);
      case 'terms':
        return this.#terms(room, moderator, action);
    }
  }

  /**
   * What the automatic moderation has something against after it was published: it leaves the room, and waits for a moderator as if it had been held.
   * He may put it back, then as another message: what was deleted under a `mid` does not come back. Twice is harmless. Rejects: `unavailable`, `busy`.
   */
  async takeBack(room: RoomInfo, said: { mid: string; author: Author; body: HeldMessage['body'] }, reason: string): Promise<void> {
    const { database, clock, log, withRoom } = this.#options;
    const { mid, author, body } = said;
    const key = `back:${mid}`;
    const again = midOf(room.id, author.id, key);
    if (await this.held.get(room.id, again)) return;
    // Undefined: somebody was faster, and it is decided.
    const gone = await withRoom(room.id, (told) => told.erase({ mids: [mid] }, person(AUTOMATIC)));
    if (!gone) return;
    await database.transaction(async (connection) => {
      await connection.query('delete from room_pins where room_id = $1 and mid = $2', [room.id, mid]);
      await this.#record(connection, room, AUTOMATIC, 'retract', author.id, { mid, reason });
    });
    await this.rules.reread(room.id);
    const saidAtMs = Math.trunc(clock.wallMs());
    await this.held.hold({ roomId: room.id, mid: again, key, author, body, saidAtMs, reason }).catch((error) => {
      // The queue is full: it is deleted, and the room's list of acts says why.
      log.warn({ room: room.id, mid, error: messageOf(error) }, 'a message that was taken back does not wait for a moderator');
    });
  }

  /** What only who runs the room may set. Rejects with `bad_request`. */
  async configure(room: RoomInfo, moderator: Moderator, changes: Readonly<Record<string, unknown>>): Promise<RoomSettings> {
    await this.#set(room, moderator, 'settings', changes);
    return this.settings(room);
  }

  /** As the database has them. */
  async settings(room: Pick<RoomInfo, 'id'>): Promise<RoomSettings> {
    const { rows } = await this.#options.database.query<{ settings: unknown }>('select settings from rooms where id = $1', [room.id]);
    return storedSettings(rows[0]?.settings);
  }

  async terms(room: Pick<RoomInfo, 'id'>): Promise<{ blocked: string[]; allowed: string[] }> {
    const { rows } = await this.#options.database.query<{ blocked: string[]; allowed: string[] }>(
      'select blocked, allowed from room_terms where room_id = $1',
      [room.id],
    );
    return rows[0] ?? { blocked: [], allowed: [] };
  }

  /** Rejects: `not_found`, `conflict`, `bad_request`. */
  async appeal(room: RoomInfo, from: Moderator, text: string): Promise<Appeal> {
    const appeal = await this.appeals.file(room.id, from, text);
    await this.#record(this.#options.database, room, from, 'appeal', from.id, { appeal: appeal.id });
    return appeal;
  }

  /** Accepted: the ban is lifted. Rejects: `not_found`, `conflict`, `bad_request`. */
  async answerAppeal(room: RoomInfo, moderator: Moderator, id: string, accepted: boolean, answer: string): Promise<Appeal> {
    mustModerate(moderator);
    const appeal = await this.#options.database.transaction(async (connection) => {
      const answered = await this.appeals.answer(connection, room.id, id, accepted, answer, moderator);
      if (accepted)
        await this.sanctions.unban(connection, room.id, answered.userId).catch((error) => {
          // It has ended meanwhile.
          if (!(error instanceof VezaError && error.code === 'not_found')) throw error;
        });
      await this.#record(connection, room, moderator, 'answerAppeal', answered.userId, { appeal: id, accepted });
      return answered;
    });
    await this.rules.reread(room.id);
    return appeal;
  }

  async standing(roomId: string, userId: string): Promise<OwnStanding> {
    const ban = await this.sanctions.banOf(roomId, userId);
    const warnings = await this.sanctions.warnings(roomId, userId, 100);
    return {
      ban: ban?.isShadow ? undefined : ban,
      timeout: await this.sanctions.timeoutOf(roomId, userId),
      warnings: warnings.filter(({ seenAtMs }) => seenAtMs === undefined),
      // An old answer says nothing about a new ban; of a shadow ban nobody knows.
      appeal: await this.appeals.of(roomId, userId, ban && !ban.isShadow ? ban.id : undefined),
      held: await this.held.of(roomId, userId, 20),
    };
  }

  /** Who did what here, newest first. */
  async acts(roomId: string, userId: string | undefined, before: number | undefined, limit: number): Promise<RoomAct[]> {
    const { rows } = await this.#options.database.query<ActRow>(
      `select * from room_acts where room_id = $1 and ($2::text is null or user_id = $2) and ($3::bigint is null or id < $3)
       order by id desc limit $4`,
      [roomId, userId ?? null, before ?? null, limit],
    );
    const names = await this.names(roomId, [...new Set(rows.flatMap(({ user_id }) => user_id ?? []))]);
    return rows.map((row) => ({
      id: row.id,
      atMs: row.at.getTime(),
      action: row.action,
      byId: row.by_id,
      byName: row.by_name,
      userId: row.user_id ?? undefined,
      userName: row.user_id === null ? undefined : names.get(row.user_id),
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

  /** How much waits for those who moderate the room. */
  async waiting(roomId: string): Promise<{ held: number; appeals: number }> {
    const { rows } = await this.#options.database.query<{ held: number; appeals: number }>(
      `select (select count(*)::int from held_messages where room_id = $1 and decision is null) as held,
         (select count(*)::int from room_appeals where room_id = $1 and accepted is null) as appeals`,
      [roomId],
    );
    return rows[0]!;
  }

  /** What has ended and is past its time. */
  async clean(): Promise<void> {
    const { database, clock } = this.#options;
    const ago = (ms: number) => [new Date(clock.wallMs() - ms)];
    await database.query('delete from room_timeouts where until < $1', ago(DAY_MS));
    await database.query('delete from room_address_bans where until < $1', ago(0));
    await database.query('delete from held_messages where created_at < $1', ago(HELD_KEPT_MS));
    await database.query('delete from room_warnings where created_at < $1', ago(ACTS_KEPT_MS));
    await database.query('delete from room_acts where at < $1', ago(ACTS_KEPT_MS));
  }

  async #sanction(
    room: RoomInfo,
    moderator: Moderator,
    action: Extract<ModAction, { action: 'timeout' | 'untimeout' | 'ban' | 'shadowBan' | 'unban' | 'warn' }>,
  ): Promise<ModResult> {
    const { database, clock } = this.#options;
    const { user, writer } = await this.#target(room, moderator, action.user);
    const nowMs = clock.wallMs();
    let untilMs: number | undefined;
    if ('seconds' in action && action.seconds !== undefined) untilMs = nowMs + action.seconds * 1000;
    const reason = 'reason' in action ? action.reason : undefined;
    let isUntold = false;
    await database.transaction(async (connection) => {
      const details: Record<string, unknown> = {
        ...(untilMs !== undefined && { until: new Date(untilMs).toISOString() }),
        ...(reason !== undefined && { reason }),
      };
      switch (action.action) {
        case 'timeout':
          await this.sanctions.timeout(connection, room.id, user, moderator, untilMs!, reason);
          break;
        case 'untimeout':
          await this.sanctions.untimeout(connection, room.id, user.id);
          break;
        case 'warn':
          await this.sanctions.warn(connection, room.id, user.id, moderator, action.text);
          details.text = action.text;
          // Between him and whoever moderates.
          isUntold = true;
          break;
        case 'unban': {
          const { isShadow } = await this.sanctions.unban(connection, room.id, user.id);
          isUntold = isShadow;
          break;
        }
        case 'shadowBan':
          await this.sanctions.ban(connection, room.id, user, moderator, { isShadow: true, untilMs, reason });
          // It would be none if anybody was told.
          isUntold = true;
          break;
        case 'ban': {
          const banId = await this.sanctions.ban(connection, room.id, user, moderator, { isShadow: false, untilMs, reason });
          if (action.addressSeconds !== undefined) {
            const addressHash = writer?.addressHash;
            if (addressHash === undefined)
              throw new VezaError('conflict', 'Nobody knows where this user wrote from of late: ban the account alone.');
            const addressUntilMs = nowMs + action.addressSeconds * 1000;
            await this.sanctions.banAddress(connection, room.id, banId, addressHash, addressUntilMs);
            details.addressUntil = new Date(addressUntilMs).toISOString();
          }
          break;
        }
      }
      await this.#record(connection, room, moderator, action.action, user.id, details);
    });
    await this.rules.reread(room.id);
    if (action.action === 'ban' && action.purge === true) await this.#erase(room, moderator, user.id);
    if (isUntold) return {};
    return this.#tell(room, moderator, action.action, {
      user,
      ...(untilMs !== undefined && { until: Math.round(untilMs) }),
    });
  }

  /** Rejects with `forbidden` when it is not somebody below. */
  async #target(room: RoomInfo, moderator: Moderator, userId: string) {
    const writer = await this.writers.find(room.id, userId);
    const person = await this.#options.people.find(userId, room.channelId);
    const known = person ?? (writer && { name: writer.name, role: writer.role as ChatRole });
    if (!known) throw new VezaError('not_found', 'There is no such user.');
    mustOutrank(moderator, userId, known.role);
    return { user: { id: userId, name: known.name }, writer };
  }

  async #delete(room: RoomInfo, moderator: Moderator, mid: string): Promise<ModResult> {
    const { database, people, withRoom } = this.#options;
    return withRoom(room.id, async (told) => {
      const { rows } = await database.query<{ user_id: string | null; type: string }>(
        'select user_id, type from messages where room_id = $1 and mid = $2',
        [room.id, mid],
      );
      const userId = rows[0] ? (rows[0].user_id ?? undefined) : told.recent(mid)?.userId;
      if (userId === undefined) throw new VezaError('not_found', 'There is no such message.');
      if (userId !== moderator.id) {
        const role = (await people.find(userId, room.channelId))?.role ?? (await this.writers.find(room.id, userId))?.role;
        mustOutrank(moderator, userId, (role as ChatRole | undefined) ?? 'viewer');
      }
      // First that it is to be: a process that dies after it leaves a message that can be deleted again.
      await database.transaction(async (connection) => {
        await connection.query('delete from room_pins where room_id = $1 and mid = $2', [room.id, mid]);
        await this.#record(connection, room, moderator, 'delete', userId, { mid });
      });
      const said = await told.erase({ mids: [mid] }, person(moderator));
      await this.rules.reread(room.id);
      return said ? { offset: said.offset } : {};
    });
  }

  async #purge(room: RoomInfo, moderator: Moderator, userId: string): Promise<ModResult> {
    // Also of somebody whose account is deleted.
    const { people, database } = this.#options;
    const writer = await this.writers.find(room.id, userId);
    const role = (await people.find(userId, room.channelId))?.role ?? (writer?.role as ChatRole | undefined) ?? 'viewer';
    if (userId !== moderator.id) mustOutrank(moderator, userId, role);
    await database.transaction((connection) => this.#record(connection, room, moderator, 'purge', userId, {}));
    return this.#erase(room, moderator, userId);
  }

  /** Everything that a user has said, with what waits for a moderator and what is pinned. */
  async #erase(room: RoomInfo, moderator: Moderator, userId: string): Promise<ModResult> {
    const { database, withRoom } = this.#options;
    await database.query(
      'delete from room_pins p using messages m where p.room_id = $1 and m.room_id = $1 and m.mid = p.mid and m.user_id = $2',
      [room.id, userId],
    );
    await database.query('delete from held_messages where room_id = $1 and user_id = $2', [room.id, userId]);
    const said = await withRoom(room.id, (told) => told.erase({ userId }, person(moderator)));
    await this.rules.reread(room.id);
    return said ? { offset: said.offset } : {};
  }

  async #set(room: RoomInfo, moderator: Moderator, action: string, changes: Readonly<Record<string, unknown>>): Promise<ModResult> {
    const { database } = this.#options;
    const after = await database.transaction(async (connection) => {
      const { rows } = await connection.query<{ settings: unknown }>('select settings from rooms where id = $1 for no key update', [
        room.id,
      ]);
      if (!rows[0]) throw new VezaError('not_found', 'There is no such room.');
      const settings = changedSettings(storedSettings(rows[0].settings), changes);
      await connection.query('update rooms set settings = settings || $2::jsonb where id = $1', [room.id, JSON.stringify(settings)]);
      await this.#record(connection, room, moderator, action, undefined, changes);
      return settings;
    });
    await this.rules.reread(room.id);
    return this.#tell(room, moderator, action, { settings: after });
  }

  async #terms(room: RoomInfo, moderator: Moderator, { blocked, allowed }: Extract<ModAction, { action: 'terms' }>): Promise<ModResult> {
    checkTerms(blocked, 'blocked');
    checkTerms(allowed, 'allowed');
    await this.#options.database.transaction(async (connection) => {
      await connection.query(
        `insert into room_terms (room_id, blocked, allowed) values ($1, $2, $3)
         on conflict (room_id) do update set blocked = excluded.blocked, allowed = excluded.allowed`,
        [room.id, blocked, allowed],
      );
      await this.#record(connection, room, moderator, 'terms', undefined, { blocked: blocked.length, allowed: allowed.length });
    });
    await this.rules.reread(room.id);
    // What is blocked here is told to nobody: it would be the list of what to get round.
    return {};
  }

  async #pin(room: RoomInfo, moderator: Moderator, mid: string | null): Promise<ModResult> {
    const messageOffset = await this.#options.database.transaction(async (connection) => {
      let offset: number | undefined;
      if (mid === null) await connection.query('delete from room_pins where room_id = $1', [room.id]);
      else {
        const { rows } = await connection.query<{ offset: number }>(
          `insert into room_pins (room_id, mid, by_id) select m.room_id, m.mid, $3 from messages m where m.room_id = $1 and m.mid = $2 and m.type = 'msg'
           on conflict (room_id) do update set mid = excluded.mid, by_id = excluded.by_id
           returning (select m."offset" from messages m where m.room_id = $1 and m.mid = $2)`,
          [room.id, mid, moderator.id],
        );
        if (!rows[0]) throw new VezaError('not_found', 'There is no such message.');
        offset = rows[0].offset;
      }
      await this.#record(connection, room, moderator, 'pin', undefined, { mid });
      return offset;
    });
    await this.rules.reread(room.id);
    // Not what it says: that would outlive its deletion. Whoever has not got it asks for it.
    return this.#tell(room, moderator, 'pin', { mid, ...(messageOffset !== undefined && { messageOffset }) }, 'pin');
  }

  async #approve(room: RoomInfo, moderator: Moderator, mid: string): Promise<ModResult> {
    const { database, withRoom, log } = this.#options;
    const record = await this.#decide(room, moderator, mid, 'approved', undefined);
    try {
      const said = await withRoom(room.id, (told) => told.approve(record.message));
      await database.query('update held_messages set "offset" = $3 where room_id = $1 and mid = $2', [room.id, mid, said.offset]);
      return { offset: said.offset };
    } catch (error) {
      // Or after a moment, if not even that can be written.
      await this.held
        .waitsAgain(room.id, mid)
        .catch((failure) => log.warn({ room: room.id, mid, error: messageOf(failure) }, 'a held message is stuck'));
      throw error;
    }
  }

  async #deny(room: RoomInfo, moderator: Moderator, mid: string, reason: string | undefined): Promise<ModResult> {
    await this.#decide(room, moderator, mid, 'denied', reason);
    return {};
  }

  async #decide(room: RoomInfo, moderator: Moderator, mid: string, decision: 'approved' | 'denied', reason: string | undefined) {
    const record = await this.#options.database.transaction(async (connection) => {
      const { rows } = await connection.query<HeldRow>(...this.held.decide(room.id, mid, decision, moderator.name, reason));
      const row = rows[0];
      if (!row) return undefined;
      if (row.user_id === moderator.id && moderator.id !== ROOT)
        throw new VezaError('forbidden', 'What you wrote yourself is for somebody else to decide.');
      const details = { mid, ...(reason !== undefined && { reason }) };
      await this.#record(connection, room, moderator, decision === 'approved' ? 'approve' : 'deny', row.user_id, details);
      return recordOf(row);
    });
    if (record) return record;
    if (await this.held.get(room.id, mid)) throw new VezaError('conflict', 'Somebody has decided about this message already.');
    throw new VezaError('not_found', 'No such message waits for a moderator.');
  }

  /** An entry of the room, for those who are there. What was decided is in force already, so that it is no failure when the log is away. */
  async #tell(room: RoomInfo, moderator: Moderator, action: string, more: object, type = 'act'): Promise<ModResult> {
    const { withRoom, log } = this.#options;
    try {
      const payload = { ...(type === 'act' && { action }), ...more, by: person(moderator) };
      const { offset } = await withRoom(room.id, (told) => told.act({ type, payload }));
      return { offset };
    } catch (error) {
      log.warn({ room: room.id, action, error: messageOf(error) }, 'a room was not told what a moderator did');
      return {};
    }
  }

  async #record(
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

const person = ({ id, name }: Moderator) => ({ id, name });

function mustModerate({ role, unproven }: Moderator): void {
  if (rankOf(role) >= rankOf('moderator')) return;
  if (unproven) throw new VezaError('second_factor_missing', 'This wants a second factor: set one up, or sign in with it.');
  throw new VezaError('forbidden', 'Only who moderates this room may do that.');
}

function mustOutrank(moderator: Moderator, userId: string, role: ChatRole): void {
  if (moderator.id === ROOT && userId !== ROOT) return;
  if (rankOf(moderator.role) <= rankOf(role)) throw new VezaError('forbidden', 'Nobody moderates somebody of an equal or a higher role.');
}
