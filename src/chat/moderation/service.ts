import type { Database } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { checkTerms } from '../automod/terms.js';
import { ControlRoom } from '../protocol/control.js';
import { midOf } from '../protocol/entry-frame.js';
import type { RoomRole } from '../protocol/protocol.js';
import { ModerationNotices, type ModerationResult, type NoticeAuthor } from '../rooms/moderation-notices.js';
import { Pins } from '../rooms/pins.js';
import type { Author, HeldMessage, Room, RoomInfo } from '../rooms/room.js';
import { type AccountDirectory, type ModerationAct, ModerationActs, type ModerationAudit, type Moderator } from './acts.js';
import { Appeals, type BanAppeal } from './appeals.js';
import { Deletions } from './deletions.js';
import { HeldDecisions } from './held-decisions.js';
import { HELD_KEPT_MS, HeldMessageQueue, type HeldRecord } from './held-message-queue.js';
import type { ModAction } from './mod-actions.js';
import { RecentWriters } from './recent-writers.js';
import { RoomRules } from './rules.js';
import { type RoomBan, type RoomTimeout, type RoomWarning, Sanctions } from './sanctions.js';
import { changedSettings, publicPart, type RoomSettings, settingsInForce, storedSettings } from './settings.js';
import { ModerationTargets, mustModerate, mustOutrank } from './targets.js';

/** The methods of a room that moderation uses. */
export type ModeratedRoom = Pick<Room, 'appendEntry' | 'eraseMessages' | 'publishHeld' | 'recentMessage' | 'untilStored' | 'barUser'>;

export interface ModerationServiceOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly log: Log;
  readonly people: AccountDirectory;
  readonly audit: ModerationAudit;
  /** 32 bytes, the same in every process. */
  readonly addressKey: Uint8Array;
  /** Opens the room while `work` runs. */
  readonly withRoom: <T>(roomId: string, work: (room: ModeratedRoom) => Promise<T>) => Promise<T>;
}

/** The sanctions of a user in a room as far as the user may know of them. */
export interface SanctionsOfUser {
  readonly ban: RoomBan | undefined;
  readonly timeout: RoomTimeout | undefined;
  /** The warnings that the user has not seen. */
  readonly warnings: readonly RoomWarning[];
  readonly appeal: BanAppeal | undefined;
  /** The user's held messages with their decisions, newest first. */
  readonly held: readonly HeldRecord[];
}

const CLEAN_MS = 3_600_000;
const DAY_MS = 86_400_000;
/** How long acts and warnings are kept. */
const ACTS_KEPT_MS = 365 * DAY_MS;
/** The moderator in whose name automod retracts messages. */
const AUTOMATIC: Moderator = { id: 'service', name: 'Automatic moderation', role: 'admin', actor: 'service' };

/**
 * The one way to moderate a room, for REST, `mod` frames and programs. A decision is first stored
 * with its moderator. Then it is in force in this process, within a second in every process, and a
 * notice is appended to the room.
 */
export class ModerationService {
  readonly control: ControlRoom;
  readonly rules: RoomRules;
  readonly held: HeldMessageQueue;
  readonly sanctions: Sanctions;
  readonly appeals: Appeals;
  readonly writers: RecentWriters;
  readonly #acts: ModerationActs;
  readonly #pins: Pins;
  readonly #news: ModerationNotices;
  readonly #deletions: Deletions;
  readonly #targets: ModerationTargets;
  readonly #heldDecisions: HeldDecisions;
  readonly #options: ModerationServiceOptions;
  #cancel: (() => void) | undefined;

  constructor(options: ModerationServiceOptions) {
    this.#options = options;
    this.control = new ControlRoom(options);
    this.writers = new RecentWriters(options);
    this.rules = new RoomRules({ ...options, control: this.control, writers: this.writers });
    this.held = new HeldMessageQueue(options);
    this.sanctions = new Sanctions(options);
    this.appeals = new Appeals({ ...options, sanctions: this.sanctions });
    this.#acts = new ModerationActs(options);
    this.#pins = new Pins(options);
    this.#news = new ModerationNotices(options);
    this.#deletions = new Deletions({
      ...options,
      held: this.held,
      pins: this.#pins,
      news: this.#news,
      rules: this.rules,
      sanctions: this.sanctions,
    });
    this.#targets = new ModerationTargets({ ...options, writers: this.writers });
    this.#heldDecisions = new HeldDecisions({ ...options, held: this.held, acts: this.#acts, deletions: this.#deletions });
  }

  async start(): Promise<void> {
    await this.control.start();
    this.#cancel ??= this.#options.clock.every(CLEAN_MS, () => {
      this.deleteExpired().catch((error) =>
        this.#options.log.warn(
          { event: 'chat.old_decisions_not_deleted', error: messageOf(error) },
          'could not delete old decisions of moderators',
        ),
      );
    });
  }

  /** A second call does no harm. */
  async stop(): Promise<void> {
    this.#cancel?.();
    this.#cancel = undefined;
    this.rules.stop();
    await this.control.stop();
    await this.writers.stop();
  }

  /**
   * Carries out an action. Rejects with `forbidden` (the caller does not moderate this room, or the
   * user has an equal or higher role), `second_factor_missing`, `not_found`, `conflict`,
   * `bad_request` or `unavailable`.
   */
  async moderate(room: RoomInfo, moderator: Moderator, action: ModAction): Promise<ModerationResult> {
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
        return this.#heldDecisions.approve(room, moderator, action.mid);
      case 'deny':
        return this.#heldDecisions.deny(room, moderator, action.mid, action.reason);
      case 'terms':
        return this.#terms(room, moderator, action);
    }
  }

  /**
   * Retracts a message that was published before it was classified: the message is deleted, and a
   * copy waits for a moderator. An approved copy has another `mid`, because a deleted `mid` cannot
   * be published again. A second call for the same message does no harm. Rejects with `unavailable`
   * or `busy`.
   */
  async retractMessage(room: RoomInfo, said: { mid: string; author: Author; body: HeldMessage['body'] }, reason: string): Promise<void> {
    const { mid, author, body } = said;
    const key = `back:${mid}`;
    const saidAtMs = Math.trunc(this.#options.clock.wallMs());
    const message = { roomId: room.id, mid: midOf(room.id, author.id, key), key, author, body, saidAtMs, reason };
    await this.#deletions.holdInstead(AUTOMATIC, mid, message, (connection) =>
      this.#acts.recordAct(connection, room, AUTOMATIC, 'retract', author.id, { mid, reason }),
    );
  }

  /**
   * Deletes every message of a deleted account in these rooms, including held ones. A second call
   * does no harm. Rejects with `unavailable` or `busy`.
   */
  async eraseAccount(userId: string, roomIds: Iterable<string>, by: NoticeAuthor): Promise<void> {
    for (const roomId of roomIds) {
      await this.#deletions.barDeleted(roomId, userId);
      await this.#deletions.deleteAllOf(roomId, by, userId);
    }
    await this.#options.database.query('delete from held_messages where user_id = $1', [userId]);
    await this.#options.database.query('delete from room_writers where user_id = $1', [userId]);
  }

  /**
   * Changes settings. The caller has checked the moderator's rights. Rejects with `bad_request`.
   */
  async changeSettings(room: RoomInfo, moderator: Moderator, changes: Readonly<Record<string, unknown>>): Promise<RoomSettings> {
    await this.#set(room, moderator, 'settings', changes);
    return this.readSettings(room);
  }

  /** The settings as the database has them. */
  async readSettings(room: Pick<RoomInfo, 'id'>): Promise<RoomSettings> {
    const { rows } = await this.#options.database.query<{ settings: unknown }>('select settings from rooms where id = $1', [room.id]);
    return storedSettings(rows[0]?.settings);
  }

  async readTerms(room: Pick<RoomInfo, 'id'>): Promise<{ blocked: string[]; allowed: string[] }> {
    const { rows } = await this.#options.database.query<{ blocked: string[]; allowed: string[] }>(
      'select blocked, allowed from room_terms where room_id = $1',
      [room.id],
    );
    return rows[0] ?? { blocked: [], allowed: [] };
  }

  /** Rejects with `not_found`, `conflict` or `bad_request`. */
  async fileAppeal(room: RoomInfo, from: Moderator, text: string): Promise<BanAppeal> {
    const appeal = await this.appeals.fileAppeal(room.id, from, text);
    await this.#acts.recordAct(this.#options.database, room, from, 'appeal', from.id, { appeal: appeal.id });
    return appeal;
  }

  /**
   * Answers an appeal. `accepted` lifts the ban. Rejects with `not_found`, `conflict` or
   * `bad_request`.
   */
  async answerAppeal(room: RoomInfo, moderator: Moderator, id: string, accepted: boolean, answer: string): Promise<BanAppeal> {
    mustModerate(moderator);
    const appeal = await this.#options.database.transaction(async (connection) => {
      const answered = await this.appeals.answerAppeal(connection, room.id, id, accepted, answer, moderator);
      if (accepted)
        await this.sanctions.liftBan(connection, room.id, answered.userId).catch((error) => {
          // The ban has ended in the meantime.
          if (!(error instanceof VezaError && error.code === 'not_found')) throw error;
        });
      await this.#acts.recordAct(connection, room, moderator, 'answerAppeal', answered.userId, { appeal: id, accepted });
      return answered;
    });
    if (accepted) await this.#bar(room, appeal.userId);
    await this.rules.applyChanges(room.id);
    return appeal;
  }

  async sanctionsOf(roomId: string, userId: string): Promise<SanctionsOfUser> {
    const ban = await this.sanctions.findBan(roomId, userId);
    const warnings = await this.sanctions.listWarnings(roomId, userId, 100);
    return {
      ban: ban?.isShadow ? undefined : ban,
      timeout: await this.sanctions.findTimeout(roomId, userId),
      warnings: warnings.filter(({ seenAtMs }) => seenAtMs === undefined),
      // An answer about an earlier ban does not apply to a new one, and a shadow-banned user must
      // not learn of the ban.
      appeal: await this.appeals.findOfUser(roomId, userId, ban && !ban.isShadow ? ban.id : undefined),
      held: await this.held.listOfUser(roomId, userId, 20),
    };
  }

  /** The acts in a room, newest first. */
  listActs(roomId: string, userId: string | undefined, before: number | undefined, limit: number): Promise<ModerationAct[]> {
    return this.#acts.listActs(roomId, userId, before, limit);
  }

  /** Names by user id, of accounts and of recent writers in the room. */
  namesOf(roomId: string, userIds: readonly string[]): Promise<ReadonlyMap<string, string>> {
    return this.#acts.names(roomId, userIds);
  }

  /** The numbers of held messages and of appeals that wait for moderators. */
  async countWaiting(roomId: string): Promise<{ held: number; appeals: number }> {
    const { rows } = await this.#options.database.query<{ held: number; appeals: number }>(
      `select (select count(*)::int from held_messages where room_id = $1 and decision is null) as held,
         (select count(*)::int from room_appeals where room_id = $1 and accepted is null) as appeals`,
      [roomId],
    );
    return rows[0]!;
  }

  /** Deletes sanctions that have ended, and records older than their retention. */
  async deleteExpired(): Promise<void> {
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
  ): Promise<ModerationResult> {
    const { database, clock } = this.#options;
    const { user, writer } = await this.#targets.findUser(room, moderator, action.user);
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
          await this.sanctions.startTimeout(connection, room.id, user, moderator, untilMs!, reason);
          break;
        case 'untimeout':
          await this.sanctions.endTimeout(connection, room.id, user.id);
          break;
        case 'warn':
          await this.sanctions.addWarning(connection, room.id, user.id, moderator, action.text);
          details.text = action.text;
          // Only the user and the moderators see a warning.
          isUntold = true;
          break;
        case 'unban': {
          const { isShadow } = await this.sanctions.liftBan(connection, room.id, user.id);
          isUntold = isShadow;
          break;
        }
        case 'shadowBan':
          await this.sanctions.banUser(connection, room.id, user, moderator, { isShadow: true, untilMs, reason });
          // A shadow ban works only while members do not know of it.
          isUntold = true;
          break;
        case 'ban': {
          const banId = await this.sanctions.banUser(connection, room.id, user, moderator, { isShadow: false, untilMs, reason });
          if (action.addressSeconds !== undefined) {
            const addressHash = writer?.addressHash;
            if (addressHash === undefined)
              throw new VezaError('conflict', 'No recent address of this user is known: ban the account alone.');
            const addressUntilMs = nowMs + action.addressSeconds * 1000;
            await this.sanctions.banAddress(connection, room.id, banId, addressHash, addressUntilMs);
            details.addressUntil = new Date(addressUntilMs).toISOString();
          }
          break;
        }
      }
      await this.#acts.recordAct(connection, room, moderator, action.action, user.id, details);
    });
    if (action.action !== 'warn') await this.#bar(room, user.id);
    await this.rules.applyChanges(room.id);
    if (action.action === 'ban' && action.purge === true) await this.#deletions.deleteAllOf(room.id, moderator, user.id);
    if (isUntold) return {};
    return this.#news.appendNotice(room.id, moderator, action.action, {
      user,
      ...(untilMs !== undefined && { until: Math.round(untilMs) }),
    });
  }

  /**
   * Makes the log refuse the user's messages at once. A failure does no harm: without the log no
   * message is published, and the new rules reach every process within a second.
   */
  async #bar(room: RoomInfo, userId: string): Promise<void> {
    await this.#deletions.barSanctioned(room.id, userId).catch((error) => {
      this.#options.log.warn(
        { event: 'chat.sanction_not_logged', room: room.id, error: messageOf(error) },
        'could not write a ban or timeout to the log of a room',
      );
    });
  }

  async #delete(room: RoomInfo, moderator: Moderator, mid: string): Promise<ModerationResult> {
    const { database, people } = this.#options;
    const userId = await this.#targets.findAuthor(room, mid);
    if (userId === undefined) throw new VezaError('not_found', 'There is no such message.');
    if (userId !== moderator.id) {
      const role = (await people.find(userId, room.channelId))?.role ?? (await this.writers.findWriter(room.id, userId))?.role;
      mustOutrank(moderator, userId, (role as RoomRole | undefined) ?? 'viewer');
    }
    // The act is stored first. If the process ends before the deletion, the message can be deleted
    // again.
    await database.transaction((connection) => this.#acts.recordAct(connection, room, moderator, 'delete', userId, { mid }));
    return this.#deletions.deleteMessages(room.id, moderator, [mid]);
  }

  async #purge(room: RoomInfo, moderator: Moderator, userId: string): Promise<ModerationResult> {
    // The user's account may have been deleted.
    const { people, database } = this.#options;
    const writer = await this.writers.findWriter(room.id, userId);
    const role = (await people.find(userId, room.channelId))?.role ?? (writer?.role as RoomRole | undefined) ?? 'viewer';
    if (userId !== moderator.id) mustOutrank(moderator, userId, role);
    await database.transaction((connection) => this.#acts.recordAct(connection, room, moderator, 'purge', userId, {}));
    return this.#deletions.deleteAllOf(room.id, moderator, userId);
  }

  async #set(room: RoomInfo, moderator: Moderator, action: string, changes: Readonly<Record<string, unknown>>): Promise<ModerationResult> {
    const { database } = this.#options;
    await database.transaction(async (connection) => {
      const { rows } = await connection.query<{ settings: unknown }>('select settings from rooms where id = $1 for no key update', [
        room.id,
      ]);
      if (!rows[0]) throw new VezaError('not_found', 'There is no such room.');
      const settings = changedSettings(storedSettings(rows[0].settings), changes);
      await connection.query('update rooms set settings = settings || $2::jsonb where id = $1', [room.id, JSON.stringify(settings)]);
      await this.#acts.recordAct(connection, room, moderator, action, undefined, changes);
    });
    await this.rules.applyChanges(room.id);
    return this.#news.appendCurrentState(room.id, moderator, action, async () => ({
      // The settings as in `joined`: those in force, without the ones that would show how to evade
      // them.
      settings: publicPart(settingsInForce(await this.readSettings(room))),
    }));
  }

  async #terms(
    room: RoomInfo,
    moderator: Moderator,
    { blocked, allowed }: Extract<ModAction, { action: 'terms' }>,
  ): Promise<ModerationResult> {
    checkTerms(blocked, 'blocked');
    checkTerms(allowed, 'allowed');
    await this.#options.database.transaction(async (connection) => {
      await connection.query(
        `insert into room_terms (room_id, blocked, allowed) values ($1, $2, $3)
         on conflict (room_id) do update set blocked = excluded.blocked, allowed = excluded.allowed`,
        [room.id, blocked, allowed],
      );
      await this.#acts.recordAct(connection, room, moderator, 'terms', undefined, { blocked: blocked.length, allowed: allowed.length });
    });
    await this.rules.applyChanges(room.id);
    // The room is sent no notice: the list of blocked terms would show how to evade it.
    return {};
  }

  async #pin(room: RoomInfo, moderator: Moderator, mid: string | null): Promise<ModerationResult> {
    const { database, withRoom } = this.#options;
    const change = () =>
      database.transaction(async (connection) => {
        if (mid === null) await this.#pins.unpin(connection, room.id);
        else await this.#pins.pin(connection, room.id, mid, moderator.id);
        await this.#acts.recordAct(connection, room, moderator, 'pin', undefined, { mid });
      });
    await change().catch(async (error) => {
      if (mid === null || !(error instanceof VezaError && error.code === 'not_found')) throw error;
      // Members see a message shortly before it is stored, and a moderator may pin it at once.
      await withRoom(room.id, (told) => told.untilStored(mid));
      await change();
    });
    await this.rules.applyChanges(room.id);
    return this.#news.appendCurrentState(room.id, moderator, 'pin', () => this.#pins.currentPin(room.id), 'pin');
  }
}
