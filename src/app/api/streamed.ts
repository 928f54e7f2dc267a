import { Readable } from 'node:stream';
import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';
import { Loop } from '../../runtime/loop.js';

/**
 * Turns pieces of text into a stream. An error before the first piece becomes a problem document; a
 * later one cuts the connection, so that nobody takes half for the whole.
 */
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

/** How often a client's right to go on reading is checked. */
const RECHECK_MS = 2000;
const LOST: readonly string[] = ['unauthorized', 'forbidden', 'not_found', 'second_factor_missing'];

/**
 * Ends the stream within five seconds after `check` begins to refuse. While the database is
 * unavailable and cannot tell, the stream goes on.
 */
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
