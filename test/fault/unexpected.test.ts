import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { WebSocket } from 'ws';
import { SUBPROTOCOL } from '../../src/chat-client/index.js';
import { processTree } from '../support/cpu.js';
import { gatewayTokens } from '../support/gateway-token.js';
import { breaksOf, moreSegments, sounding, told, UNBROKEN } from '../support/on-air.js';
import { eventually } from '../support/process.js';
import { publishRtmp } from '../support/publishers.js';
import { startRedis } from '../support/redis.js';
import { Server } from '../support/server.js';

/** On SIGUSR2 a process throws where nobody takes it, on SIGIO it rejects. Loaded into every process of the service. */
const PROVOKED = `
  import { isMainThread } from 'node:worker_threads';
  if (isMainThread) {
    process.on('SIGUSR2', () => setImmediate(() => { throw new TypeError('provoked', { cause: new Error('by a test') }); }));
    process.on('SIGIO', () => void Promise.reject(new Error('provoked too')));
  }`;
const LISTENERS = 6;

interface Ended {
  readonly code: number;
  readonly retryMs: number | undefined;
}

/** Somebody who is in the chat; resolves with how it ended for them. */
function listen(url: string, token: string): Promise<{ ended: Promise<Ended> }> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, [SUBPROTOCOL]);
    let retryMs: number | undefined;
    const ended = new Promise<Ended>((end) => socket.on('close', (code) => end({ code, retryMs })));
    socket.on('open', () => socket.send(JSON.stringify({ t: 'hello', token })));
    socket.on('error', reject);
    socket.on('message', (data) => {
      const frame = JSON.parse(String(data)) as { t: string; retryMs?: number };
      if (frame.t === 'welcome') resolve({ ended });
      retryMs = frame.retryMs ?? retryMs;
    });
  });
}

test('errors that nobody took end nothing that is on air, and people in the chat are sent to another process, not cut', async (t) => {
  const redis = await startRedis();
  const secret = randomBytes(32).toString('base64url');
  const server = await Server.start({
    env: {
      REDIS_URL: redis.url,
      JWT_SECRET: secret,
      JWT_AUDIENCE: 'test',
      WORKER_THREADS: '2',
      ADAPTIVE_BITRATE: 'false',
      NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(PROVOKED)}`,
    },
  });
  const publisher = publishRtmp(server.rtmpUrl(await server.createChannel('tone')));
  t.after(async () => {
    await publisher.kill();
    await server.stop();
    await redis.stop();
  });
  await told(server, async () => {
    const tokenOf = gatewayTokens(secret);
    const join = (name: string) => listen(`ws://127.0.0.1:${server.port}/chat`, tokenOf(name));
    const children = () =>
      processTree(server.pid)
        .filter(({ parent, name }) => parent === server.pid && name.startsWith('node'))
        .map(({ pid }) => pid);
    const main = server.pid;
    await sounding(server, 'tone');

    // The process that is on air.
    for (const signal of ['SIGUSR2', 'SIGIO'] as const) process.kill(main, signal);
    await eventually('all are logged', () => server.log().filter(({ error }) => /provoked/.test(String(error))).length === 2 || undefined);
    const line = server.log().find(({ event }) => event === 'process.uncaught_exception');
    assert.deepEqual([line?.error, line?.causes], ['TypeError: provoked', ['Error: by a test']]);
    assert.equal(await server.metric('process_unexpected_errors_total'), 2);

    // A rejection in a process of the chat ends nothing there either, and an exception that one process.
    const [one] = children() as [number, number];
    const members = await Promise.all(Array.from({ length: LISTENERS }, (_, n) => join(`member-${n}`)));
    process.kill(one, 'SIGIO');
    await eventually('it is counted', async () => (await server.metric('process_unexpected_errors_total')) === 3 || undefined);
    assert.ok(children().includes(one));
    const ended: Ended[] = [];
    for (const { ended: end } of members) void end.then((how) => ended.push(how));
    process.kill(one, 'SIGUSR2');
    await eventually('it is replaced', () => (!children().includes(one) && children().length === 2) || undefined, 60_000);
    assert.ok(ended.length > 0 && ended.length < LISTENERS, `${ended.length} of ${LISTENERS} had to move`);
    for (const { code } of ended) assert.notEqual(code, 1006, 'cut without a word');
    assert.equal(await server.metric('process_unexpected_errors_total'), 4);

    await moreSegments(server, 'tone', 1);
    assert.deepEqual(breaksOf(await sounding(server, 'tone')), UNBROKEN);
    assert.equal(server.pid, main);

    // The primary is gone, and the first thing that a process of the chat does is to tell it something.
    const left = await Promise.all(Array.from({ length: LISTENERS }, (_, n) => join(`late-${n}`)));
    const orphans = children();
    for (const pid of orphans) process.kill(pid, 'SIGSTOP');
    // Its output is theirs too, so that it has not ended for us before they have.
    const killed = server.kill9();
    await eventually('the primary is gone', () => !isThere(main) || undefined);
    for (const pid of orphans) process.kill(pid, 'SIGCONT');
    for (const { ended: end } of left) assert.notEqual((await end).code, 1006, 'cut without a word');
    await eventually('they end', () => orphans.every((pid) => !isThere(pid)) || undefined);
    await killed;
  });
});

function isThere(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}
