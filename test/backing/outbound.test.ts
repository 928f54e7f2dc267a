import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { createOutbound, type OutboundResult, type Resolve, resolverFor, retryAfterOf } from '../../src/backing/outbound.js';
import { OutboundPolicy } from '../../src/backing/outbound-address.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { VezaError } from '../../src/runtime/errors.js';
import { Receiver } from '../access/webhook-support.js';

let receiver: Receiver;
before(async () => {
  receiver = await Receiver.open();
});
after(() => receiver.close());

const refused = (error: unknown) => error instanceof VezaError && error.code === 'bad_request';
const errorOf = (result: OutboundResult) => (result.status === undefined ? result.error : `answered ${result.status}`);
const of = (...addresses: string[]) => addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }));

/** Every range that is not the public internet, and every way to write such an address. */
const PRIVATE = [
  '127.0.0.1',
  '127.255.255.254',
  '0.0.0.0',
  '0.1.2.3',
  '10.0.0.1',
  '172.16.0.1',
  '172.31.255.255',
  '192.168.1.1',
  '169.254.169.254',
  '169.254.0.1',
  '100.64.0.1',
  '100.127.255.255',
  '192.0.0.1',
  '192.0.2.1',
  '198.18.0.1',
  '198.51.100.1',
  '203.0.113.1',
  '224.0.0.1',
  '239.255.255.255',
  '240.0.0.1',
  '255.255.255.255',
  '::',
  '::1',
  '::ffff:127.0.0.1',
  '::ffff:7f00:1',
  '::ffff:169.254.169.254',
  '::127.0.0.1',
  '::ffff:0:127.0.0.1',
  '64:ff9b::7f00:1',
  '64:ff9b:1::7f00:1',
  '2002:7f00:1::1',
  '2001::1',
  '2001:db8::1',
  'fc00::1',
  'fd12:3456::1',
  'fe80::1',
  'febf::1',
  'fec0::1',
  'ff02::1',
  '100::1',
  '5f00::1',
  '4000::1',
];
const PUBLIC = ['1.1.1.1', '9.9.9.9', '172.15.0.1', '172.32.0.1', '100.63.0.1', '100.128.0.1', '2606:4700:4700::1111', '2a00:1450::1'];

test('addresses that are not public are refused, those that are are not', () => {
  const policy = new OutboundPolicy();
  const asHost = (address: string) => (address.includes(':') ? `[${address}]` : address);
  for (const address of PRIVATE) {
    assert.equal(policy.admits(address), false, address);
    for (const scheme of ['http', 'https']) assert.throws(() => policy.checkUrl(`${scheme}://${asHost(address)}/`), refused, address);
  }
  for (const address of PUBLIC) {
    assert.equal(policy.admits(address), true, address);
    policy.checkUrl(`https://${asHost(address)}/`);
    policy.checkUrl(`http://${asHost(address)}:8080/`);
  }
  for (const nothing of ['', 'example.org', '1.2.3', '127.1']) assert.equal(policy.admits(nothing), false, nothing);
});

test('a URL that leads inside is refused however it is written', () => {
  const policy = new OutboundPolicy();
  for (const host of [
    'localhost',
    'LOCALHOST',
    'localhost.',
    'localhost..',
    'hooks.localhost',
    'hooks.localhost.',
    '127.0.0.1.',
    '127.1',
    '2130706433',
    '0x7f000001',
    '0x7f.0.0.1',
    '0177.0.0.1',
    '017700000001',
    '0',
    '0x0',
    '0xa9fea9fe',
    '2852039166',
    '0251.0376.0251.0376',
    '%31%32%37.0.0.1',
    '１２７.0.0.1',
    '127。0。0。1',
    'ⓛocalhost',
    '[::ffff:127.0.0.1]',
    '[0:0:0:0:0:ffff:7f00:0001]',
    '[::]',
  ]) {
    assert.throws(() => policy.checkUrl(`http://${host}/`), refused, host);
    assert.throws(() => policy.checkUrl(`http://${host}:8080/`), refused, host);
  }
});

test('other things that are no good address', () => {
  const policy = new OutboundPolicy();
  for (const url of [
    '',
    'x',
    'example.org/hook',
    '//example.org',
    'ftp://example.org/',
    'file:///etc/passwd',
    'gopher://example.org/',
    'data:,x',
    'unix:///run/docker.sock',
    'https://user@example.org/',
    'https://user:secret@example.org/',
    'https://:secret@example.org/',
    'https://example.org:22/',
    'https://example.org:25/',
    'https://example.org:1023/',
    'https://example.org:0/',
    'https://example.org:65536/',
    'http://[fe80::1%25eth0]/',
    'http://./',
    `https://example.org/${'x'.repeat(2000)}`,
  ]) {
    assert.throws(() => policy.checkUrl(url), refused, url);
  }
  for (const url of [
    'https://example.org/hook?key=1',
    'http://example.org:80/',
    'https://example.org:443/',
    'https://example.org:1024/',
    `https://example.org/${'x'.repeat(1980)}`,
  ]) {
    policy.checkUrl(url);
  }
  assert.throws(
    () => policy.checkUrl('https://me:hunter2@example.org/'),
    (error) => !String(error).includes('hunter2'),
  );
});

test('what the operator names is allowed, and nothing beside it', () => {
  const policy = new OutboundPolicy(['Hooks.internal', 'localhost', '10.1.0.0/16', '192.168.7.7', 'fd00::/8']);
  for (const url of [
    'http://hooks.internal/',
    'http://HOOKS.internal./',
    'http://localhost:3000/',
    'http://10.1.255.255/',
    'http://192.168.7.7/',
    'http://[fd12::1]/',
    'http://[::ffff:10.1.2.3]/',
  ]) {
    policy.checkUrl(url);
  }
  for (const url of ['http://10.2.0.1/', 'http://192.168.7.8/', 'http://127.0.0.1/', 'http://a.localhost/', 'http://[fe80::1]/']) {
    assert.throws(() => policy.checkUrl(url), refused, url);
  }
  assert.ok(policy.isNamed('hooks.internal') && !policy.isNamed('x.hooks.internal') && !policy.isNamed('internal'));
  for (const wrong of [
    '10.0.0.0/33',
    '10.0.0.0/',
    '10.0.0.0/8/8',
    '10.0.0.0/x',
    'a b',
    '*.internal',
    'http://x',
    '',
    'hooks.internal/8',
    '::/129',
  ])
    assert.throws(() => new OutboundPolicy([wrong]), wrong);
});

test('a name is looked up at the connection, and every address of it counts', async () => {
  const clock = new FakeClock();
  let answers: string[] = [];
  let asked = 0;
  const resolve: Resolve = async () => {
    asked += 1;
    return of(...answers);
  };
  const outbound = createOutbound({ policy: new OutboundPolicy(), clock, resolve });
  const url = new URL(`http://rebind.example:${receiver.port}/`);
  const post = () => outbound.post(url, {}, Buffer.from('{}'));

  // Public when it was typed in, ours when it is called: DNS rebinding.
  answers = ['1.1.1.1'];
  await outbound.checkHost(url);
  answers = ['127.0.0.1'];
  assert.match(errorOf(await post()), /rebind\.example is not in the public internet/);
  await assert.rejects(outbound.checkHost(url), refused);
  // One of ours among others, in either order, in either family.
  for (const mixed of [
    ['1.1.1.1', '127.0.0.1'],
    ['127.0.0.1', '1.1.1.1'],
    ['2606:4700:4700::1111', '::1'],
    ['2606:4700:4700::1111', '::ffff:127.0.0.1'],
    ['1.1.1.1', '64:ff9b::7f00:1'],
  ]) {
    answers = mixed;
    assert.match(errorOf(await post()), /not in the public internet/, mixed.join());
  }
  answers = [];
  assert.match(errorOf(await post()), /has no address/);
  await outbound.checkHost(url);
  assert.equal(receiver.connections, 0, 'not even a connection was made');
  assert.equal(asked, 10);
  outbound.stop();

  // The same name, named by the operator: the connection goes where the lookup says.
  const named = createOutbound({ policy: new OutboundPolicy(['rebind.example']), clock, resolve });
  answers = ['127.0.0.1'];
  assert.equal(errorOf(await named.post(url, { 'X-Mine': '1' }, Buffer.from('{"ä":1}'))), 'answered 204');
  const [received] = receiver.received;
  assert.equal(received?.headers.host, `rebind.example:${receiver.port}`);
  assert.equal(received?.headers['x-mine'], '1');
  assert.equal(received?.body, '{"ä":1}');
  named.stop();
});

/** A name server that answers one question after the other with the next of `answers`; AAAA questions with nothing. */
async function openNameServer(answers: string[]): Promise<{ address: string; close(): void }> {
  const socket = createSocket('udp4');
  socket.on('message', (question, { address, port }) => {
    // RFC 1035 4.1: the header, one question (name, type, class), and a pointer back to its name in the answer.
    const nameEnd = question.indexOf(0, 12) + 1;
    const isA = question.readUInt16BE(nameEnd) === 1;
    const found = isA ? answers.shift() : undefined;
    const answer = Buffer.from(question.subarray(0, nameEnd + 4));
    answer.writeUInt16BE(0x8180, 2);
    answer.writeUInt16BE(found ? 1 : 0, 6);
    answer.writeUInt32BE(0, 8);
    const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, ...(found ?? '').split('.').map(Number)]);
    socket.send(found ? Buffer.concat([answer, record]) : answer, port, address);
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  return { address: `127.0.0.1:${socket.address().port}`, close: () => socket.close() };
}

test('a name that changes between the check and the call, by a real name server', async () => {
  const names = await openNameServer(['1.1.1.1', '127.0.0.1']);
  const policy = new OutboundPolicy();
  const outbound = createOutbound({ policy, clock: new FakeClock(), resolve: resolverFor(policy, [names.address]) });
  const before = receiver.connections;
  const url = new URL(`http://rebind.test:${receiver.port}/`);
  await outbound.checkHost(url);
  assert.match(errorOf(await outbound.post(url, {}, Buffer.of())), /rebind\.test is not in the public internet/);
  // No third answer: there is no such name any more.
  assert.match(errorOf(await outbound.post(url, {}, Buffer.of())), /ENODATA|ENOTFOUND/);
  assert.equal(receiver.connections, before);
  names.close();
});

test('an address that is no name is not looked up, and is checked all the same', async () => {
  const outbound = createOutbound({
    policy: new OutboundPolicy(),
    clock: new FakeClock(),
    resolve: () => Promise.reject(new Error('asked')),
  });
  const before = receiver.connections;
  for (const host of ['127.0.0.1', '[::ffff:127.0.0.1]', '0x7f.1', 'localhost']) {
    assert.match(
      errorOf(await outbound.post(new URL(`http://${host}:${receiver.port}/`), {}, Buffer.of())),
      /not in the public internet/,
      host,
    );
  }
  assert.equal(receiver.connections, before);
});

test('a name server that does not answer does not hold a call for longer than the time there is', async () => {
  const clock = new FakeClock();
  const outbound = createOutbound({ policy: new OutboundPolicy(), clock, resolve: () => new Promise(() => {}) });
  const called = outbound.post(new URL('https://slow.example/'), {}, Buffer.of());
  const checked = outbound.checkHost(new URL('https://slow.example/'));
  clock.advance(10_000);
  assert.equal(errorOf(await called), 'no answer within 10 s');
  await checked;
});

test('no proxy of the environment is used', async () => {
  const proxy = await Receiver.open();
  const names = ['http_proxy', 'HTTP_PROXY', 'https_proxy', 'all_proxy', 'NODE_USE_ENV_PROXY'];
  const kept = names.map((name) => process.env[name]);
  for (const name of names) process.env[name] = name === 'NODE_USE_ENV_PROXY' ? '1' : proxy.url('/');
  const outbound = createOutbound({ policy: new OutboundPolicy(['127.0.0.1']), clock: new FakeClock() });
  assert.equal(errorOf(await outbound.post(new URL(receiver.url()), {}, Buffer.of())), 'answered 204');
  assert.equal(proxy.connections, 0);
  names.forEach((name, index) => {
    if (kept[index] === undefined) delete process.env[name];
    else process.env[name] = kept[index];
  });
  await proxy.close();
});

test('https is TLS, and never falls back', async () => {
  const outbound = createOutbound({ policy: new OutboundPolicy(['127.0.0.1']), clock: new FakeClock() });
  // The receiver speaks no TLS at all.
  assert.match(
    errorOf(await outbound.post(new URL(receiver.url().replace('http:', 'https:')), {}, Buffer.of())),
    /SSL|EPROTO|wrong version/i,
  );
});

test('stopped, it breaks off what is under way', async () => {
  const silent = await Receiver.open();
  silent.answer = () => outbound.stop();
  const outbound = createOutbound({ policy: new OutboundPolicy(['127.0.0.1']), clock: new FakeClock() });
  assert.match(errorOf(await outbound.post(new URL(silent.url()), {}, Buffer.of())), /hang up|closed without an answer/);
  await silent.close();
});

test('Retry-After is seconds or a date; what says nothing is left alone', () => {
  const nowMs = Date.UTC(2026, 10, 30, 18, 0, 0);
  for (const [given, seconds] of [
    ['120', 120],
    [' 0 ', 0],
    ['9'.repeat(20), 1e20],
    ['Mon, 30 Nov 2026 20:00:00 GMT', 7200],
    ['Monday, 30-Nov-26 20:00:00 GMT', 7200],
    ['Mon Nov 30 20:00:00 2026', 7200],
    ['Tue, 01 Dec 2026 18:00:00 GMT', 86_400],
    ['Mon, 30 Nov 2020 20:00:00 GMT', 0],
    ['Fri, 31 Dec 9999 23:59:59 GMT', 251_620_927_199],
    ['-5', undefined],
    ['1.5', undefined],
    ['1e9', undefined],
    ['soon', undefined],
    ['2026-11-30T20:00:00Z', undefined],
    ['Mon, 99 Nov 2026 20:00:00 GMT', undefined],
    ['', undefined],
    [undefined, undefined],
  ] as const) {
    const found = retryAfterOf(given, nowMs);
    if (given?.includes('9999')) assert.ok(found! > 1e11);
    else assert.equal(found, seconds, String(given));
  }
});
