import type { Clock } from './clock.js';
import type { Log } from './log.js';

/**
 * Errors that reach the process because nobody took them. Each is a defect, and none of them is worth what is on air: the process logs and counts it
 * and lives on. docs/decisions/unexpected-errors.md says which may still end a process.
 */
export interface UnexpectedCounts {
  readonly exception: number;
  readonly rejection: number;
}

/** A defect that strikes with every packet must not fill the log as well. */
const LOGGED_PER_PERIOD = 20;
const PERIOD_MS = 60_000;
const MAX_CAUSES = 3;
const MAX_STACK_CHARS = 4000;

const counts = { exception: 0, rejection: 0 };

/** Of this process, since it began. */
export const unexpectedCounts = (): UnexpectedCounts => ({ ...counts });

/** One that a thread of this process met. */
export function countUnexpected(kind: keyof UnexpectedCounts): void {
  counts[kind]++;
}

let take: ((thrown: unknown) => void) | undefined;

/** An exception that was caught only so that others have their turn: it counts as one that nobody took. */
export function reportUnexpected(thrown: unknown): void {
  if (take) take(thrown);
  else
    queueMicrotask(() => {
      throw thrown;
    });
}

export interface UnexpectedOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** After it is logged. Where it ends the process, it does that here. */
  readonly onException?: (error: unknown) => void;
}

/** Once in a process, when it has a log. Returns what ends it. */
export function takeUnexpectedErrors({ clock, log, onException }: UnexpectedOptions): () => void {
  let periodFromMs = clock.monotonicMs();
  let logged = 0;
  let left = 0;
  const report = (event: string, thrown: unknown, message: string) => {
    const nowMs = clock.monotonicMs();
    if (nowMs - periodFromMs >= PERIOD_MS) {
      if (left > 0) log.error({ event: 'process.unexpected_errors_left_out', count: left }, 'more unexpected errors were not logged');
      periodFromMs = nowMs;
      logged = 0;
      left = 0;
    }
    if (logged >= LOGGED_PER_PERIOD) {
      left++;
      return;
    }
    logged++;
    try {
      log.error({ event, ...describe(thrown) }, message);
    } catch {
      // Thrown out of here it would end the process. It is counted all the same.
      left++;
    }
  };
  const onUncaught = (thrown: unknown) => {
    counts.exception++;
    report('process.uncaught_exception', thrown, 'an exception was thrown and nothing caught it');
    onException?.(thrown);
  };
  const onUnhandled = (thrown: unknown) => {
    counts.rejection++;
    report('process.unhandled_rejection', thrown, 'a rejection that nobody took');
  };
  take = onUncaught;
  process.on('uncaughtException', onUncaught);
  process.on('unhandledRejection', onUnhandled);
  return () => {
    if (take === onUncaught) take = undefined;
    process.off('uncaughtException', onUncaught);
    process.off('unhandledRejection', onUnhandled);
  };
}

/** What a log line says of anything that was thrown: a getter or `toString` of it may throw in turn. */
export function describe(thrown: unknown): Record<string, unknown> {
  try {
    if (!(thrown instanceof Error)) return { error: String(thrown) };
    const causes: string[] = [];
    for (
      let cause = thrown.cause;
      cause !== undefined && causes.length < MAX_CAUSES;
      cause = cause instanceof Error ? cause.cause : undefined
    )
      causes.push(String(cause));
    return {
      error: `${thrown.name}: ${thrown.message}`,
      code: (thrown as { code?: unknown }).code,
      stack: String(thrown.stack).slice(0, MAX_STACK_CHARS),
      ...(causes.length > 0 && { causes }),
    };
  } catch {
    return { error: 'something that cannot be shown' };
  }
}
