import type { Database } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';

/** A change of something that decides who may do what in a chat. The new state is in the tables. */
export interface ChatChange {
  /**
   * `rules`: settings, terms, the pin or banned addresses of a room. `sanction`: a ban, timeout or
   * warning of one user in a room. `channel`: its visibility or owner, or it was deleted with its
   * room. `member`: the role of one account in a channel. `account`: it was banned or deleted, or
   * has another role or name. `session`: it was ended.
   */
  readonly kind: 'rules' | 'sanction' | 'channel' | 'member' | 'account' | 'session';
  readonly roomId?: string;
  readonly channelId?: string;
  readonly userId?: string;
  readonly sessionId?: string;
}

export interface ChangeFollower {
  /** Called with changes in the order in which they were committed. */
  onChanges(changes: readonly ChatChange[]): void;
  /**
   * This process did not read the journal for longer than entries are kept. It must read everything
   * again.
   */
  onLost(): void;
}

/**
 * The interval between two reads of the journal. Every change is in force in every process within a
 * second.
 */
const POLL_MS = 400;
/** Changes per read. Further ones are read at once. */
const BATCH = 1000;
const KEPT_MS = 3_600_000;
/** A process that has not read for this long may have missed changes that were cleaned up. */
const LOST_MS = KEPT_MS / 2;
const CLEAN_MS = 600_000;

/**
 * The control room: a journal in PostgreSQL that every process follows. It is the truth itself and
 * not a message about it, so a wiped Redis, a lost connection or a suspended process loses nothing.
 * While PostgreSQL is unavailable, the last known state stays in force.
 */
export class ControlRoom {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #followers = new Set<ChangeFollower>();
  #version: number | undefined;
  #polling: Promise<void> | undefined;
  #isAskedAgain = false;
  #isAway = false;
  #lookedAtMs = 0;
  readonly #cancels: (() => void)[] = [];

  constructor({ database, clock, log }: { database: Database; clock: Clock; log: Log }) {
    this.#database = database;
    this.#clock = clock;
    this.#log = log;
  }

  /** Adds a follower. Returns a function that removes it. */
  follow(follower: ChangeFollower): () => void {
    this.#followers.add(follower);
    return () => this.#followers.delete(follower);
  }

  /**
   * Follows the journal from its present end. Rejects with `unavailable`. A second call does
   * nothing.
   */
  async start(): Promise<void> {
    if (this.#cancels.length > 0) return;
    const { rows } = await this.#database.query<{ version: number }>('select version from chat_change_count');
    this.#version ??= rows[0]!.version;
    this.#lookedAtMs = this.#clock.monotonicMs();
    this.#cancels.push(
      this.#clock.every(POLL_MS, () => void this.readChanges()),
      this.#clock.every(CLEAN_MS, () => void this.#clean()),
    );
  }

  /** Waits for a running read. A second call does no harm. */
  async stop(): Promise<void> {
    for (const cancel of this.#cancels.splice(0)) cancel();
    await this.#polling;
  }

  /**
   * Reads the journal now. When it resolves, followers have been called for every change that was
   * committed before the call. Never rejects: a failed read is repeated.
   */
  async readChanges(): Promise<void> {
    if (this.#polling) {
      // The running read may have begun before the change that the caller knows of.
      this.#isAskedAgain = true;
      return this.#polling;
    }
    this.#polling = this.#look().finally(() => {
      this.#polling = undefined;
    });
    return this.#polling;
  }

  async #look(): Promise<void> {
    try {
      do {
        this.#isAskedAgain = false;
        while (await this.#read());
      } while (this.#isAskedAgain);
      this.#isAway = false;
    } catch (error) {
      if (!this.#isAway)
        this.#log.warn(
          { event: 'chat.changes_unreadable', error: messageOf(error) },
          'could not read changes to chat rooms; the last known state stays in force',
        );
      this.#isAway = true;
    }
  }

  /** Resolves to true when there may be more changes. */
  async #read(): Promise<boolean> {
    const since = this.#version ?? 0;
    const { rows } = await this.#database.query<{
      version: number;
      kind: ChatChange['kind'];
      room_id: string | null;
      channel_id: string | null;
      user_id: string | null;
      session_id: string | null;
    }>(
      `select version, kind, room_id, channel_id, user_id, session_id from chat_changes where version > $1 order by version limit ${BATCH}`,
      [since],
    );
    const nowMs = this.#clock.monotonicMs();
    const isLost = nowMs - this.#lookedAtMs > LOST_MS || (rows[0] !== undefined && rows[0].version !== since + 1);
    this.#lookedAtMs = nowMs;
    if (rows.length === 0 && !isLost) return false;
    this.#version = rows.at(-1)?.version ?? since;
    const changes = rows.map((row) => ({
      kind: row.kind,
      ...(row.room_id !== null && { roomId: row.room_id }),
      ...(row.channel_id !== null && { channelId: row.channel_id }),
      ...(row.user_id !== null && { userId: row.user_id }),
      ...(row.session_id !== null && { sessionId: row.session_id }),
    }));
    for (const follower of this.#followers) {
      try {
        if (isLost) follower.onLost();
        follower.onChanges(changes);
      } catch (error) {
        this.#log.error({ event: 'chat.change_not_applied', error: messageOf(error) }, 'a change to a chat room was not applied');
      }
    }
    return rows.length === BATCH;
  }

  async #clean(): Promise<void> {
    await this.#database
      .query('delete from chat_changes where at < $1', [new Date(this.#clock.wallMs() - KEPT_MS)])
      .catch((error) =>
        this.#log.warn({ event: 'chat.old_changes_not_deleted', error: messageOf(error) }, 'could not delete old changes to chat rooms'),
      );
  }
}
