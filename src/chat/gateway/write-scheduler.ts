import { performance } from 'node:perf_hooks';
import type { Clock } from '../../runtime/clock.js';
import { each } from '../../runtime/each.js';
import type { ClientConnection } from './connection.js';
import type { LocalRoom } from './local-room.js';

/** Share of its time that the process is busy. Above it writes are gathered. */
const BUSY_SHARE = 0.7;
/**
 * The longest delay, reached when the process has no idle time. A write of eight messages costs the
 * same as a write of one.
 */
const MAX_GATHER_MS = 50;

export interface WriteSchedulerOptions {
  readonly clock: Clock;
  /**
   * The share of its time that the process was busy since the last call, 0 to 1. Default: the
   * utilization of the event loop.
   */
  readonly busy?: (() => number) | undefined;
  readonly flushRoom: (localRoom: LocalRoom) => void;
}

/**
 * Decides when frames are written: in the same turn of the event loop, or up to `MAX_GATHER_MS`
 * later while the process is busy. Frames that become ready until then share the write.
 */
export class WriteScheduler {
  readonly #clock: Clock;
  readonly #busy: () => number;
  readonly #flushRoom: (localRoom: LocalRoom) => void;
  #rooms: LocalRoom[] = [];
  #connections: ClientConnection[] = [];
  #isFlushScheduled = false;
  #gatherMs = 0;

  constructor({ clock, busy, flushRoom }: WriteSchedulerOptions) {
    this.#clock = clock;
    this.#busy = busy ?? measureEventLoop();
    this.#flushRoom = flushRoom;
  }

  /** The delay at present. 0: frames are written in the same turn. */
  get gatherMs(): number {
    return this.#gatherMs;
  }

  /** Sets the delay from the load since the last call. */
  measureLoad(): void {
    const busy = this.#busy();
    this.#gatherMs = busy <= BUSY_SHARE ? 0 : Math.min(MAX_GATHER_MS, ((busy - BUSY_SHARE) / (1 - BUSY_SHARE)) * MAX_GATHER_MS);
  }

  /** The room has new entries. Called once until the room is flushed. */
  scheduleRoom(localRoom: LocalRoom): void {
    this.#rooms.push(localRoom);
    this.#scheduleFlush();
  }

  /** The connection has replies. Called once until the connection is flushed. */
  scheduleConnection(connection: ClientConnection): void {
    this.#connections.push(connection);
    this.#scheduleFlush();
  }

  #scheduleFlush(): void {
    if (this.#isFlushScheduled) return;
    this.#isFlushScheduled = true;
    if (this.#gatherMs < 1) setImmediate(this.#flush);
    else this.#clock.after(this.#gatherMs, this.#flush);
  }

  readonly #flush = (): void => {
    this.#isFlushScheduled = false;
    const localRooms = this.#rooms;
    const connections = this.#connections;
    this.#rooms = [];
    this.#connections = [];
    // `each` goes on after an error: a room that was skipped would never be scheduled again.
    each(localRooms, this.#flushRoom);
    each(connections, (connection) => connection.flush());
  };
}

function measureEventLoop(): () => number {
  let last = performance.eventLoopUtilization();
  return () => {
    const { utilization } = performance.eventLoopUtilization(last);
    last = performance.eventLoopUtilization();
    return utilization;
  };
}
