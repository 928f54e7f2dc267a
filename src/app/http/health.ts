import type Koa from 'koa';
import { BoundedLog, type LineLog } from '../../runtime/bounded-log.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { recent } from '../../runtime/shared-work.js';
import { rejectLate, withDeadline } from '../../runtime/waiting.js';
import { reads } from './reads.js';

/**
 * Checks one part that the process cannot work without; throws or rejects when that part does not
 * work.
 */
export type HealthCheck = () => Promise<unknown> | unknown;

/**
 * A check without a result after this time fails. Orchestrators give up after a few seconds
 * themselves.
 */
const CHECK_TIMEOUT_MS = 2000;

/**
 * The checks run at most twice in this time. Orchestrators ask every few seconds; an anonymous
 * client may ask thousands of times per second.
 */
const WINDOW_MS = 1000;

export interface Readiness {
  readonly status: 'ok' | 'unavailable';
  /** Names of the parts whose check failed. */
  readonly failing: string[];
}

/** Runs all checks at once. The cause of a failure goes to the log, not into the answer. */
export async function readiness(checks: Readonly<Record<string, HealthCheck>>, clock: Clock, log: LineLog): Promise<Readiness> {
  const failing: string[] = [];
  await Promise.all(
    Object.entries(checks).map(async ([name, check]) => {
      try {
        await withDeadline(clock, CHECK_TIMEOUT_MS, (async () => check())(), rejectLate(`no answer within ${CHECK_TIMEOUT_MS} ms`));
      } catch (error) {
        failing.push(name);
        log.warn({ event: 'health.not_ready', check: name, error: messageOf(error) }, 'a readiness check failed');
      }
    }),
  );
  return { status: failing.length === 0 ? 'ok' : 'unavailable', failing: failing.sort() };
}

/** Answers `/health/ready`: the checks run at most twice per second for all requests together. */
const sharedReadiness = (checks: Readonly<Record<string, HealthCheck>>, clock: Clock, log: Log): (() => Promise<Readiness>) => {
  const failureLog = new BoundedLog(log, clock);
  return recent(clock, WINDOW_MS, () => readiness(checks, clock, failureLog));
};

export interface HealthOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** The checks of `/health/ready`, by name. */
  readonly health: Readonly<Record<string, HealthCheck>>;
}

/** Answers `/health/live` and `/health/ready`. */
export function healthEndpoints({ clock, log, health }: HealthOptions): Koa.Middleware {
  const ready = sharedReadiness(health, clock, log);
  return async (ctx, next) => {
    if (ctx.path !== '/health/live' && ctx.path !== '/health/ready') return next();
    ctx.state.route = ctx.path;
    if (!reads(ctx)) return;
    ctx.set('Cache-Control', 'no-store');
    const answer = ctx.path === '/health/live' ? { status: 'ok', failing: [] } : await ready();
    ctx.status = answer.status === 'ok' ? 200 : 503;
    ctx.body = answer;
  };
}
