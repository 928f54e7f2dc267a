import { constants, type ServerHttp2Stream } from 'node:http2';
import type { Clock } from '../../runtime/clock.js';

/** Of an answer, what its client has to take within the limit of time: as much as a frame of DATA has. */
const PIECE_BYTES = 16_384;
/** After which a session whose client does not even take the end of a stream is cut. */
const CLOSE_MS = 5000;

/**
 * Ends a stream of HTTP/2 whose client takes nothing of the answer for `silenceMs`. On HTTP/1.1 that is a connection on which nothing moves; here the window of
 * one stream may be shut while pings, other streams or updates of a byte keep the session moving for ever (RFC 9113 10.5). The answer is written piece by piece,
 * so that a slow client which goes on reading is not taken for one that has stopped.
 */
export function endWhenUnread(stream: ServerHttp2Stream, clock: Clock, silenceMs: number, ended: () => void): void {
  let cancel = () => {};
  const give = stream._write.bind(stream);
  // Without it Node writes each piece by itself, and says when the client's window has let it pass.
  Object.defineProperty(stream, '_writev', { value: undefined });
  stream._write = (piece, encoding, callback) => {
    cancel = clock.after(silenceMs, () => {
      ended();
      stream.close(constants.NGHTTP2_CANCEL);
      cancel = clock.after(CLOSE_MS, () => stream.session?.destroy());
    });
    give(piece, encoding, (error) => {
      cancel();
      callback(error);
    });
  };
  stream.once('close', () => cancel());

  const write = stream.write.bind(stream) as (piece: unknown, encoding?: unknown, callback?: unknown) => boolean;
  stream.write = ((chunk: unknown, encoding?: unknown, callback?: unknown) => {
    const bytes =
      typeof chunk === 'string' ? Buffer.from(chunk, typeof encoding === 'string' ? (encoding as BufferEncoding) : 'utf8') : chunk;
    if (!(bytes instanceof Uint8Array) || bytes.length <= PIECE_BYTES) return write(chunk, encoding, callback);
    let at = 0;
    for (; at + PIECE_BYTES < bytes.length; at += PIECE_BYTES) write(bytes.subarray(at, at + PIECE_BYTES));
    return write(bytes.subarray(at), typeof encoding === 'function' ? encoding : callback);
  }) as typeof stream.write;
}
