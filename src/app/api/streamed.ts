import { Readable } from 'node:stream';
import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';
import { Loop } from '../../runtime/loop.js';

/** A failure before the first piece is answered as a problem document. After it the connection is cut, so that nobody takes a half for the whole. */
export async function streamed(pieces: AsyncIterable<string>): Promise<Readable> {
  const iterator = pieces[Symbol.asyncIterator]();
  const first = await iterator.next();
  return Readable.from(
    (async function* () {
      if (first.done) return;
      yield first.value;
      yield* { [Symbol.asyncIterator]: () => iterator };
    })(),
  );
}

/** How often a client's right to read on is checked. */
const RECHECK_MS = 2000;
const LOST: readonly string[] = ['unauthorized', 'forbidden', 'not_found', 'second_factor_missing'];

/** Ends the stream within five seconds after `check` would refuse it. While the database is away and cannot tell, the stream goes on. */
export function whileAllowed(stream: Readable, clock: Clock, check: () => Promise<void>): Readable {
  const checks = new Loop({
    clock,
    periodMs: RECHECK_MS,
    task: check,
    onError: (error) => {
      if (error instanceof VezaError && LOST.includes(error.code)) stream.destroy(error);
    },
  });
  checks.start();
  stream.once('close', () => void checks.stop());
  return stream;
}
