import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BodyReader, checkHost, framingOf, HeadParser, HttpRefusal, type RequestHead } from '../../src/ingest/http/wire.js';

const HEAD_LIMITS = { headBytes: 16 * 1024, headers: 100 };
const CHUNK_LIMITS = { chunkBytes: 1000, chunkLineBytes: 32, chunkExtraBytes: 64 };

function parse(text: string, cuts: readonly number[] = [], limits = HEAD_LIMITS): { head: RequestHead; rest: string } | undefined {
  const bytes = Buffer.from(text, 'latin1');
  const parser = new HeadParser(limits);
  const edges = [...new Set([0, ...cuts, bytes.length])].filter((at) => at <= bytes.length).sort((a, b) => a - b);
  for (const [index, from] of edges.entries()) {
    const piece = bytes.subarray(from, edges[index + 1] ?? bytes.length);
    const parsed = parser.push(piece);
    if (parsed) return { head: parsed.head, rest: bytes.toString('latin1', from + parsed.used) };
  }
  return undefined;
}

const refused = (status: number) => (error: unknown) => error instanceof HttpRefusal && error.status === status;

const SOURCE =
  'SOURCE /radio ICE/1.0\r\nAuthorization: Basic c291cmNlOnNlY3JldA==\r\nUser-Agent: darkice/1.3\r\nice-name: Caf\xe9 \r\nX-A:1\r\nx-a:\t2\r\n\r\nbody\r\n';

test('http head: the same however it is cut', () => {
  const whole = parse(SOURCE)!;
  assert.equal(whole.rest, 'body\r\n');
  assert.deepEqual(
    { ...whole.head, headers: Object.fromEntries(whole.head.headers) },
    {
      method: 'SOURCE',
      path: '/radio',
      query: '',
      version: 'ICE/1.0',
      headers: { authorization: 'Basic c291cmNlOnNlY3JldA==', 'user-agent': 'darkice/1.3', 'ice-name': 'Caf\xe9', 'x-a': '1, 2' },
    },
  );
  for (let cut = 0; cut <= SOURCE.length; cut++) assert.deepEqual(parse(SOURCE, [cut]), whole, `cut at ${cut}`);
  assert.deepEqual(
    parse(
      SOURCE,
      Array.from(SOURCE, (_, at) => at),
    ),
    whole,
    'byte by byte',
  );
});

test('http head: bare line feeds, an empty line before, an absolute address', () => {
  const parsed = parse('\r\nGET http://host:8000/admin/metadata?mode=updinfo&song=a?b HTTP/1.0\nHost: x\n\n')!;
  assert.deepEqual([parsed.head.path, parsed.head.query, parsed.head.version], ['/admin/metadata', 'mode=updinfo&song=a?b', 'HTTP/1.0']);
  assert.equal(parse('GET http://host HTTP/1.1\r\n\r\n')!.head.path, '/');
});

const BROKEN: readonly [name: string, text: string, status: number][] = [
  ['no version', 'GET /\r\n\r\n', 400],
  ['two spaces', 'GET  / HTTP/1.1\r\n\r\n', 400],
  ['a method that is no token', 'G(T / HTTP/1.1\r\n\r\n', 400],
  ['an address without a slash', 'GET radio HTTP/1.1\r\n\r\n', 400],
  ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\n', 505],
  ['another protocol', 'DESCRIBE rtsp://x RTSP/1.0\r\n\r\n', 400],
  ['a folded header', 'GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n', 400],
  ['a space before the colon', 'GET / HTTP/1.1\r\nA : b\r\n\r\n', 400],
  ['a header without a name', 'GET / HTTP/1.1\r\n: b\r\n\r\n', 400],
  ['a header without a colon', 'GET / HTTP/1.1\r\nabc\r\n\r\n', 400],
  ['a bare carriage return', 'GET / HTTP/1.1\r\nA: b\rc: d\r\n\r\n', 400],
  ['a zero byte', 'GET / HTTP/1.1\r\nA: b\0\r\n\r\n', 400],
  ['TLS', '\x16\x03\x01\x02\x00\x01\x00', 400],
  ['two lengths', 'PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n', 400],
  ['two Hosts', 'GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n', 400],
  ['a first header that is folded', 'GET / HTTP/1.1\r\n A: b\r\n\r\n', 400],
  ['an absolute address without a host', 'GET http:///radio HTTP/1.1\r\n\r\n', 400],
  ['an absolute address whose host is none', 'GET http://[%]/ HTTP/1.1\r\n\r\n', 400],
  ['an absolute address with a user', 'GET http://user@host/ HTTP/1.1\r\n\r\n', 400],
  ['an absolute address of another scheme', 'GET https://host/ HTTP/1.1\r\n\r\n', 400],
  ['an authority', 'CONNECT host:8000 HTTP/1.1\r\n\r\n', 400],
  ['an asterisk that is not of OPTIONS', 'GET * HTTP/1.1\r\n\r\n', 400],
  ['a broken escape', 'GET /%zz HTTP/1.1\r\n\r\n', 400],
  ['a byte above ASCII in the path', 'GET /caf\xe9 HTTP/1.1\r\n\r\n', 400],
  ['a fragment', 'GET /a#b HTTP/1.1\r\n\r\n', 400],
  ['two authorizations', 'PUT / HTTP/1.1\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n', 400],
];

for (const [name, text, status] of BROKEN) {
  test(`http head: ${name} is refused`, () => {
    assert.throws(() => parse(text), refused(status));
    assert.throws(
      () =>
        parse(
          text,
          Array.from(text, (_, at) => at),
        ),
      refused(status),
    );
  });
}

test('http head: a higher minor version is understood, unreserved escapes are letters, a query may be as encoders write it', () => {
  assert.equal(parse('GET / HTTP/1.2\r\n\r\n')!.head.version, 'HTTP/1.1');
  assert.equal(parse('GET /r%61dio%2F HTTP/1.1\r\n\r\n')!.head.path, '/radio%2F');
  assert.equal(parse('GET /admin/metadata?song=100%&x=caf\xe9#1 HTTP/1.1\r\n\r\n')!.head.query, 'song=100%&x=caf\xe9#1');
});

test('http head: Host', () => {
  const check = (version: RequestHead['version'], host: string | undefined) =>
    checkHost({ version, headers: new Map(host === undefined ? [] : [['host', host]]) });
  assert.throws(() => check('HTTP/1.1', undefined), refused(400));
  check('HTTP/1.0', undefined);
  check('ICE/1.0', undefined);
  for (const host of ['', 'x', 'x:8000', '192.0.2.1:80', '[2001:db8::1]:8000', '2001:db8::1:8000', 'a_b.example', 'x:'])
    check('HTTP/1.1', host);
  for (const host of ['a b', 'a/b', 'a@b', '[::1', '[x]', 'x:y', 'x:1:2', 'x, y', 'x:123456', '%', '[%]', '<x>', 'http://x']) {
    assert.throws(() => check('HTTP/1.1', host), refused(400), host);
  }
});

test('http head: its limits, and one past them', () => {
  const limits = { headBytes: 60, headers: 2 };
  const padded = (size: number) => `GET / HTTP/1.1\r\nA: ${'x'.repeat(size - 23)}\r\n\r\n`;
  assert.equal(padded(60).length, 60);
  assert.ok(parse(padded(60), [], limits));
  assert.throws(() => parse(padded(61), [], limits), refused(431));
  assert.throws(() => parse('x'.repeat(61), [], limits), refused(431));
  assert.ok(parse('GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\n\r\n', [], limits));
  assert.throws(() => parse('GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n', [], limits), refused(431));
});

test('http head: any bytes give a head, a refusal or the wish for more, cut anywhere', () => {
  const piece = fc.oneof(
    fc.constantFrom('GET', 'SOURCE', ' ', '/', 'HTTP/1.1', '\r\n', '\n', '\r', ':', 'A: b', 'Content-Length: 3', '\0', '\t', '%'),
    fc.string({ maxLength: 5 }),
  );
  const outcome = (text: string, cuts: readonly number[]) => {
    try {
      const parsed = parse(text, cuts, { headBytes: 100, headers: 5 });
      return parsed && { ...parsed, head: { ...parsed.head, headers: [...parsed.head.headers] } };
    } catch (error) {
      if (!(error instanceof HttpRefusal)) throw error;
      return 'refused';
    }
  };
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 30 }), fc.array(fc.nat(150), { maxLength: 6 }), (pieces, cuts) => {
      const text = Buffer.from(pieces.join('')).toString('latin1');
      assert.deepEqual(outcome(text, cuts), outcome(text, []));
    }),
    { numRuns: 2000 },
  );
});

const headWith = (headers: Record<string, string>, version: RequestHead['version'] = 'HTTP/1.1'): RequestHead => ({
  method: 'POST',
  path: '/',
  query: '',
  version,
  headers: new Map(Object.entries(headers)),
});

test('http framing: one reading or a refusal', () => {
  assert.deepEqual(framingOf(headWith({})), { kind: 'none' });
  assert.deepEqual(framingOf(headWith({ 'content-length': '12' })), { kind: 'length', bytes: 12 });
  assert.deepEqual(framingOf(headWith({ 'transfer-encoding': 'Chunked' })), { kind: 'chunked' });
  assert.throws(() => framingOf(headWith({ 'transfer-encoding': 'chunked', 'content-length': '3' })), refused(400));
  assert.throws(() => framingOf(headWith({ 'transfer-encoding': 'chunked' }, 'HTTP/1.0')), refused(400));
  assert.throws(() => framingOf(headWith({ 'transfer-encoding': 'gzip, chunked' })), refused(501));
  for (const length of ['-1', '+1', '1,1', '0x1', '', '1e3', '9'.repeat(16)]) {
    assert.throws(() => framingOf(headWith({ 'content-length': length })), refused(400), length);
  }
});

function readBody(text: string, step = text.length): { data: string; done: boolean } {
  const reader = new BodyReader({ kind: 'chunked' }, CHUNK_LIMITS);
  const bytes = Buffer.from(text, 'latin1');
  let data = '';
  for (let at = 0; at < bytes.length; at += step) {
    reader.push(bytes.subarray(at, at + step), (piece) => {
      data += piece.toString('latin1');
    });
  }
  return { data, done: reader.done };
}

test('http body: chunks, extensions and trailers, cut in any size', () => {
  const text = '4\r\nabcd\r\n00A;x="y" \r\n0123456789\r\n1 \r\n\r\r\n0\r\nA: b\r\n\r\nwhat comes after';
  for (let step = 1; step <= text.length; step++)
    assert.deepEqual(readBody(text, step), { data: 'abcd0123456789\r', done: true }, `${step}`);
  assert.deepEqual(readBody('4\r\nabcd\r\n0\r\n'), { data: 'abcd', done: false });
});

test('http body: broken chunks and limits one past', () => {
  for (const text of [
    'x\r\n',
    '\r\n',
    '4\nabcd',
    '3\r\nabcd\r\n',
    '-1\r\n',
    '0x4\r\n',
    ' 4\r\n',
    '4 4\r\n',
    '1234567890123\r\n',
    '1;a\rb\r\n',
    '0\r\nno trailer\r\n\r\n',
    '0\r\n a: b\r\n\r\n',
    '+1\r\n',
    '1\r\nab\r\n',
    '1e\xff\r\n',
  ]) {
    assert.throws(() => readBody(text), refused(400), JSON.stringify(text));
    assert.throws(() => readBody(text, 1), refused(400), JSON.stringify(text));
  }
  assert.equal(readBody(`3e8\r\n${'x'.repeat(1000)}\r\n`).data.length, 1000);
  assert.throws(() => readBody('3e9\r\n'), refused(413));
  assert.equal(readBody(`1;${'x'.repeat(28)}\r\na`).data, 'a');
  assert.throws(() => readBody(`1;${'x'.repeat(29)}\r\na`), refused(413));
  assert.throws(() => readBody('1'.repeat(33)), refused(413));
  const extension = `1;${'x'.repeat(15)}\r\na\r\n`;
  assert.equal(readBody(extension.repeat(4)).data, 'aaaa');
  assert.throws(() => readBody(`${extension.repeat(4)}1;\r\na`), refused(413));
});

test('http body: any chunking gives back what went in', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ minLength: 1, maxLength: 60 }), { maxLength: 10 }),
      fc.integer({ min: 1, max: 70 }),
      (chunks, step) => {
        const wire = chunks.map((chunk) => `${chunk.length.toString(16)}\r\n${Buffer.from(chunk).toString('latin1')}\r\n`).join('');
        const read = readBody(`${wire}0\r\n\r\n`, step);
        assert.deepEqual(read, { data: Buffer.concat(chunks).toString('latin1'), done: true });
      },
    ),
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      try {
        readBody(Buffer.from(bytes).toString('latin1'), 7);
      } catch (error) {
        if (!(error instanceof HttpRefusal)) throw error;
      }
    }),
  );
});

test('http body: by length, and what comes after it is ignored', () => {
  const reader = new BodyReader({ kind: 'length', bytes: 5 }, CHUNK_LIMITS);
  let data = '';
  for (const piece of ['ab', 'cd', 'efgh']) reader.push(Buffer.from(piece), (bytes) => (data += bytes));
  assert.deepEqual([data, reader.done], ['abcde', true]);
  assert.equal(new BodyReader({ kind: 'length', bytes: 0 }, CHUNK_LIMITS).done, true);
});
