import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { type HttpListener, listenHttp } from '../../src/app/http/listener.js';
import { SystemClock } from '../../src/runtime/clock.js';

/**
 * Requests of whose end a proxy and we might think differently. What keeps us from taking the rest of one for the next is Node's parser in its
 * strict mode: these fail when the process is started with `--insecure-http-parser`.
 */
let listener: HttpListener;
/** What reached the application. */
let seen: string[] = [];

before(async () => {
  listener = await listenHttp(
    (req, res) => {
      let body = '';
      req.on('data', (bytes) => {
        body += bytes;
      });
      req.on('error', () => undefined);
      req.on('end', () => {
        seen.push(`${req.method} ${req.url} ${body}`);
        res.end('there\n');
      });
    },
    { host: '127.0.0.1', port: 0 },
    new SystemClock(),
  );
});
after(() => listener.stop(0));

/** Sends it all at once, and reads until the server closes, or until it has answered `answers` times. */
const send = (bytes: string | Buffer, answers = Number.POSITIVE_INFINITY) =>
  new Promise<string[]>((resolve) => {
    seen = [];
    let text = '';
    const socket = connect(listener.port, '127.0.0.1');
    const statuses = () => [...text.matchAll(/^HTTP\/1\.1 (\d{3})/gm)].map((match) => match[1]!);
    socket.on('data', (got) => {
      text += got.toString('latin1');
      if (statuses().length >= answers && text.endsWith('there\n')) socket.destroy();
    });
    socket.on('error', () => undefined);
    // Only where a guard is gone: a connection that is kept waits for the next request.
    socket.setTimeout(3000, () => socket.destroy());
    socket.on('close', () => resolve(statuses()));
    socket.write(bytes);
  });

const SMUGGLED = 'GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n';
const post = (headers: string, body: string) => `POST / HTTP/1.1\r\nHost: x\r\n${headers}\r\n\r\n${body}`;

describe('refused, with nothing of it taken for another request', () => {
  const chunked = `0\r\n\r\n${SMUGGLED}`;
  const hidden = `${SMUGGLED.length.toString(16)}\r\n${SMUGGLED}\r\n0\r\n\r\n`;
  for (const [name, bytes] of Object.entries({
    'Content-Length, then Transfer-Encoding': post(`Content-Length: ${chunked.length}\r\nTransfer-Encoding: chunked`, chunked),
    'Transfer-Encoding, then Content-Length': post(`Transfer-Encoding: chunked\r\nContent-Length: ${chunked.length}`, chunked),
    'Content-Length of 0 with chunks': post('Content-Length: 0\r\nTransfer-Encoding: chunked', hidden),
    'two lengths': post(`Content-Length: 0\r\nContent-Length: ${SMUGGLED.length}`, SMUGGLED),
    'twice the same length': post('Content-Length: 2\r\nContent-Length: 2', 'ab'),
    'a list of lengths': post('Content-Length: 0, 5', SMUGGLED),
    'a negative length': post('Content-Length: -1', SMUGGLED),
    'a length with a sign': post('Content-Length: +2', `ab${SMUGGLED}`),
    'a hexadecimal length': post('Content-Length: 0x2', `ab${SMUGGLED}`),
    'a length with a space in it': post('Content-Length: 2 0', `ab${SMUGGLED}`),
    'an empty length': post('Content-Length:', SMUGGLED),
    'a length beyond all numbers': post('Content-Length: 18446744073709551617', SMUGGLED),
    'a space before the colon of Content-Length': post(`Content-Length : ${SMUGGLED.length}`, SMUGGLED),
    'a space before the colon of Transfer-Encoding': post('Transfer-Encoding : chunked', hidden),
    'a space before the name': post(' Transfer-Encoding: chunked', hidden),
    'a tab before the colon': post('Transfer-Encoding\t: chunked', hidden),
    'an unknown transfer coding': post('Transfer-Encoding: xchunked', hidden),
    'chunked that is not the last': post('Transfer-Encoding: chunked, identity', hidden),
    identity: post('Transfer-Encoding: identity', hidden),
    'two transfer codings': post('Transfer-Encoding: chunked\r\nTransfer-Encoding: identity', hidden),
    'chunked with a vertical tab': post('Transfer-Encoding: \x0bchunked', hidden),
    'chunked with a NUL': post('Transfer-Encoding: chunked\0', hidden),
    quoted: post('Transfer-Encoding: "chunked"', hidden),
    'a folded Transfer-Encoding': post('Transfer-Encoding:\r\n chunked', hidden),
    'a folded line': post(`X: a\r\n Content-Length: ${SMUGGLED.length}\r\nContent-Length: 0`, SMUGGLED),
    'line feeds alone': `POST / HTTP/1.1\nHost: x\nContent-Length: ${SMUGGLED.length}\n\n${SMUGGLED}`,
    'a line feed alone within the head': post(`X: a\nContent-Length: ${SMUGGLED.length}`, SMUGGLED),
    'a carriage return alone': post(`X: a\rContent-Length: ${SMUGGLED.length}`, SMUGGLED),
    'a carriage return alone at the end of the head': `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\rX${SMUGGLED}`,
    'a NUL in a name': post('X\0Y: a', SMUGGLED),
    'a field without a colon': post('Content-Length', SMUGGLED),
    'a field without a name': post(': a', SMUGGLED),
    'no Host': 'GET / HTTP/1.1\r\n\r\n',
    'two Hosts': 'GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n',
    'two Hosts, in different letters': 'GET / HTTP/1.1\r\nhost: x\r\nHOST: y\r\n\r\n',
    'a chunk size with 0x': post('Transfer-Encoding: chunked', `0x2\r\nab\r\n0\r\n\r\n${SMUGGLED}`),
    'a chunk size that is negative': post('Transfer-Encoding: chunked', `-2\r\nab\r\n0\r\n\r\n${SMUGGLED}`),
    'a chunk size that is none': post('Transfer-Encoding: chunked', `\r\nab\r\n0\r\n\r\n${SMUGGLED}`),
    'a chunk size beyond all numbers': post('Transfer-Encoding: chunked', `10000000000000000\r\nab\r\n0\r\n\r\n${SMUGGLED}`),
    'a chunk size followed by a space': post('Transfer-Encoding: chunked', `2 \r\nab\r\n0\r\n\r\n${SMUGGLED}`),
    'a chunk that is longer than it says': post('Transfer-Encoding: chunked', `2\r\nabc\r\n0\r\n\r\n${SMUGGLED}`),
    'a chunk size ended by a line feed alone': post('Transfer-Encoding: chunked', `2\nab\r\n0\r\n\r\n${SMUGGLED}`),
    'a chunk ended by a line feed alone': post('Transfer-Encoding: chunked', `2\r\nab\n0\r\n\r\n${SMUGGLED}`),
    'a chunk extension with a line feed': post('Transfer-Encoding: chunked', `2;a\nb\r\nab\r\n0\r\n\r\n${SMUGGLED}`),
    'chunk extensions of megabytes': post('Transfer-Encoding: chunked', `2;${'a'.repeat(1 << 20)}\r\nab\r\n0\r\n\r\n${SMUGGLED}`),
    'HTTP/0.9': 'GET /\r\n\r\n',
    'HTTP/2.0 in words': 'GET / HTTP/2.0\r\nHost: x\r\n\r\n',
    'a version that there is not': 'GET / HTTP/1.2\r\nHost: x\r\n\r\n',
    'the preface of HTTP/2': 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    'a version with spaces': 'GET / HTTP/ 1.1\r\nHost: x\r\n\r\n',
    'a line feed in the address': 'GET /\n/ HTTP/1.1\r\nHost: x\r\n\r\n',
    'an unknown method': 'GETS / HTTP/1.1\r\nHost: x\r\n\r\n',
    'TLS on the plain port': Buffer.from('16030100050100000100', 'hex'),
  })) {
    test(name, async () => {
      const statuses = await send(bytes);
      assert.ok(statuses.length <= 1, `${statuses}`);
      assert.match(statuses[0] ?? '400', /^(?:400|413|431|501|505)$/);
      assert.deepEqual(
        seen.filter((request) => request.includes('smuggled')),
        [],
      );
      assert.deepEqual(seen, []);
    });
  }
});

describe('taken as what it is', () => {
  test('chunks with extensions and trailers', async () => {
    const body = '2;name=value;other="quoted"\r\nab\r\n0\r\nX-Trailer: y\r\n\r\n';
    assert.deepEqual(await send(post('Transfer-Encoding: chunked', body) + SMUGGLED, 2), ['200', '200']);
    assert.deepEqual(seen, ['POST / ab', 'GET /smuggled ']);
  });

  test('a body that looks like a request', async () => {
    assert.deepEqual(await send(post(`Content-Length: ${SMUGGLED.length}`, SMUGGLED), 1), ['200']);
    assert.deepEqual(seen, [`POST / ${SMUGGLED}`]);
  });

  test('an offer to change to HTTP/2 is not taken up', async () => {
    const upgrade = 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__';
    assert.deepEqual(await send(`GET / HTTP/1.1\r\nHost: x\r\n${upgrade}\r\n\r\n`, 1), ['200']);
    assert.deepEqual(seen, ['GET / ']);
  });

  test('CONNECT leads nowhere', async () => {
    assert.deepEqual(await send(`CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n${SMUGGLED}`), ['501']);
    assert.deepEqual(seen, []);
  });
});
