import type { Database, Queryable } from '../../src/backing/database/database.js';
import { MemoryRoomLog } from '../../src/backing/room-log/memory.js';
import type { Append, Following, LogEntry, Opening, RoomLog, RoomLogFollower } from '../../src/backing/room-log/room-log.js';
import type { Clock } from '../../src/runtime/clock.js';
import { VezaError } from '../../src/runtime/errors.js';
import { silentLog } from '../../src/runtime/log.js';

/** Time that passes so many times as fast: what waits for seconds is over in a test. */
export class FastClock implements Clock {
  readonly #factor: number;
  readonly #startMs: number;
  readonly #startWallMs: number;
  readonly #cancels = new Set<() => void>();
  #isHalted = false;
  #tellHalted: () => void = () => {};
  /** Resolves when it is halted. */
  readonly halted = new Promise<void>((resolve) => {
    this.#tellHalted = resolve;
  });

  constructor(factor: number, startMs = performance.now(), startWallMs = Date.now()) {
    this.#factor = factor;
    this.#startMs = startMs;
    this.#startWallMs = startWallMs;
  }

  /** The same time for another process. */
  another(): FastClock {
    return new FastClock(this.#factor, this.#startMs, this.#startWallMs);
  }

  /** No timer of this process runs any more. */
  halt(): void {
    this.#isHalted = true;
    this.#tellHalted();
    for (const cancel of this.#cancels) cancel();
  }

  monotonicMs(): number {
    return (performance.now() - this.#startMs) * this.#factor;
  }

  wallMs(): number {
    return this.#startWallMs + this.monotonicMs();
  }

  after(delayMs: number, task: () => void): () => void {
    if (this.#isHalted) return () => undefined;
    const cancel = () => {
      clearTimeout(timer);
      this.#cancels.delete(cancel);
    };
    const timer = setTimeout(() => {
      this.#cancels.delete(cancel);
      task();
    }, delayMs / this.#factor);
    this.#cancels.add(cancel);
    return cancel;
  }

  every(periodMs: number, task: () => void): () => void {
    if (this.#isHalted) return () => undefined;
    const timer = setInterval(task, periodMs / this.#factor);
    const cancel = () => {
      clearInterval(timer);
      this.#cancels.delete(cancel);
    };
    this.#cancels.add(cancel);
    return cancel;
  }
}

/** A log that all processes of a test share, and that can lose everything. */
export class LogServer {
  readonly #clock: Clock;
  readonly links = new Set<FaultyLink>();
  inner: MemoryRoomLog;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.inner = new MemoryRoomLog({ clock, log: silentLog });
  }

  async wipe(): Promise<void> {
    const lost = this.inner;
    this.inner = new MemoryRoomLog({ clock: this.#clock, log: silentLog });
    await lost.stop();
    for (const link of this.links) await link.followAgain();
  }

  /** Goes back to an older head under the same epoch, as no log may. */
  async setBack(roomId: string, by: number): Promise<void> {
    const page = (await this.inner.read(roomId, 0, 1000))!;
    const entries = page.entries.slice(0, -by);
    await this.inner.remove(roomId);
    await this.inner.open({ roomId, epoch: page.epoch, head: page.head - by, atMs: entries.at(-1)?.atMs ?? 0, entries });
  }
}

const away = (what: string) => new VezaError('unavailable', `${what} does not answer.`);

/** Something between a process and a server: it can be away, slow to answer, or hold everything up as for a process that sleeps. */
export class Gate {
  /** Rejects; every other time after it has done what was asked. */
  isAway = false;
  /** Rejects, and nothing is ever done. */
  isCut = false;
  /** The process behind it was killed: nothing ever comes back. */
  isDead = false;
  #asleep: Promise<void> | undefined;
  #wake: (() => void) | undefined;
  #count = 0;

  sleep(): void {
    this.#asleep ??= new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  wake(): void {
    this.#wake?.();
    this.#asleep = undefined;
  }

  async pass<T>(what: string, work: () => Promise<T>): Promise<T> {
    await this.#asleep;
    if (this.isDead) return new Promise(() => undefined);
    if (this.isCut || (this.isAway && this.#count++ % 2 === 0)) throw away(what);
    const answer = await work();
    await this.#asleep;
    if (this.isDead) return new Promise(() => undefined);
    if (this.isAway) throw away(what);
    return answer;
  }

  get isAsleep(): boolean {
    return this.#asleep !== undefined;
  }

  /** Resolves when what sleeps is awake. */
  get awake(): Promise<void> {
    return this.#asleep ?? Promise.resolve();
  }
}

/** The way of one process to the log. */
export class FaultyLink implements RoomLog {
  readonly gate: Gate;
  /** What is appended is not told here, and nobody knows. */
  isDeaf = false;
  /** Everything is told twice. */
  isStuttering = false;
  readonly #server: LogServer;
  readonly #followers = new Map<RoomLogFollower, { roomId: string; following: Following | undefined }>();

  constructor(server: LogServer, gate: Gate) {
    this.#server = server;
    this.gate = gate;
    server.links.add(this);
  }

  append = (append: Append) => this.#pass(() => this.#server.inner.append(append));
  read = (roomId: string, after: number, limit: number) => this.#pass(() => this.#server.inner.read(roomId, after, limit));
  open = (opening: Opening) => this.#pass(() => this.#server.inner.open(opening));
  archived = (roomId: string, epoch: number, upTo: number | readonly number[]) =>
    this.#pass(() => this.#server.inner.archived(roomId, epoch, upTo));
  places = (roomIds: readonly string[]) => this.#pass(() => this.#server.inner.places(roomIds));
  unarchived = (olderThanMs: number, limit: number) => this.#pass(() => this.#server.inner.unarchived(olderThanMs, limit));
  erase = (roomId: string, epoch: number, offset: number, type: string, payload: string) =>
    this.#pass(() => this.#server.inner.erase(roomId, epoch, offset, type, payload));
  bar: RoomLog['bar'] = (roomId, userId, forMs, why) => this.#pass(() => this.#server.inner.bar(roomId, userId, forMs, why));
  remove = (roomId: string) => this.#pass(() => this.#server.inner.remove(roomId));

  async follow(roomId: string, follower: RoomLogFollower): Promise<Following> {
    return this.#pass(async () => {
      const entry = { roomId, following: (await this.#server.inner.follow(roomId, this.#told(follower))) as Following | undefined };
      this.#followers.set(follower, entry);
      return {
        stop: () => {
          this.#followers.delete(follower);
          entry.following?.stop();
        },
      };
    });
  }

  /** The server is another one: the subscription is made again. */
  async followAgain(): Promise<void> {
    for (const [follower, entry] of this.#followers) {
      entry.following = await this.#server.inner.follow(entry.roomId, this.#told(follower));
      if (!this.isDeaf && !this.gate.isDead) void this.gate.awake.then(() => follower.onRestored());
    }
  }

  /** Its subscription is made again, which it notices. */
  hear(): void {
    this.isDeaf = false;
    if (!this.gate.isDead) for (const follower of this.#followers.keys()) follower.onRestored();
  }

  async stop(): Promise<void> {
    this.#server.links.delete(this);
  }

  #told(follower: RoomLogFollower): RoomLogFollower {
    return {
      onEntry: (epoch: number, entry: LogEntry) => {
        if (this.isDeaf || this.gate.isDead) return;
        const tell = () => {
          if (this.gate.isDead) return;
          follower.onEntry(epoch, entry);
          if (this.isStuttering) follower.onEntry(epoch, entry);
        };
        if (this.gate.isAsleep) void this.gate.awake.then(tell);
        else tell();
      },
      onRestored: () => follower.onRestored(),
    };
  }

  #pass<T>(work: () => Promise<T>): Promise<T> {
    return this.gate.pass('the log', work);
  }
}

/** The way of one process to PostgreSQL. */
export class FaultyDatabase implements Database {
  readonly gate: Gate;
  readonly #database: Database;

  constructor(database: Database, gate: Gate) {
    this.#database = database;
    this.gate = gate;
  }

  query<Row extends object>(sql: string, values?: readonly unknown[]): Promise<{ rows: Row[]; rowCount: number }> {
    return this.gate.pass('the database', () => this.#database.query<Row>(sql, values));
  }

  transaction<T>(work: (connection: Queryable) => Promise<T>): Promise<T> {
    return this.gate.pass('the database', () => this.#database.transaction(work));
  }

  async stop(): Promise<void> {}
}
