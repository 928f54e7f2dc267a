import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { takeUnexpectedErrors } from '../../src/runtime/unexpected.js';

/** Errors that nobody took, from now until the end of the test: they fail it no more. */
export function unexpectedIn(t: { after(run: () => void): void }): unknown[] {
  const errors: unknown[] = [];
  t.after(takeUnexpectedErrors({ clock: new FakeClock(), log: silentLog, onException: (error) => errors.push(error) }));
  return errors;
}
