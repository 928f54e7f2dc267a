import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BoundedLog } from '../../src/runtime/bounded-log.js';
import { FakeClock } from '../../src/runtime/clock.js';

function world() {
  const lines: { level: string; fields: Record<string, unknown>; message: string }[] = [];
  const write = (level: string) => (fields: object, message: string) => void lines.push({ level, fields: { ...fields }, message });
  const clock = new FakeClock();
  const log = new BoundedLog({ info: write('info'), warn: write('warn'), error: write('error') }, clock, { perPeriod: 3, periodMs: 1000 });
  return { lines, clock, log };
}

test('of a flood of one kind the first lines are written, and after the period one with the count', () => {
  const { lines, clock, log } = world();
  for (let line = 0; line < 1000; line++) log.warn({ event: 'test.line', line, code: 'unauthorized' }, 'refused');
  assert.deepEqual(
    lines.map(({ fields }) => fields.line),
    [0, 1, 2],
  );
  // Nothing more comes: the count is told all the same.
  clock.advance(1000);
  assert.deepEqual(lines.slice(3), [
    { level: 'warn', fields: { event: 'log.lines_left_out', of: 'test.line', code: 'unauthorized', leftOut: 997 }, message: 'refused' },
  ]);
  log.warn({ event: 'test.line', code: 'unauthorized' }, 'refused');
  assert.equal(lines.length, 5);
});

test('a flood of one kind takes no line of another level, message or code', () => {
  const { lines, log } = world();
  for (let line = 0; line < 100; line++) log.info({ event: 'test.line', code: 'a' }, 'refused');
  log.info({ event: 'test.line', code: 'b' }, 'refused');
  log.info({ event: 'test.line', code: 'a' }, 'failed');
  log.error({ event: 'test.line', code: 'a' }, 'refused');
  assert.equal(lines.length, 6);
});

test('a period that goes on from line to line is ended by the next line, and close leaves no timer', () => {
  const { lines, clock, log } = world();
  for (let line = 0; line < 100; line++) {
    log.error({ event: 'test.line' }, 'refused');
    clock.advance(100);
  }
  // Ten periods of ten lines: three and the count of each.
  assert.equal(lines.length, 40);
  for (let line = 0; line < 9; line++) log.error({ event: 'test.line' }, 'refused');
  log.close();
  assert.deepEqual(lines.at(-1)!.fields, { event: 'log.lines_left_out', of: 'test.line', leftOut: 6 });
  const before = lines.length;
  log.close();
  clock.advance(10_000);
  assert.equal(lines.length, before);
});

test('kinds without end are written as one', () => {
  const { lines, clock, log } = world();
  for (let code = 0; code < 1000; code++) log.warn({ event: 'test.line', code: `c${code}` }, 'refused');
  assert.equal(lines.length, 103);
  clock.advance(1000);
  assert.deepEqual(lines.at(-1), {
    level: 'warn',
    fields: { event: 'log.lines_left_out', of: 'other', leftOut: 897 },
    message: 'other lines',
  });
  assert.equal(lines.length, 104);
});
