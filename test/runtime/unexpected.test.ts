import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock, SystemClock } from '../../src/runtime/clock.js';
import { type Log, silentLog } from '../../src/runtime/log.js';
import { Metrics } from '../../src/runtime/metrics.js';
import { describe, takeUnexpectedErrors, unexpectedCounts } from '../../src/runtime/unexpected.js';

/** Calls what the runner listens with only through us: an error that is thrown for a test must not fail it. */
function taken(log: Log, onException?: (error: unknown) => void) {
  const clock = new FakeClock();
  const before = { uncaughtException: process.listeners('uncaughtException'), unhandledRejection: process.listeners('unhandledRejection') };
  const stop = takeUnexpectedErrors({ clock, log, ...(onException && { onException }) });
  const ours = <E extends 'uncaughtException' | 'unhandledRejection'>(event: E) =>
    process.listeners(event as 'uncaughtException').find((listener) => !before[event].includes(listener as never)) as unknown as (
      thrown: unknown,
    ) => void;
  return { clock, exception: ours('uncaughtException'), rejection: ours('unhandledRejection'), stop };
}

test('what nobody took is logged with its cause, counted, and shown as a metric', async () => {
  const lines: Record<string, unknown>[] = [];
  const ended: unknown[] = [];
  const log = { ...silentLog, error: (fields: object) => void lines.push(fields as Record<string, unknown>) };
  const { exception, rejection, stop } = taken(log, (error) => ended.push(error));
  const before = unexpectedCounts();
  const error = new TypeError('no such thing', { cause: new Error('because of this') });
  exception(error);
  rejection('only a text');
  assert.deepEqual(unexpectedCounts(), { exception: before.exception + 1, rejection: before.rejection + 1 });
  assert.deepEqual(ended, [error], 'a rejection ends nothing');
  assert.equal(lines[0]!.event, 'process.uncaught_exception');
  assert.equal(lines[0]!.error, 'TypeError: no such thing');
  assert.deepEqual(lines[0]!.causes, ['Error: because of this']);
  assert.match(String(lines[0]!.stack), /unexpected\.test/);
  assert.deepEqual([lines[1]!.event, lines[1]!.error], ['process.unhandled_rejection', 'only a text']);
  const metrics = new Metrics({ clock: new SystemClock(), service: 'veza', version: '1', memoryLimitMb: undefined });
  metrics.provideUnexpected('chat', () => ({ exception: 3, rejection: 4 }));
  const text = await metrics.text();
  const value = (part: string, kind: string) =>
    Number(new RegExp(`^process_unexpected_errors_total\\{part="${part}",kind="${kind}"[^}]*\\} (\\d+)`, 'm').exec(text)?.[1]);
  assert.equal(value('main', 'exception'), before.exception + 1);
  assert.equal(value('main', 'rejection'), before.rejection + 1);
  assert.deepEqual([value('chat', 'exception'), value('chat', 'rejection')], [3, 4]);
  stop();
});

test('a defect that strikes again and again is counted each time, and does not fill the log', () => {
  const lines: Record<string, unknown>[] = [];
  const { clock, rejection, stop } = taken({ ...silentLog, error: (fields) => void lines.push(fields as Record<string, unknown>) });
  const before = unexpectedCounts().rejection;
  for (let n = 0; n < 1000; n++) rejection(new Error('again'));
  assert.equal(unexpectedCounts().rejection, before + 1000);
  assert.equal(lines.length, 20);
  clock.advance(60_000);
  rejection(new Error('again'));
  assert.deepEqual([lines[20]!.event, lines[20]!.count], ['process.unexpected_errors_left_out', 980]);
  assert.equal(lines.length, 22);
  stop();
});

test('anything can be thrown, and a log that fails is no second error', () => {
  const endless = new Error('endless');
  endless.cause = endless;
  const hostile = Object.create(Error.prototype, {
    message: {
      get() {
        throw new Error('no');
      },
    },
  });
  for (const thrown of [undefined, null, 0, '', Symbol('s'), {}, Object.create(null), endless, hostile])
    assert.equal(typeof describe(thrown).error, 'string');
  const ended: unknown[] = [];
  const { exception, rejection, stop } = taken(
    {
      ...silentLog,
      error: () => {
        throw new Error('the log is gone');
      },
    },
    (error) => ended.push(error),
  );
  exception(new Error('one'));
  rejection(new Error('two'));
  assert.equal(ended.length, 1);
  stop();
});
