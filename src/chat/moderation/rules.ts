import type { Database } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { ClassifierSettings } from '../automod/classifier-settings.js';
import { addressHash } from '../protocol/address.js';
import type { ChatChange, ControlRoom } from '../protocol/control.js';
import { type Author, BANNED_REASON, type PublishLimits, type PublishRules, type RoomInfo, type RoomRefusal } from '../rooms/room.js';
import type { RecentWriters } from './recent-writers.js';
import { type Pinned, RulesReader } from './rules-reader.js';
import { DEFAULT_SETTINGS, moderationOf, NO_TERMS, type RoomSettings, type RoomTerms, rankOf, settingsInForce } from './settings.js';

export interface RulesListener {
  /** The bans, timeouts or warnings of these users have changed. */
  onPeople(roomId: string, userIds: readonly string[]): void;
  /** The settings, terms, pin or banned addresses have changed, or everything may have. */
  onRoom(roomId: string): void;
}

/** The rules of a room that this process has open. */
interface LoadedRules {
  holders: number;
  settings: RoomSettings;
  inForce: RoomSettings;
  terms: RoomTerms;
  moderation: ClassifierSettings;
  pinned: Pinned | undefined;
  /** Bans by user. `untilMs` Infinity: the ban has no end. */
  bans: Map<string, { untilMs: number; isShadow: boolean }>;
  timeouts: Map<string, number>;
  /** The number of unseen warnings by user. */
  warnings: Map<string, number>;
  /** When the ban of each address ends, by the address' hash. */
  addresses: Map<string, number>;
  isKnown: boolean;
  /** The parts that have to be read again; undefined: none. */
  stale: 'all' | { room: boolean; users: Set<string> } | undefined;
  reading: Promise<void> | undefined;
}

export interface RoomRulesOptions {
  readonly database: Database;
  readonly control: ControlRoom;
  readonly clock: Clock;
  readonly log: Log;
  /** The key that addresses are hashed with. */
  readonly addressKey: Uint8Array;
  readonly writers?: Pick<RecentWriters, 'noteWriter'> | undefined;
}

/** A room that is not open is forgotten after this. */
const IDLE_MS = 30_000;
const SWEEP_MS = 600_000;
/** The delay before a failed read is repeated. */
const RETRY_MS = 1000;
const DEFAULT_MODERATION = moderationOf(DEFAULT_SETTINGS, NO_TERMS);
const NOT_YET: RoomRefusal = { code: 'busy', reason: 'The rules of this room are being read. Send it again.', retryMs: 500 };

/**
 * The rules of rooms: who may read, and who may write what. Every message is checked against them,
 * so the rules of open rooms are in memory. They are read when a room is opened, and again when the
 * control room reports a change.
 */
export class RoomRules implements PublishRules {
  readonly #options: RoomRulesOptions;
  readonly #rooms = new Map<string, LoadedRules>();
  readonly #listeners = new Set<RulesListener>();
  readonly #cancels: (() => void)[] = [];
  readonly #reader: RulesReader;

  constructor(options: RoomRulesOptions) {
    this.#options = options;
    this.#reader = new RulesReader(options);
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

  /** The number of rooms whose rules are in memory. */
  get size(): number {
    return this.#rooms.size;
  }

  listen(listener: RulesListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Resolves when the room's rules are loaded. Call `releaseRoom` once for each call. Rejects with
   * `unavailable`.
   */
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

  /** Resolves when changes that this process has stored are in force in it. */
  async applyChanges(roomId: string): Promise<void> {
    await this.#options.control.readChanges();
    await this.#rooms.get(roomId)?.reading;
  }

  /** The stored settings. `settingsInForce` applies the shield to them. */
  settingsOf(roomId: string): RoomSettings {
    return this.#rooms.get(roomId)?.settings ?? DEFAULT_SETTINGS;
  }

  settingsInForce(roomId: string): RoomSettings {
    return this.#rooms.get(roomId)?.inForce ?? DEFAULT_SETTINGS;
  }

  /** The automod settings. The same object is returned until one of them changes. */
  classifierSettingsOf(roomId: string): ClassifierSettings {
    return this.#rooms.get(roomId)?.moderation ?? DEFAULT_MODERATION;
  }

  termsOf(roomId: string): RoomTerms {
    return this.#rooms.get(roomId)?.terms ?? NO_TERMS;
  }

  pinnedMessage(roomId: string): Pinned | undefined {
    return this.#rooms.get(roomId)?.pinned;
  }

  /**
   * Why the author may not be in the room; undefined: the author may. `author` undefined: a guest.
   */
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

  /** When the user's timeout ends; undefined: the user has none. */
  timeoutUntilMs(roomId: string, userId: string, nowMs: number): number | undefined {
    const untilMs = this.#rooms.get(roomId)?.timeouts.get(userId);
    return untilMs !== undefined && untilMs > nowMs ? untilMs : undefined;
  }

  /** The number of warnings that the user has not seen. */
  unseenWarnings(roomId: string, userId: string): number {
    return this.#rooms.get(roomId)?.warnings.get(userId) ?? 0;
  }

  refusalOf(room: Pick<RoomInfo, 'id'>, author: Author, nowMs: number, text: string): RoomRefusal | undefined {
    const state = this.#rooms.get(room.id);
    if (!state?.isKnown) {
      // The room is not open here. Its rules are read now, and are known when the message is sent
      // again.
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

  /** A second call does no harm. */
  stop(): void {
    for (const cancel of this.#cancels.splice(0)) cancel();
  }

  #bannedUntil(state: LoadedRules, author: Pick<Author, 'id' | 'role' | 'address'>, nowMs: number): number | undefined {
    const ban = state.bans.get(author.id);
    if (ban && !ban.isShadow && ban.untilMs > nowMs) return ban.untilMs;
    // Moderators are exempt: they may share an address with a user whom they banned.
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

  /**
   * Marks rules as stale and reads them. `what`: `all`, the id of one user, or undefined for the
   * rules of the whole room.
   */
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
      this.#options.log.warn(
        { event: 'chat.rules_unreadable', room: roomId, error: messageOf(error) },
        'could not read the rules of a chat room; the known ones stay in force',
      );
      this.#options.clock.after(RETRY_MS, () => {
        if (this.#rooms.get(roomId) === state && state.stale) this.#markStale(roomId, state.stale === 'all' ? 'all' : undefined);
      });
    });
  }

  /** Reads the stale parts. One read runs at a time: changes during a read are read after it. */
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
          // Merges the failed parts with those that became stale during the read.
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
      // In the same step as the last check of the loop, so that a later change starts a new read.
      state.reading = undefined;
    }
  }

  #tell(roomId: string, userIds: readonly string[] | undefined): void {
    for (const listener of this.#listeners) {
      try {
        if (userIds) listener.onPeople(roomId, userIds);
        else listener.onRoom(roomId);
      } catch (error) {
        this.#options.log.error(
          { event: 'chat.rules_listener_failed', room: roomId, error: messageOf(error) },
          'a listener failed on new rules of a chat room',
        );
      }
    }
  }

  async #readPeople(roomId: string, state: LoadedRules, userIds: readonly string[] | undefined): Promise<void> {
    const sanctions = await this.#reader.readSanctions(roomId, userIds);
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
    for (const { kind, userId, isShadow, untilMs, unseen } of sanctions) {
      if (kind === 'ban') state.bans.set(userId, { untilMs, isShadow });
      else if (kind === 'timeout') state.timeouts.set(userId, untilMs);
      else state.warnings.set(userId, unseen);
    }
  }

  async #readRoom(roomId: string, state: LoadedRules): Promise<void> {
    const stored = await this.#reader.readRoom(roomId);
    state.settings = stored.settings;
    state.inForce = settingsInForce(stored.settings);
    state.terms = stored.terms;
    state.moderation = moderationOf(state.inForce, stored.terms);
    state.pinned = stored.pinned;
    state.addresses = stored.addresses;
  }

  /** Removes sanctions that have ended. */
  #sweep(): void {
    const nowMs = this.#options.clock.wallMs();
    for (const { bans, timeouts, addresses } of this.#rooms.values()) {
      for (const [userId, { untilMs }] of bans) if (untilMs <= nowMs) bans.delete(userId);
      for (const [userId, untilMs] of timeouts) if (untilMs <= nowMs) timeouts.delete(userId);
      for (const [hash, untilMs] of addresses) if (untilMs <= nowMs) addresses.delete(hash);
    }
  }
}

const banned = (untilMs: number): RoomRefusal & { untilMs?: number } => ({
  code: 'banned',
  reason: BANNED_REASON,
  ...(Number.isFinite(untilMs) && { untilMs }),
});

/**
 * Matches are replaced one by one. The alternatives overlap, so one expression with `+` over them
 * would take exponential time.
 */
const EMOJI_PATTERN = '\\p{RGI_Emoji}|\\p{Extended_Pictographic}\\uFE0F?|\\s';
const EMOJI = new RegExp(EMOJI_PATTERN, 'gv');

export const isEmojiOnly = (text: string): boolean => /\S/.test(text) && text.replace(EMOJI, '') === '';
