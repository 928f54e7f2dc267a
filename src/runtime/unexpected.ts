import type { Clock } from './clock.js';
import type { Log } from './log.js';

/**
 * Counts of unexpected errors: exceptions and rejections that no code handled. Each is a defect,
 * but no reason to end what is on air: the process logs it, counts it and goes on.
 * docs/decisions/unexpected-errors.md says which errors may still end a process.
 */
export interface UnexpectedCounts {
  readonly exception: number;
  readonly rejection: number;
}

/**
 * Unexpected errors that are logged per period, at most: a defect that occurs with every packet
 * must not fill the log.
 */
const LOGGED_PER_PERIOD = 20;
const PERIOD_MS = 60_000;
const MAX_CAUSES = 3;
const MAX_STACK_CHARS = 4000;

const counts = { exception: 0, rejection: 0 };

/** The unexpected errors of this process since its start. */
export const unexpectedCounts = (): UnexpectedCounts => ({ ...counts });

/** Counts an unexpected error of one of this process's threads. */
export function countUnexpected(kind: keyof UnexpectedCounts): void {
  counts[kind]++;
}

let take: ((thrown: unknown) => void) | undefined;

/**
 * Reports an exception that was caught only so that other work goes on. It counts as an uncaught
 * exception.
 */
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
  /**
   * Called after the exception was logged and counted. A process that must end at an exception ends
   * here.
   */
  readonly onException?: (error: unknown) => void;
}

/**
 * Handles unexpected errors from now on; called once per process, as soon as it has a log. Returns
 * a function that ends the handling.
 */
export function takeUnexpectedErrors({ clock, log, onException }: UnexpectedOptions): () => void {
  let periodFromMs = clock.monotonicMs();
  let logged = 0;
  let leftOut = 0;
  const report = ({ event, thrown }: { event: string; thrown: unknown }, message: string) => {
    const nowMs = clock.monotonicMs();
    if (nowMs - periodFromMs >= PERIOD_MS) {
      if (leftOut > 0) log.error({ event: 'process.unexpected_errors_left_out', count: leftOut }, 'more unexpected errors were not logged');
      periodFromMs = nowMs;
      logged = 0;
      leftOut = 0;
    }
    if (logged >= LOGGED_PER_PERIOD) {
      leftOut++;
      return;
    }
    logged++;
    try {
      log.error({ event, ...describe(thrown) }, message);
    } catch {
      // An error thrown here would end the process. The unexpected error is still counted.
      leftOut++;
    }
  };
  const onUncaught = (thrown: unknown) => {
    counts.exception++;
    report({ event: 'process.uncaught_exception', thrown }, 'an exception was thrown and nothing caught it');
    onException?.(thrown);
  };
  const onUnhandled = (thrown: unknown) => {
    counts.rejection++;
    report({ event: 'process.unhandled_rejection', thrown }, 'a promise was rejected and nothing handled it');
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

/**
 * The fields of a log line for any thrown value. It never throws, although a getter or `toString`
 * of the value may.
 */
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
    return { error: 'an error that cannot be described' };
  }
}
