import { constants, type ServerHttp2Stream } from 'node:http2';
import type { Clock } from '../../runtime/clock.js';

/** A client has to take this many bytes of an answer within the time limit: one DATA frame. */
const PIECE_BYTES = 16_384;
/** A session whose client does not take the end of a stream either is destroyed after this time. */
const CLOSE_MS = 5000;

/**
 * Ends an HTTP/2 stream whose client reads nothing of the answer for `silenceMs`. On HTTP/1.1
 * nothing moves on such a connection; here the window of one stream may be closed while pings,
 * other streams or updates of one byte keep the session alive for ever (RFC 9113 10.5). The answer
 * is written in pieces, so that a slow client that goes on reading is not ended.
 */
export function endWhenUnread(stream: ServerHttp2Stream, clock: Clock, silenceMs: number, ended: () => void): void {
  let cancel = () => {};
  const give = stream._write.bind(stream);
  // Without `_writev` Node writes each piece by itself, and calls back when the client's window has
  // let it pass.
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
