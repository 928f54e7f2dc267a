import assert from 'node:assert/strict';
import type { RequestListener } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { problemSchema } from '../../src/app/api/openapi.js';
import { ConnectionLimits } from '../../src/app/http/connection-limits.js';
import { type HttpListener, listenHttp } from '../../src/app/http/listener.js';
import { startMetricsServer } from '../../src/app/http/metrics-server.js';
import { SystemClock } from '../../src/runtime/clock.js';
import { ERROR_CODES, type ErrorCode } from '../../src/runtime/errors.js';
import { type Log, silentLog } from '../../src/runtime/log.js';
import { Metrics } from '../../src/runtime/metrics.js';
import { startApp, type TestApp } from '../support/app.js';
import { TestAuthority } from '../support/certificates.js';
import { type RawAnswer, sendRaw } from '../support/raw-http.js';

/** Heads of requests, on every way in by which a listener meets one: what is refused never reaches the handler. */
const clock = new SystemClock();
const logged: string[] = [];
const log: Log = { ...silentLog, error: (_fields: object, text?: string) => logged.push(text ?? '') } as Log;
const connections = new ConnectionLimits({ total: 100, perAddress: 100 });
let listener: HttpListener;
let release = () => {};
let held = () => {};

const handler: RequestListener = (req, res) => {
  const { method, url, headers } = req;
  if (url === '/throws') throw new Error('thrown');
  if (url === '/rejects') return Promise.reject(new Error('rejected'));
  if (url === '/waits') {
    release = () => res.end('waited');
    held();
    return undefined;
  }
  if (url === '/unread') {
    res.writeHead(401);
    res.end();
    return undefined;
  }
  let body = '';
  req.on('data', (bytes) => (body += bytes));
  req.on('error', () => undefined);
  req.on('end', () => res.end([method, url, headers.host ?? headers[':authority'], body].join(' ')));
  return undefined;
};

before(async () => {
  listener = await listenHttp(handler, { host: '127.0.0.1', port: 0, connections, log }, clock);
  listener.onUpgrade((req, socket) => socket.end(`HTTP/1.1 101 Switching Protocols\r\n\r\n${req.url} ${req.headers.host}`));
});
after(() => listener.stop(0));

const send = (bytes: string, answers?: number) => sendRaw(listener.port, bytes, answers === undefined ? {} : { answers });
const get = async (target: string, more = '', host = 'Host: x\r\n') => {
  const answers = await send(`GET ${target} HTTP/1.1\r\n${host}${more}\r\n`, 1);
  assert.equal(answers.length, 1, `${target}: ${JSON.stringify(answers)}`);
  return answers[0]!;
};
function assertProblem(answer: RawAnswer | undefined, code: ErrorCode, what = ''): void {
  assert.ok(answer, `${what} is answered`);
  assert.equal(answer.headers['content-type'], 'application/problem+json', `${what} ${answer.status}`);
  const problem = problemSchema.parse(JSON.parse(answer.body));
  assert.deepEqual([answer.status, problem.code], [ERROR_CODES[code], code], what);
}

describe('the target of a request', () => {
  test('an absolute address is brought into origin form, and its host is the one that counts', async () => {
    for (const [target, origin, host] of [
      ['http://radio.example/live/x?a=b', '/live/x?a=b', 'radio.example'],
      ['HTTPS://radio.example:8443/', '/', 'radio.example:8443'],
      ['http://radio.example', '/', 'radio.example'],
      ['http://radio.example?a', '/?a', 'radio.example'],
      ['http://[2001:db8::1]:80//x', '//x', '[2001:db8::1]:80'],
      ['http://xn--/', '/', 'xn--'],
      ['/x?http://[%]/', '/x?http://[%]/', 'x'],
      ['//a@[%]/', '//a@[%]/', 'x'],
    ] as const)
      assert.equal((await get(target)).body, `GET ${origin} ${host} `);
  });

  for (const target of [
    'http://[%]/',
    'http://[%25]/',
    'http://a@b/',
    'http://:80/',
    'http:///x',
    'http://',
    'http:',
    'http://[::1]:99999/',
    'http://[1.2.3.4]/',
    'http://a b/',
    'http://a\\b/',
    'http://%zz/',
    'ftp://x/',
    'ws://x/chat',
    'javascript:alert(1)',
    'a:b',
    'x',
    '?',
    '#',
    '/x#y',
    '//a@[%]/#',
    '//a@[%]/\u00a0',
    '/\u00e4',
    '*',
    '**',
    'http://x/#y',
  ])
    test(`${JSON.stringify(target)} is refused`, async () => {
      // Raw bytes of 128 and above are one character each here.
      const answers = await sendRaw(listener.port, Buffer.from(`GET ${target} HTTP/1.1\r\nHost: x\r\n\r\n`, 'latin1'));
      assert.equal(answers.length, 1);
      assertProblem(answers[0], 'bad_request', target);
      assert.equal(answers[0]!.headers.connection, 'close');
      const upgrade = `GET ${target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`;
      assertProblem((await sendRaw(listener.port, Buffer.from(upgrade, 'latin1')))[0], 'bad_request', 'with an offer to upgrade');
    });

  test('an asterisk asks about the server, by OPTIONS alone', async () => {
    for (const target of ['*', 'http://x']) {
      const [answer] = await send(`OPTIONS ${target} HTTP/1.1\r\nHost: x\r\n\r\n`, 1);
      assert.equal(answer?.status, 204);
      assert.match(answer?.headers.allow ?? '', /GET/);
      assert.equal(answer?.headers['content-length'], undefined);
    }
  });

  test('CONNECT is refused, whatever it names', async () => {
    for (const target of ['x:80', '[%]:80', 'x', '/'])
      assert.match(String((await send(`CONNECT ${target} HTTP/1.1\r\nHost: x\r\n\r\n`))[0]?.status), /^(?:400|501)$/, target);
    assertProblem((await send('CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n'))[0], 'not_implemented');
  });
});

test('a Host that can be none is refused, also with an absolute address and with an offer to upgrade', async () => {
  const upgrade = 'Connection: Upgrade\r\nUpgrade: websocket\r\n';
  for (const value of ['[%', '[]', '[::1', 'a b', 'a/b', 'a@b', 'a:b', 'a:99999', 'http://a', '\u00e4', 'a,b c', '%'])
    for (const [target, more] of [
      ['/', ''],
      ['http://x/', ''],
      ['/', upgrade],
    ])
      assertProblem(await get(target!, more, `Host: ${value}\r\n`), 'bad_request', `${value} ${target} ${more}`);
  for (const value of ['', 'xn--', 'a_b', '[::1]', '[::1]:80', 'a:', '1.2.3.4:80', '%61'])
    assert.equal((await get('/', '', `Host: ${value}\r\n`)).body, `GET / ${value} `);
  assertProblem(await get('/', '', ''), 'bad_request', 'none');
  assertProblem(await get('/', upgrade, ''), 'bad_request', 'none, with an offer to upgrade');
  assert.equal((await send('GET / HTTP/1.0\r\n\r\n'))[0]?.body, 'GET /  ');
});

test('a transfer coding that is not undone is refused, not passed on', async () => {
  const post = (version: string, fields: string) => send(`POST / HTTP/${version}\r\nHost: x\r\n${fields}\r\n\r\n0\r\n\r\n`, 1);
  assertProblem((await post('1.1', 'Transfer-Encoding: gzip, chunked'))[0], 'not_implemented');
  assertProblem((await post('1.1', 'Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked'))[0], 'not_implemented');
  assertProblem((await post('1.1', 'Transfer-Encoding: chunked, chunked'))[0], 'bad_request');
  assertProblem((await post('1.0', 'Transfer-Encoding: chunked'))[0], 'bad_request');
  assert.equal((await post('1.1', 'Transfer-Encoding: Chunked'))[0]?.status, 200);
});

test('what the parser refuses is a problem document, too', async () => {
  for (const [bytes, code] of [
    ['GET /\r\n\r\n', 'version_not_supported'],
    ['GET / HTTP/1.1\nHost: x\n\n', 'bad_request'],
    ['GET / HTTP/1.0\n\n', 'bad_request'],
    ['GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n', 'bad_request'],
    ['GET / HTTP/1.1\r\nHost: x\r\n\n', 'bad_request'],
    ['GET / HTTP/1.1 \r\nHost: x\r\n\r\n', 'bad_request'],
    ['GET / HTTP/1.11\r\nHost: x\r\n\r\n', 'bad_request'],
    ['\x16\x03\x01\0', 'bad_request'],
    ['GETS / HTTP/1.1\r\n\r\n', 'bad_request'],
    ['GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n', 'bad_request'],
    ['POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n', 'bad_request'],
    ['GET / HTTP/3.1\r\nHost: x\r\n\r\n', 'version_not_supported'],
    [`GET / HTTP/1.1\r\nHost: x\r\nA: ${'b'.repeat(17_000)}\r\n\r\n`, 'head_too_large'],
    [`POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;${'a'.repeat(1 << 15)}\r\n`, 'payload_too_large'],
  ] as const)
    assertProblem((await send(bytes))[0], code, bytes.slice(0, 40));
});

describe('bytes behind a request that came whole take nothing from its answer, and end the connection', () => {
  /** Answers once everything that came in one piece has been read. */
  const answered = async (bytes: string) => {
    const isHeld = new Promise<void>((resolve) => {
      held = resolve;
    });
    const answers = send(bytes);
    await isHeld;
    await get('/beside');
    release();
    return (await answers).map(({ status, body }) => `${status} ${body.startsWith('{') ? JSON.parse(body).code : body}`);
  };
  const waits = (fields = '') => `GET /waits HTTP/1.1\r\nHost: x\r\n${fields}\r\n`;
  const next = 'GET /next HTTP/1.1\r\nHost: x\r\n\r\n';
  const close = 'Connection: close\r\n';

  for (const [name, bytes] of Object.entries({
    'a line that is no request': `${waits()}this is no request\r\n\r\n`,
    'a byte that begins none': `${waits()}\0`,
    'a byte behind Connection: close': `${waits(close)}G`,
    'a request behind Connection: close': waits(close) + next,
    'a byte behind the body': `${waits('Content-Length: 2\r\n')}{}}`,
    'a byte behind the last chunk': `${waits('Transfer-Encoding: chunked\r\n')}2\r\n{}\r\n0\r\n\r\n}`,
    'a request with a bare line feed': `${waits()}GET /next HTTP/1.1\nHost: x\n\n`,
    'a head that is too large': `${waits()}GET /${'x'.repeat(20_000)}`,
    'the preface of HTTP/2': `${waits()}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`,
    'more than one read': `${waits()}\0${'x'.repeat(500_000)}`,
  }))
    test(name, async () => assert.deepEqual(await answered(bytes), ['200 waited']));

  test('requests between them are answered, too', async () => {
    assert.deepEqual(await answered(`${waits()}${next}${next}\0`), ['200 waited', '200 GET /next x ', '200 GET /next x ']);
  });

  test('a body that is wrong is refused in its turn, and reaches no handler', async () => {
    logged.length = 0;
    const wrong = 'POST /wrong HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n';
    assert.deepEqual(await answered(`${waits()}${wrong}`), ['200 waited', '400 bad_request']);
    assert.deepEqual(await answered(`${waits()}${next}${wrong}`), ['200 waited', '200 GET /next x ', '400 bad_request']);
    assert.deepEqual(logged, []);
  });

  test('more than a MiB of them is not read', async () => {
    assert.deepEqual(await send(`${waits()}\0${'x'.repeat(16 << 20)}`), []);
  });
});

test('100 Continue is sent when the body is read, and not before an answer that the head decides', async () => {
  const post = (target: string, expect: string, version = '1.1') =>
    send(`POST ${target} HTTP/${version}\r\nHost: x\r\nExpect: ${expect}\r\nContent-Length: 2\r\n\r\nab`, 1);
  const statuses = async (answers: Promise<RawAnswer[]>) => (await answers).map(({ status }) => status);
  assert.deepEqual(await statuses(post('/read', '100-continue')), [100, 200]);
  assert.deepEqual(await statuses(post('/read', '100-CONTINUE')), [100, 200]);
  assert.deepEqual(await statuses(post('/unread', '100-continue')), [401]);
  assert.deepEqual(await statuses(post('http://[%]/', '100-continue')), [400]);
  assert.deepEqual(await statuses(post('/read', '100-continue', '1.0')), [200]);
  for (const expect of ['200-ok', '100-continue, x', 'x-100-continue'])
    assertProblem((await post('/read', expect))[0], 'expectation_failed');
});

test('a handler that throws or rejects is answered for, and the others are served', async () => {
  for (const target of ['/throws', '/rejects']) {
    logged.length = 0;
    assertProblem(await get(target), 'internal');
    assert.deepEqual(logged, ['could not answer an error']);
  }
});

describe('an offer to change the protocol', () => {
  const offer = (target: string, protocol: string, more = '') =>
    `GET ${target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n${more}\r\n`;

  test('a WebSocket is handed over, with its address in origin form', async () => {
    assert.match(await text(offer('http://radio.example/chat?a', 'WebSocket')), /^HTTP\/1\.1 101 .*\/chat\?a radio\.example$/s);
    assertProblem((await send(offer('/chat', 'websocket', 'Content-Length: 5\r\n')))[0], 'bad_request');
    assertProblem((await send(offer('/chat', 'websocket', 'Transfer-Encoding: chunked\r\n')))[0], 'bad_request');
  });

  test('for another protocol the request is answered in this one, as often as it comes, and the connection counts once', async () => {
    const before = connections.open;
    let answers = 0;
    const socket = connect(listener.port, '127.0.0.1');
    let got = '';
    await new Promise<void>((resolve, reject) => {
      socket.on('error', reject);
      socket.on('data', (bytes) => {
        got += bytes.toString();
        answers = got.split('GET /x x ').length - 1;
        if (answers === 30) resolve();
        else socket.write(offer('/x', 'foo'));
      });
      socket.write(offer('/x', 'foo'));
    });
    assert.equal(connections.open, before + 1);
    assert.ok(listener.server.listenerCount('connection') <= 1);
    socket.destroy();
    while (connections.open > before) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(connections.refused, 0);
  });

  test('its body, its connection options and requests behind it stay what they are', async () => {
    const fields = 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 4\r\n';
    const both = `POST /a HTTP/1.1\r\nHost: x\r\n${fields}\r\nbody${offer('/b', 'foo')}`;
    assert.deepEqual(
      (await send(both, 2)).map(({ body }) => body),
      ['POST /a x body', 'GET /b x '],
    );
    const [last] = await send(`GET /c HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: foo\r\n\r\n`);
    assert.deepEqual([last?.body, last?.headers.connection], ['GET /c x ', 'close']);
  });

  test('it waits for the answers before it', async () => {
    for (const protocol of ['foo', 'websocket']) {
      const isHeld = new Promise<void>((resolve) => {
        held = resolve;
      });
      const answered = text(`GET /waits HTTP/1.1\r\nHost: x\r\n\r\n${offer('/after', protocol)}`);
      await isHeld;
      // Both have been read: they came in one piece.
      await get('/beside');
      release();
      assert.match(await answered, /waited.*\/after x/s);
    }
  });

  test('what follows it is kept while it waits behind several requests', async () => {
    const waiting = 'GET /waits HTTP/1.1\r\nHost: x\r\n\r\n';
    const body = 'b'.repeat(200_000);
    const late = `POST /after HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: foo\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    const answered = text(waiting + waiting + late);
    for (let count = 0; count < 2; count++) {
      const isHeld = new Promise<void>((resolve) => {
        held = resolve;
      });
      await isHeld;
      await get('/beside');
      release();
    }
    assert.match(await answered, /waited.*waited.*\/after x b{200000}$/s);
  });

  test('fields that Node would leave out are not put back without them', async () => {
    const many = Array.from({ length: 101 }, (_, index) => `X-${index}: y\r\n`).join('');
    assertProblem((await send(offer('/x', 'foo', `${many}Content-Length: 4\r\n`)))[0], 'head_too_large');
  });

  /** Until the server closes, or has said `/after` or the like. */
  const text = (bytes: string) =>
    new Promise<string>((resolve) => {
      let got = '';
      const socket = connect(listener.port, '127.0.0.1', () => socket.write(bytes));
      socket.on('data', (chunk) => {
        got += chunk.toString();
        if (/\/after x(?: b{200000}|)\s*$/.test(got)) socket.destroy();
      });
      socket.on('error', () => undefined);
      socket.setTimeout(10_000, () => socket.destroy());
      socket.on('close', () => resolve(got));
    });
});

describe('HTTP/2', () => {
  let secure: HttpListener;
  let authority: TestAuthority;
  before(async () => {
    authority = await TestAuthority.make();
    const { cert, key } = await authority.issue('guard');
    secure = await listenHttp(handler, { host: '127.0.0.1', port: 0, tls: { cert, key }, log }, clock);
  });
  after(async () => {
    await secure.stop(0);
    await authority.remove();
  });

  const ask = (headers: Record<string, string>, body?: string) =>
    new Promise<{ status: number; text: string; interim: number[] }>((resolve, reject) => {
      const session = connectHttp2(`https://127.0.0.1:${secure.port}`, { rejectUnauthorized: false });
      session.on('error', reject);
      const stream = session.request(headers, { endStream: body === undefined });
      let status = 0;
      let text = '';
      const interim: number[] = [];
      stream.on('headers', (got) => interim.push(Number(got[':status'])));
      stream.on('response', (got) => {
        status = Number(got[':status']);
      });
      stream.on('data', (bytes) => (text += bytes));
      // What Node's own parser refuses.
      stream.on('error', () => undefined);
      stream.on('close', () => {
        session.destroy();
        resolve({ status, text, interim });
      });
      if (body !== undefined) stream.end(body);
    });
  const code = ({ text }: { text: string }) => JSON.parse(text).code as string;

  test('the same heads are refused', async () => {
    assert.equal(code(await ask({ ':method': 'CONNECT', ':authority': 'x:80' })), 'not_implemented');
    assert.equal(code(await ask({ ':path': '/', ':authority': 'x', host: 'y' })), 'bad_request');
    assert.equal(code(await ask({ ':path': '/', ':authority': '[%' })), 'bad_request');
    assert.equal(code(await ask({ ':path': '/x#y' })), 'bad_request');
    assert.equal(code(await ask({ ':path': '/', expect: 'x' })), 'expectation_failed');
    for (const path of ['', 'x', '*', 'http://[%]/', 'http://x/y', '/\u00e4']) {
      const { status } = await ask({ ':path': path });
      // 0: the stream is reset by the parser.
      assert.ok([0, 400].includes(status), `${path}: ${status}`);
    }
    assert.equal((await ask({ ':path': '/x', ':authority': 'radio.example' })).text, 'GET /x radio.example ');
    assert.equal(code(await ask({ ':path': '/throws' })), 'internal');
  });

  test('100 Continue comes with the first read', async () => {
    const post = { ':method': 'POST', expect: '100-continue' };
    assert.deepEqual((await ask({ ...post, ':path': '/read' }, 'ab')).interim, [100]);
    const refused = await ask({ ...post, ':path': '/unread' }, 'ab');
    assert.deepEqual([refused.status, refused.interim], [401, []]);
  });
});

describe('the service', () => {
  let app: TestApp;
  before(async () => {
    const broken = Object.defineProperty(new Error(), 'message', {
      get() {
        throw new Error('the sink is broken');
      },
    });
    app = await startApp({
      log,
      pages: {
        middleware: (ctx, next) => {
          if (ctx.path === '/broken') throw broken;
          return next();
        },
      },
    });
  });
  after(() => app.stop());

  test('absolute addresses are right on every route, and the log has the path alone', async () => {
    const { port } = new URL(app.url);
    const of = async (target: string) => {
      const [answer] = await sendRaw(Number(port), `GET ${target} HTTP/1.1\r\nHost: x\r\n\r\n`, { answers: 1 });
      return answer?.status;
    };
    for (const host of ['http://radio.example', 'http://xn--', 'https://[::1]:8080', '']) {
      assert.equal(await of(`${host}/health/live`), 200, host);
      assert.equal(await of(`${host}/api/v1/channels?limit=1`), 200, host);
      assert.equal(await of(`${host}/api/v1/me`), 401, host);
      assert.equal(await of(`${host}/.well-known/jwks.json`), 200, host);
      assert.equal(await of(`${host}/nothing`), 404, host);
    }
  });

  const ask = async (head: string, body = '') => {
    const isHead = head.startsWith('HEAD');
    const { port } = new URL(app.url);
    return sendRaw(Number(port), `${head.replaceAll('\n', '\r\n')}\r\nHost: x\r\n\r\n${body}`, { answers: 1, isHead });
  };

  test('405 and OPTIONS name the methods, at every address', async () => {
    for (const [path, allowed] of [
      ['/health/live', 'GET, HEAD, OPTIONS'],
      ['/health/ready', 'GET, HEAD, OPTIONS'],
      ['/.well-known/jwks.json', 'GET, HEAD, OPTIONS'],
      ['/api/v1/openapi.json', 'GET, HEAD'],
      ['/api/v1/channels', 'GET, HEAD, POST'],
    ]) {
      for (const method of ['TRACE', 'DELETE', 'PROPFIND']) {
        const [answer] = await ask(`${method} ${path} HTTP/1.1`);
        assertProblem(answer, 'method_not_allowed', `${method} ${path}`);
        assert.deepEqual(answer?.headers.allow?.split(', ').sort(), allowed!.split(', ').sort(), `${method} ${path}`);
      }
      const [options] = await ask(`OPTIONS ${path} HTTP/1.1`);
      assert.ok([200, 204].includes(options?.status ?? 0), path);
      assert.match(options?.headers.allow ?? '', /GET/);
      if (options?.status === 204) assert.equal(options.headers['content-length'], undefined);
    }
    for (const method of ['TRACE', 'POST', 'OPTIONS']) {
      const [answer] = await ask(`${method} /nothing HTTP/1.1`);
      assertProblem(answer, 'not_found', method);
      assert.equal(answer?.headers.allow, undefined);
    }
  });

  test('100 Continue is not sent before an answer that the head decides', async () => {
    const post = (path: string, sizeBytes: number, more = '') =>
      ask(`POST /api/v1${path} HTTP/1.1\nExpect: 100-continue\nContent-Type: application/json\nContent-Length: ${sizeBytes}${more}`, '{}');
    const statuses = (answers: RawAnswer[]) => answers.map(({ status }) => status);
    assert.deepEqual(statuses(await post('/channels', 2)), [401]);
    assert.deepEqual(statuses(await post('/auth/login', 70_000)), [413]);
    assert.deepEqual(statuses(await post('/auth/login', 2)), [100, 400]);
    assert.deepEqual(statuses(await post('/nothing', 2)), [404]);
    assert.deepEqual(statuses(await post('/auth/login', 2, '\nContent-Encoding: gzip')), [415]);
  });

  test('a condition is looked at before anything is done; a token may stand behind several spaces', async () => {
    const { token } = app;
    const call = async (method: string, path: string, body: string, ...more: string[]) => {
      const fields = [`Authorization: bearer   ${token}`, 'Content-Type: application/json', `Content-Length: ${body.length}`, ...more];
      return (await ask(`${method} /api/v1${path} HTTP/1.1\n${fields.join('\n')}`, body))[0]!;
    };
    const made = await call('POST', '/channels', '{"slug":"cond","title":"a","visibility":"public"}');
    assert.equal(made.status, 201, made.body);
    const title = async () => JSON.parse((await call('GET', '/channels/cond', '')).body).title as string;
    for (const condition of ['If-Match: "a"', 'If-Match: W/"a", "b"', 'If-None-Match: *'])
      assertProblem(await call('PATCH', '/channels/cond', '{"title":"b"}', condition), 'precondition_failed', condition);
    assert.equal(await title(), 'a');
    for (const condition of ['If-Match: *', 'If-None-Match: "a"', 'If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT'])
      assert.equal((await call('PATCH', '/channels/cond', '{"title":"b"}', condition)).status, 200, condition);
    assert.equal(await title(), 'b');
    assertProblem(await call('DELETE', '/channels/cond', '', 'If-Match: "a"'), 'precondition_failed');
    assertProblem(await call('GET', '/channels/cond', '', 'If-Match: "a"'), 'precondition_failed');
    assertProblem(await call('PATCH', '/channels/none', '{"title":"b"}', 'If-Match: "a"'), 'not_found');
  });

  test('what a client breaks off or spoils is no error of the service', async () => {
    logged.length = 0;
    const { port } = new URL(app.url);
    const head = 'POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n';
    for (const [bytes, ending] of [
      [`${head}Content-Length: 10\r\n\r\n{`, 'end'],
      [`${head}Content-Length: 10\r\n\r\n{`, 'reset'],
      [`${head}Transfer-Encoding: chunked\r\n\r\n2\r\n{`, 'reset'],
      [`${head}Transfer-Encoding: chunked\r\n\r\n2\r\n{}zz`, 'stay'],
      [`${head}Content-Length: 2\r\n\r\n{}this is no request`, 'stay'],
      ['GET /api/v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n', 'reset'],
    ] as const)
      await new Promise<void>((resolve) => {
        const socket = connect(Number(port), '127.0.0.1', () => {
          socket.write(bytes, () => {
            if (ending === 'end') socket.end();
            if (ending === 'reset') socket.resetAndDestroy();
          });
        });
        socket.on('error', () => undefined);
        socket.resume();
        socket.on('close', () => resolve());
      });
    // Everything that was sent before has been read by then.
    assert.equal((await fetch(`${app.url}/health/live`)).status, 200);
    assert.deepEqual(logged, []);
  });

  test('an error that cannot be read ends in a fixed answer and a log line', async () => {
    logged.length = 0;
    const response = await fetch(`${app.url}/broken`);
    assert.equal(response.status, 500);
    assert.equal(problemSchema.parse(await response.json()).code, 'internal');
    assert.deepEqual(logged, ['could not answer an error']);
    assert.equal((await fetch(`${app.url}/health/live`)).status, 200);
  });
});

test('the operators’ port: absolute addresses, addresses that are none, and methods', async () => {
  const metrics = new Metrics({ clock, service: 'veza', version: '1', memoryLimitMb: undefined });
  const operators = await startMetricsServer({ host: '127.0.0.1', port: 0, metrics, clock, log });
  const ask = async (method: string, target: string) =>
    (await sendRaw(operators.port, `${method} ${target} HTTP/1.1\r\nHost: x\r\n\r\n`, { answers: 1, isHead: method === 'HEAD' }))[0]!;
  try {
    logged.length = 0;
    assert.equal((await ask('GET', 'http://prometheus/metrics')).status, 200);
    const head = await ask('HEAD', '/metrics');
    assert.equal(head.status, 200);
    assert.ok(Number(head.headers['content-length']) > 0);
    for (const target of ['//[', '//[%]/metrics', '//', '/\\']) assertProblem(await ask('GET', target), 'not_found', target);
    assertProblem(await ask('GET', 'http://[%]/metrics'), 'bad_request');
    for (const method of ['POST', 'TRACE', 'OPTIONS']) {
      for (const target of ['/metrics', '/', '/none']) {
        const answer = await ask(method, target);
        assertProblem(answer, 'method_not_allowed', target);
        assert.equal(answer.headers.allow, 'GET, HEAD');
      }
    }
    assertProblem(await ask('GET', '/debug/pprof/profile?seconds=%'), 'bad_request');
    assert.equal((await ask('HEAD', '/debug/pprof/profile')).status, 405);
    assert.deepEqual(logged, []);
  } finally {
    await operators.stop(0);
  }
});
