import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { test } from 'node:test';
import { sendMedia } from '../../src/app/playback/media-response.js';
import { RequestPlaces } from '../../src/app/playback/request-places.js';

class Answer extends EventEmitter {
  readonly written: Uint8Array[] = [];
  status = 0;
  writeHead(status: number) {
    this.status = status;
    return this;
  }
  write(bytes: Uint8Array) {
    this.written.push(bytes);
    return true;
  }
  end(bytes?: Uint8Array) {
    if (bytes) this.written.push(bytes);
    return this;
  }
}

const from = (remoteAddress: string, method = 'GET', headers = {}) =>
  ({ method, headers, socket: { remoteAddress } }) as unknown as IncomingMessage;
const asResponse = (answer: Answer) => answer as unknown as ServerResponse;

test('answers that a client does not read hold a share of the bytes, and three hundred listeners behind one address have theirs', () => {
  const counters = { refused: 0 };
  const places = new RequestPlaces({ maxWaiting: 10, counters });
  const segmentBytes = 64 * 1024;
  const take = (address: string, method = 'GET') => {
    const answer = new Answer();
    places.takeBytes(from(address, method), asResponse(answer), segmentBytes);
    return answer;
  };
  const unread: Answer[] = [];
  assert.throws(
    () => {
      for (let n = 0; n < 100_000; n++) unread.push(take(`2001:db8::${(n % 5000).toString(16)}`));
    },
    { code: 'busy' },
  );
  assert.equal(counters.refused, 1);
  assert.ok(unread.length * segmentBytes < 128 * 1024 * 1024, 'a fifth of all for one /64');
  take('2001:db8::1', 'HEAD');
  const crowd = Array.from({ length: 300 }, () => take('198.51.100.7'));
  for (const answer of [...crowd, ...unread]) answer.emit('close');
  assert.doesNotThrow(() => take('2001:db8::1'), 'what is read, or whose client has gone, is given back');
});

test('media is sent from the buffers that all readers share, a range as views of them', () => {
  const chunks = [Buffer.from('abcd'), Buffer.from('efgh'), Buffer.from('ijkl')];
  const media = { chunks, contentType: 'audio/mp4', cacheControl: 'no-store', tag: 'x' };
  const send = (headers = {}, method = 'GET') => {
    const answer = new Answer();
    sendMedia(from('192.0.2.1', method, headers), asResponse(answer), media);
    return answer;
  };
  const whole = send();
  assert.deepEqual([whole.status, whole.written.length], [200, 3]);
  for (const [index, chunk] of chunks.entries()) assert.equal(whole.written[index], chunk);
  for (const [range, text] of [
    ['bytes=0-11', 'abcdefghijkl'],
    ['bytes=2-5', 'cdef'],
    ['bytes=4-7', 'efgh'],
    ['bytes=-1', 'l'],
    ['bytes=3-3', 'd'],
    ['bytes=8-', 'ijkl'],
  ] as const) {
    const part = send({ range });
    assert.deepEqual([part.status, Buffer.concat(part.written).toString()], [206, text], range);
    for (const piece of part.written)
      assert.ok(chunks.some((chunk) => chunk.buffer === piece.buffer && piece.byteOffset >= chunk.byteOffset));
  }
  assert.deepEqual(send({}, 'HEAD').written, []);
});
