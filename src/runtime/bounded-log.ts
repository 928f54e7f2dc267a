import type { Clock } from './clock.js';
import type { Log, LogFields } from './log.js';

type Level = 'info' | 'warn' | 'error';
export type LineLog = Pick<Log, Level>;

export interface BoundedLogLimits {
  /** Lines of one kind that are written per period, at most. */
  readonly perPeriod?: number;
  readonly periodMs?: number;
}

const LINES_PER_PERIOD = 10;
const PERIOD_MS = 60_000;
/**
 * Different kinds per period, at most; further kinds are counted together. Messages and codes are
 * constants of the source, so this limit is never reached.
 */
const MAX_KINDS = 100;

interface LineKind {
  readonly level: Level;
  readonly message: string;
  readonly event: string;
  readonly code: string | undefined;
  written: number;
  leftOut: number;
}

/**
 * A log for lines that an anonymous client can cause as often as it likes. Lines are counted by
 * kind: level, event, message and `code`. In each period the first lines of a kind are written, and
 * after the period one line says how many were left out (`of` names their event). The reason: a
 * full disk would end the recordings of every channel.
 */
export class BoundedLog implements LineLog {
  readonly #log: LineLog;
  readonly #clock: Clock;
  readonly #perPeriod: number;
  readonly #periodMs: number;
  #kinds = new Map<string, LineKind>();
  #fromMs = Number.NEGATIVE_INFINITY;
  #cancel: (() => void) | undefined;

  constructor(log: LineLog, clock: Clock, { perPeriod = LINES_PER_PERIOD, periodMs = PERIOD_MS }: BoundedLogLimits = {}) {
    this.#log = log;
    this.#clock = clock;
    this.#perPeriod = perPeriod;
    this.#periodMs = periodMs;
  }

  info(fields: LogFields, message: string): void {
    this.#write('info', fields, message);
  }

  warn(fields: LogFields, message: string): void {
    this.#write('warn', fields, message);
  }

  error(fields: LogFields, message: string): void {
    this.#write('error', fields, message);
  }

  /**
   * Writes now how many lines were left out, and leaves no timer. Lines that are written later are
   * bounded as before. Calling it twice is harmless.
   */
  close(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    const ended = this.#kinds;
    this.#kinds = new Map();
    for (const { level, message, event, code, leftOut } of ended.values()) {
      if (leftOut === 0) continue;
      this.#log[level]({ event: 'log.lines_left_out', of: event, ...(code !== undefined && { code }), leftOut }, message);
    }
  }

  #write(level: Level, fields: LogFields, message: string): void {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#fromMs >= this.#periodMs) {
      this.close();
      this.#fromMs = nowMs;
    }
    const kind = this.#kindOf(level, fields, message);
    if (kind.written < this.#perPeriod) {
      kind.written++;
      this.#log[level](fields, message);
      return;
    }
    kind.leftOut++;
    // The timer reports lines that were left out even if no further line comes.
    this.#cancel ??= this.#clock.after(this.#fromMs + this.#periodMs - nowMs, () => this.close());
  }

  #kindOf(level: Level, fields: LogFields, message: string): LineKind {
    const { event } = fields;
    const code = typeof fields.code === 'string' ? fields.code : undefined;
    const own = `${level} ${event} ${code} ${message}`;
    const name = !this.#kinds.has(own) && this.#kinds.size >= MAX_KINDS ? 'other' : own;
    let kind = this.#kinds.get(name);
    if (!kind) {
      kind =
        name === 'other'
          ? { level, message: 'other lines', event: 'other', code: undefined, written: 0, leftOut: 0 }
          : { level, message, event, code, written: 0, leftOut: 0 };
      this.#kinds.set(name, kind);
    }
    return kind;
  }
}
