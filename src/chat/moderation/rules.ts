import type { Database } from '../../backing/database/database.js';
import { Batched } from '../../runtime/batched.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { ClassifierSettings } from '../automod/classifier.js';
import { addressHash } from '../protocol/address.js';
import type { ChatChange, ControlRoom } from '../protocol/control.js';
import { type Author, BANNED_REASON, type PublishLimits, type PublishRules, type RoomInfo, type RoomRefusal } from '../rooms/room.js';
import type { RecentWriters } from './recent-writers.js';
import {
  DEFAULT_SETTINGS,
  moderationOf,
  NO_TERMS,
  type RoomSettings,
  type RoomTerms,
  rankOf,
  settingsInForce,
  storedSettings,
} from './settings.js';

/** As it is shown above the messages. */
export interface Pinned {
  readonly mid: string;
  readonly offset: number;
  readonly user: { readonly id: string; readonly name: string; readonly role: string };
  readonly body: Readonly<Record<string, unknown>>;
  /** ms since 1970. */
  readonly at: number;
}

export interface RulesListener {
  /** Bans, timeouts or warnings of these people are others now: put out who is banned, show him what is his. */
  onPeople(roomId: string, userIds: readonly string[]): void;
  /** Settings, terms, the pin, banned addresses, or everything: look at everybody who is there. */
  onRoom(roomId: string): void;
}

/** What a process knows of a room that it has open. */
interface LoadedRules {
  holders: number;
  settings: RoomSettings;
  inForce: RoomSettings;
  terms: RoomTerms;
  moderation: ClassifierSettings;
  pinned: Pinned | undefined;
  /** By user. `untilMs` Infinity: for good. */
  bans: Map<string, { untilMs: number; isShadow: boolean }>;
  timeouts: Map<string, number>;
  /** How many of them he has not seen. */
  warnings: Map<string, number>;
  /** By hash. */
  addresses: Map<string, number>;
  isKnown: boolean;
  /** What is to be read again; undefined: nothing. */
  stale: 'all' | { room: boolean; users: Set<string> } | undefined;
  reading: Promise<void> | undefined;
}

export interface RoomRulesOptions {
  readonly database: Database;
  readonly control: ControlRoom;
  readonly clock: Clock;
  readonly log: Log;
  /** Of the hashes of addresses. */
  readonly addressKey: Uint8Array;
  readonly writers?: Pick<RecentWriters, 'noteWriter'> | undefined;
}

/** A room that nobody has open is forgotten after that. */
const IDLE_MS = 30_000;
const SWEEP_MS = 600_000;
/** What could not be read is asked for again after that. */
const AGAIN_MS = 1000;
const DEFAULT_MODERATION = moderationOf(DEFAULT_SETTINGS, NO_TERMS);
const NOT_YET: RoomRefusal = { code: 'busy', reason: 'The rules of this room are being read. Send it again.', retryMs: 500 };

/**
 * Who may say what in a room: settings, bans, timeouts. Asked for every message, so all of it is in memory for rooms that are open here, read from
 * PostgreSQL when they are opened and again whenever the control room says that it has changed.
 */
export class RoomRules implements PublishRules {
  readonly #options: RoomRulesOptions;
  readonly #rooms = new Map<string, LoadedRules>();
  readonly #listeners = new Set<RulesListener>();
  readonly #cancels: (() => void)[] = [];
  /** Of rooms that are opened at the same time, in one statement. */
  readonly #rows: Batched<RoomRulesRow>;
  readonly #people: Batched<readonly SanctionRow[]>;

  constructor(options: RoomRulesOptions) {
    this.#options = options;
    this.#rows = new Batched(options.clock, (roomIds) => this.#roomRows(roomIds));
    this.#people = new Batched<readonly SanctionRow[]>(options.clock, (roomIds) => this.#everybody(roomIds));
    this.#cancels.push(
      options.control.follow({
        onChanges: (changes) => this.#changed(changes),
        onLost: () => {
          for (const roomId of this.#rooms.keys()) this.#markStale(roomId, 'all');
        },
      }),
      options.clock.every(SWEEP_MS, () => this.#sweep()),
    );
  }

  /** Rooms that are known here. */
  get size(): number {
    return this.#rooms.size;
  }

  listen(listener: RulesListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Resolves when the room's rules are known; `release` once for each. Rejects with `unavailable`. */
  async openRoom(roomId: string): Promise<void> {
    const state = this.#state(roomId);
    state.holders++;
    try {
      if (!state.isKnown) await this.#read(roomId, state);
    } catch (error) {
      this.releaseRoom(roomId);
      throw error;
    }
  }

  releaseRoom(roomId: string): void {
    const state = this.#rooms.get(roomId);
    if (!state) return;
    state.holders--;
    if (state.holders > 0) return;
    this.#options.clock.after(IDLE_MS, () => {
      if (state.holders <= 0 && this.#rooms.get(roomId) === state) this.#rooms.delete(roomId);
    });
  }

  /** What was changed by this process counts here at once. Resolves when it does. */
  async applyChanges(roomId: string): Promise<void> {
    await this.#options.control.readChanges();
    await this.#rooms.get(roomId)?.reading;
  }

  /** As they were set; `inForce` is what the shield makes of them. */
  settingsOf(roomId: string): RoomSettings {
    return this.#rooms.get(roomId)?.settings ?? DEFAULT_SETTINGS;
  }

  settingsInForce(roomId: string): RoomSettings {
    return this.#rooms.get(roomId)?.inForce ?? DEFAULT_SETTINGS;
  }

  /** What its automatic moderation goes by. The same object until something of it changes. */
  classifierSettingsOf(roomId: string): ClassifierSettings {
    return this.#rooms.get(roomId)?.moderation ?? DEFAULT_MODERATION;
  }

  termsOf(roomId: string): RoomTerms {
    return this.#rooms.get(roomId)?.terms ?? NO_TERMS;
  }

  pinnedMessage(roomId: string): Pinned | undefined {
    return this.#rooms.get(roomId)?.pinned;
  }

  /** Whether somebody may be in the room; undefined: he may. `author` undefined: a guest. */
  readRefusalOf(
    roomId: string,
    author: Pick<Author, 'id' | 'role' | 'address'> | undefined,
    nowMs: number,
  ): (RoomRefusal & { untilMs?: number }) | undefined {
    const state = this.#rooms.get(roomId);
    if (!state?.isKnown) return NOT_YET;
    if (!author) {
      if (state.inForce.guests === 'none') return { code: 'unauthorized', reason: 'Sign in to read this chat.' };
      return undefined;
    }
    const untilMs = this.#bannedUntil(state, author, nowMs);
    return untilMs === undefined ? undefined : banned(untilMs);
  }

  /** When his timeout ends; undefined: he has none. */
  timeoutUntilMs(roomId: string, userId: string, nowMs: number): number | undefined {
    const untilMs = this.#rooms.get(roomId)?.timeouts.get(userId);
    return untilMs !== undefined && untilMs > nowMs ? untilMs : undefined;
  }

  /** Warnings that he has not seen yet. */
  unseenWarnings(roomId: string, userId: string): number {
    return this.#rooms.get(roomId)?.warnings.get(userId) ?? 0;
  }

  refusalOf(room: Pick<RoomInfo, 'id'>, author: Author, nowMs: number, text: string): RoomRefusal | undefined {
    const state = this.#rooms.get(room.id);
    if (!state?.isKnown) {
      // Nobody has opened it first: it is known the next time.
      if (!state)
        void this.openRoom(room.id).then(
          () => this.releaseRoom(room.id),
          () => undefined,
        );
      return NOT_YET;
    }
    const bannedUntilMs = this.#bannedUntil(state, author, nowMs);
    if (bannedUntilMs !== undefined) return banned(bannedUntilMs);
    const timeoutUntilMs = state.timeouts.get(author.id);
    if (timeoutUntilMs !== undefined && timeoutUntilMs > nowMs) {
      const retryS = Math.ceil((timeoutUntilMs - nowMs) / 1000);
      return { code: 'timed_out', reason: `A moderator has given you a timeout; it ends in ${retryS} s.` };
    }
    const { followersMin, emoteOnly } = state.inForce;
    if (rankOf(author.role) < rankOf('moderator')) {
      if (followersMin > 0) {
        const { sinceMs } = author;
        const oldEnoughMs = sinceMs === undefined ? Infinity : sinceMs + followersMin * 60_000;
        if (oldEnoughMs > nowMs)
          return {
            code: 'too_new',
            reason: Number.isFinite(oldEnoughMs)
              ? `Only accounts older than ${followersMin} min may write here now; yours is in ${Math.ceil((oldEnoughMs - nowMs) / 60_000)} min.`
              : `Only accounts of this service that are older than ${followersMin} min may write here now.`,
          };
      }
      if (emoteOnly && !isEmojiOnly(text)) return { code: 'emote_only', reason: 'Only emoji are allowed here now.' };
    }
    this.#options.writers?.noteWriter(room.id, author);
    return undefined;
  }

  limitsOf(room: Pick<RoomInfo, 'id'>, author: Pick<Author, 'role'>): PublishLimits {
    const { perS, burst, roomPerS, slowS, slowExempt, unique } = this.settingsInForce(room.id);
    const isModerator = rankOf(author.role) >= rankOf('moderator');
    return {
      perS,
      burst: Math.max(perS, burst),
      roomPerS,
      slowMs: slowExempt.includes(author.role) ? 0 : slowS * 1000,
      unique: unique && !isModerator,
    };
  }

  isShadowed(room: Pick<RoomInfo, 'id'>, author: Pick<Author, 'id'>, nowMs: number): boolean {
    const ban = this.#rooms.get(room.id)?.bans.get(author.id);
    return ban?.isShadow === true && ban.untilMs > nowMs;
  }

  /** Twice is harmless. */
  stop(): void {
    for (const cancel of this.#cancels.splice(0)) cancel();
  }

  #bannedUntil(state: LoadedRules, author: Pick<Author, 'id' | 'role' | 'address'>, nowMs: number): number | undefined {
    const ban = state.bans.get(author.id);
    if (ban && !ban.isShadow && ban.untilMs > nowMs) return ban.untilMs;
    // Somebody who moderates may well share an address with whom he has banned.
    if (state.addresses.size === 0 || author.address === undefined || author.role !== 'viewer') return undefined;
    const hash = addressHash(this.#options.addressKey, author.address);
    const untilMs = hash === undefined ? undefined : state.addresses.get(hash);
    return untilMs !== undefined && untilMs > nowMs ? untilMs : undefined;
  }

  #state(roomId: string): LoadedRules {
    let state = this.#rooms.get(roomId);
    if (!state) {
      state = {
        holders: 0,
        settings: DEFAULT_SETTINGS,
        inForce: DEFAULT_SETTINGS,
        terms: NO_TERMS,
        moderation: DEFAULT_MODERATION,
        pinned: undefined,
        bans: new Map(),
        timeouts: new Map(),
        warnings: new Map(),
        addresses: new Map(),
        isKnown: false,
        stale: 'all',
        reading: undefined,
      };
      this.#rooms.set(roomId, state);
    }
    return state;
  }

  #changed(changes: readonly ChatChange[]): void {
    for (const { kind, roomId, userId } of changes) {
      if (roomId === undefined) continue;
      if (kind === 'rules') this.#markStale(roomId, undefined);
      else if (kind === 'sanction' && userId !== undefined) this.#markStale(roomId, userId);
    }
  }

  /** `what`: everything, one person, or (undefined) what is about the whole room. */
  #markStale(roomId: string, what: 'all' | string | undefined): void {
    const state = this.#rooms.get(roomId);
    if (!state) return;
    if (what === 'all') state.stale = 'all';
    else if (state.stale !== 'all') {
      state.stale ??= { room: false, users: new Set() };
      if (what === undefined) state.stale.room = true;
      else state.stale.users.add(what);
    }
    this.#read(roomId, state).catch((error) => {
      this.#options.log.warn({ room: roomId, error: messageOf(error) }, 'the rules of a chat room cannot be read; those known count on');
      this.#options.clock.after(AGAIN_MS, () => {
        if (this.#rooms.get(roomId) === state && state.stale) this.#markStale(roomId, state.stale === 'all' ? 'all' : undefined);
      });
    });
  }

  /** One after the other: what changes while it is read is read after that. */
  #read(roomId: string, state: LoadedRules): Promise<void> {
    if (state.reading) return state.reading;
    if (!state.stale) return Promise.resolve();
    state.reading = this.#readStale(roomId, state);
    return state.reading;
  }

  async #readStale(roomId: string, state: LoadedRules): Promise<void> {
    try {
      while (state.stale) {
        const stale = state.stale;
        state.stale = undefined;
        const isAll = stale === 'all';
        try {
          if (isAll || stale.room) await this.#readRoom(roomId, state);
          if (isAll || stale.users.size > 0) await this.#readPeople(roomId, state, isAll ? undefined : [...stale.users]);
        } catch (error) {
          // With what has come meanwhile.
          const since = state.stale as LoadedRules['stale'];
          if (isAll || since === 'all') state.stale = 'all';
          else state.stale = { room: stale.room || since?.room === true, users: new Set([...stale.users, ...(since?.users ?? [])]) };
          throw error;
        }
        const wasKnown = state.isKnown;
        state.isKnown = true;
        if (wasKnown) this.#tell(roomId, isAll || stale.room ? undefined : [...stale.users]);
      }
    } finally {
      // In the same step as the look that found nothing: what comes after it begins anew.
      state.reading = undefined;
    }
  }

  #tell(roomId: string, userIds: readonly string[] | undefined): void {
    for (const listener of this.#listeners) {
      try {
        if (userIds) listener.onPeople(roomId, userIds);
        else listener.onRoom(roomId);
      } catch (error) {
        this.#options.log.error({ room: roomId, error: messageOf(error) }, 'new rules of a chat room were not taken in');
      }
    }
  }

  async #roomRows(roomIds: readonly string[]): Promise<Map<string, RoomRulesRow>> {
    const { database, clock } = this.#options;
    const { rows } = await database.query<RoomRulesRow>(
      `select r.id, r.settings, t.blocked, t.allowed, m.mid, m.payload, m."offset", m.created_at,
           (select json_agg(json_build_array(address_hash, until)) from room_address_bans where room_id = r.id and until > $2) as addresses
         from rooms r
         left join room_terms t on t.room_id = r.id
         left join room_pins p on p.room_id = r.id
         left join messages m on m.room_id = p.room_id and m.mid = p.mid and m.type = 'msg'
       where r.id = any($1::uuid[])`,
      [roomIds, new Date(clock.wallMs())],
    );
    return new Map(rows.map((row) => [row.id, row]));
  }

  async #readRoom(roomId: string, state: LoadedRules): Promise<void> {
    const row = await this.#rows.load(roomId);
    state.settings = storedSettings(row?.settings);
    state.inForce = settingsInForce(state.settings);
    state.terms = { blocked: row?.blocked ?? [], allowed: row?.allowed ?? [] };
    state.moderation = moderationOf(state.inForce, state.terms);
    state.pinned = row && pinnedOf(row);
    state.addresses = new Map(row?.addresses?.map(([hash, until]) => [hash, Date.parse(until)]));
  }

  /** Those of whom there is something to know, of all users or of these. */
  async #peopleRows(roomIds: readonly string[], userIds: readonly string[] | null): Promise<SanctionRow[]> {
    const { database, clock } = this.#options;
    const { rows } = await database.query<SanctionRow>(
      `select 'ban' as kind, room_id, user_id, shadow, until, null::int as unseen from room_bans
         where room_id = any($1::uuid[]) and lifted_at is null and (until is null or until > $2) and ($3::text[] is null or user_id = any($3))
       union all select 'timeout', room_id, user_id, false, until, null from room_timeouts
         where room_id = any($1::uuid[]) and until > $2 and ($3::text[] is null or user_id = any($3))
       union all select 'warning', room_id, user_id, false, null, count(*)::int from room_warnings
         where room_id = any($1::uuid[]) and seen_at is null and ($3::text[] is null or user_id = any($3)) group by room_id, user_id`,
      [roomIds, new Date(clock.wallMs()), userIds],
    );
    return rows;
  }

  async #everybody(roomIds: readonly string[]): Promise<Map<string, SanctionRow[]>> {
    const found = new Map<string, SanctionRow[]>();
    for (const row of await this.#peopleRows(roomIds, null)) {
      const rows = found.get(row.room_id);
      if (rows) rows.push(row);
      else found.set(row.room_id, [row]);
    }
    return found;
  }

  async #readPeople(roomId: string, state: LoadedRules, userIds: readonly string[] | undefined): Promise<void> {
    const rows = userIds ? await this.#peopleRows([roomId], userIds) : ((await this.#people.load(roomId)) ?? []);
    if (userIds)
      for (const userId of userIds) {
        state.bans.delete(userId);
        state.timeouts.delete(userId);
        state.warnings.delete(userId);
      }
    else {
      state.bans.clear();
      state.timeouts.clear();
      state.warnings.clear();
    }
    for (const { kind, user_id, shadow, until, unseen } of rows) {
      const untilMs = until?.getTime() ?? Number.POSITIVE_INFINITY;
      if (kind === 'ban') state.bans.set(user_id, { untilMs, isShadow: shadow });
      else if (kind === 'timeout') state.timeouts.set(user_id, untilMs);
      else state.warnings.set(user_id, unseen ?? 0);
    }
  }

  /** What has ended takes no memory for long. */
  #sweep(): void {
    const nowMs = this.#options.clock.wallMs();
    for (const { bans, timeouts, addresses } of this.#rooms.values()) {
      for (const [userId, { untilMs }] of bans) if (untilMs <= nowMs) bans.delete(userId);
      for (const [userId, untilMs] of timeouts) if (untilMs <= nowMs) timeouts.delete(userId);
      for (const [hash, untilMs] of addresses) if (untilMs <= nowMs) addresses.delete(hash);
    }
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

const banned = (untilMs: number): RoomRefusal & { untilMs?: number } => ({
  code: 'banned',
  reason: BANNED_REASON,
  ...(Number.isFinite(untilMs) && { untilMs }),
});

/** One alternative after the other at each place, and never back: an expression with `+` over these overlaps takes exponential time. */
const EMOJI_PATTERN = '\\p{RGI_Emoji}|\\p{Extended_Pictographic}\\uFE0F?|\\s';
const EMOJI = new RegExp(EMOJI_PATTERN, 'gv');

export const isEmojiOnly = (text: string): boolean => /\S/.test(text) && text.replace(EMOJI, '') === '';
