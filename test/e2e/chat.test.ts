import assert from 'node:assert/strict';
import { createHmac, randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { connect } from 'node:tls';
import { CLOSE } from '../../src/chat/protocol/protocol.js';
import { type AnyFrame, Client } from '../chat/chat-world.js';
import { TestAuthority } from '../support/certificates.js';
import { freePorts } from '../support/free-port.js';
import { eventually } from '../support/process.js';
import { startRedis } from '../support/redis.js';
import { Server } from '../support/server.js';

/** The chat of the real service: every frame is held against the reference by the client. */
const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
function gatewayToken(secret: string, sub: string, lifeS = 3600): string {
  const exp = Math.floor(Date.now() / 1000) + lifeS;
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ iss: 'gateway', aud: 'veza', sub, name: sub, role: 'listener', exp })}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

async function enter(
  url: string,
  token: string | undefined,
  room: string,
  more: object = {},
  ca?: Buffer,
): Promise<Client & { room: string }> {
  const client = new Client(url, ca && { ca });
  await client.opened;
  client.send({ t: 'hello', ...(token === undefined ? {} : { token }) });
  await client.next('welcome');
  const joined = await client.ask({ t: 'join', id: 'join', room, ...more });
  if (joined.t !== 'joined') throw new Error(JSON.stringify(joined));
  return Object.assign(client, { room: joined.room as string });
}

let keys = 0;
const say = (client: Client & { room: string }, text: string) => {
  const id = `pub-${keys++}`;
  return client.ask({ t: 'pub', id, room: client.room, key: id, body: { text } });
};

describe('the chat of the service', { concurrency: 2 }, () => {
  describe('one process on embedded defaults, on the port of the pages', { concurrency: 1, timeout: 120_000 }, () => {
    let server: Server;
    let admin: string;
    const secret = randomBytes(32).toString('base64url');
    before(async () => {
      server = await Server.start({ embeddedDatabase: true, env: { JWT_SECRET: secret } });
      admin = (await readFile(join(server.dataDir, 'admin-token'), 'utf8')).trim();
      await server.createChannel('radio');
    });
    after(() => server?.stop());
    const url = () => `ws://127.0.0.1:${server.port}/chat`;

    test('two people talk; what was acknowledged is there after a kill', async () => {
      const [ann, bob] = [
        await enter(url(), gatewayToken(secret, 'ann'), 'radio'),
        await enter(url(), gatewayToken(secret, 'bob'), 'radio'),
      ];
      const ack = await say(ann, 'good evening');
      assert.equal(ack.t, 'ack');
      assert.equal((await bob.next('msg')).mid, ack.mid);
      await server.kill9();
      await bob.closed;
      await server.restart();
      const back = await enter(url(), gatewayToken(secret, 'bob'), 'radio', { since: { epoch: ack.epoch, offset: 0 } });
      const mids = back.frames.flatMap(({ t, entries }: AnyFrame) => (t === 'joined' ? entries.map(({ mid }: AnyFrame) => mid) : []));
      assert.deepEqual(mids, [ack.mid]);
      assert.equal((await say(back, 'still here')).t, 'ack');
      back.socket.terminate();
    });

    test('a moderator deletes by frame and by REST, and bans; everybody is told', async () => {
      const [mod, ann, guest] = [
        await enter(url(), admin, 'radio'),
        await enter(url(), gatewayToken(secret, 'ann'), 'radio'),
        await enter(url(), undefined, 'radio'),
      ];
      const { mid } = await say(ann, 'to be deleted');
      const answer = await mod.ask({ t: 'mod', id: 'm1', room: mod.room, action: 'delete', mid });
      assert.equal(answer.t, 'ok', JSON.stringify(answer));
      await guest.next('del', ({ mids }) => mids?.includes(mid));
      assert.equal((await ann.ask({ t: 'mod', id: 'm2', room: ann.room, action: 'slow', seconds: 5 })).code, 'forbidden');
      const banned = await mod.ask({ t: 'mod', id: 'm3', room: mod.room, action: 'ban', user: 'gateway:ann', seconds: 600 });
      assert.equal(banned.t, 'ok', JSON.stringify(banned));
      const left = await ann.next('left');
      assert.equal(left.code, 'banned');
      assert.ok(left.until > Date.now());
      assert.equal((await ann.ask({ t: 'join', id: 'again', room: 'radio' })).code, 'banned');
      for (const client of [mod, ann, guest]) client.socket.terminate();
    });

    test('a session that is ended closes the connection; so does a token that ends', async () => {
      const account = { email: 'kim@example.org', password: 'lamps along the quay', name: 'Kim' };
      await server.api('POST', '/auth/register', account);
      const { accessToken, refreshToken } = await eventually('the account is there', async () => {
        const login = await fetch(`${server.url}/api/v1/auth/login`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ email: account.email, password: account.password }),
        });
        const body = (await login.json()) as { accessToken: string; refreshToken: string };
        return login.status === 200 ? body : undefined;
      });
      const kim = await enter(url(), accessToken, 'radio');
      const said = await say(kim, 'hello from an account');
      assert.equal(said.t, 'ack', JSON.stringify(said));
      const short = await enter(url(), gatewayToken(secret, 'short', 2), 'radio');
      await fetch(`${server.url}/api/v1/auth/logout`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${accessToken}` },
        body: JSON.stringify({ refreshToken }),
      });
      assert.equal((await kim.closed).code, CLOSE.token);
      assert.equal((await short.closed).code, CLOSE.token);
    });

    test('a private channel: not there for others, open by a playback link, and left when a public one becomes private', async () => {
      await server.createChannel('club');
      const guest = await enter(url(), undefined, 'club');
      await server.api('PATCH', '/channels/club', { visibility: 'private' });
      assert.equal((await guest.next('left')).code, 'private');
      const missing = await guest.ask({ t: 'join', id: 'x', room: 'club' });
      assert.deepEqual(missing, { ...(await guest.ask({ t: 'join', id: 'y', room: 'none-such' })), id: 'x' });
      const link = await server.api<{ token: string }>('POST', '/channels/club/links', {});
      assert.equal((await guest.ask({ t: 'join', id: 'z', room: 'club', link: link.token })).t, 'joined');
      await server.api('DELETE', '/channels/club');
      assert.equal((await guest.next('left')).code, 'deleted');
      guest.socket.terminate();
    });

    test('a request that offers another protocol is answered in this one', async () => {
      const status = await new Promise((resolve, reject) => {
        const req = request(`${server.url}/api/v1/channels`, {
          headers: { Connection: 'Upgrade, HTTP2-Settings', Upgrade: 'h2c', 'HTTP2-Settings': 'AAMAAABk' },
        });
        req.on('response', (res) => resolve(res.resume().statusCode));
        req.on('error', reject);
        req.end();
      });
      assert.equal(status, 200);
    });

    test('what is counted can be read; a stop tells everybody when to come back', async () => {
      const bob = await enter(url(), gatewayToken(secret, 'bob'), 'radio');
      await say(bob, 'one more');
      assert.ok(((await server.metric('websocket_connections_active')) ?? 0) >= 1);
      assert.ok(((await server.metric('chat_delivery_seconds_count')) ?? 0) >= 1);
      assert.equal(await server.stopGracefully(), 0);
      assert.equal((await bob.closed).code, CLOSE.restart);
      assert.ok(bob.all('drain')[0].retryMs > 0);
    });
  });

  describe('several processes', { concurrency: 1, timeout: 180_000 }, () => {
    const secret = randomBytes(32).toString('base64url');
    let redis: Awaited<ReturnType<typeof startRedis>>;
    let server: Server;
    let wsPort: number;
    before(async () => {
      redis = await startRedis();
      [wsPort] = (await freePorts(1)) as [number];
      server = await Server.start({
        env: { REDIS_URL: redis.url, JWT_SECRET: secret, WORKER_THREADS: '2', WS_PORT: String(wsPort) },
      });
      await server.createChannel('radio');
    });
    after(async () => {
      await server?.stop();
      await redis?.stop();
    });
    const url = () => `ws://127.0.0.1:${wsPort}/chat`;
    const pids = () =>
      server
        .log()
        .filter(({ event }) => event === 'chat.process_ready')
        .map(({ pid }) => pid as number);

    test('what is said in one is heard in the other, once and in order; all count', async () => {
      const clients = [];
      // So many that each process has some.
      for (let n = 0; n < 8; n++) clients.push(await enter(url(), gatewayToken(secret, `m-${n}`), 'radio'));
      for (let n = 0; n < 8; n++) assert.equal((await say(clients[n]!, `message ${n}`)).t, 'ack');
      for (const client of clients) {
        await client.next('msg', ({ body }) => body.text === 'message 7');
        assert.deepEqual(
          client.all('msg').map(({ body }: AnyFrame) => body.text),
          Array.from({ length: 8 }, (_, n) => `message ${n}`),
        );
        await client.next('members', ({ count }) => count === 8);
      }
      await eventually('all are counted', async () => ((await server.metric('websocket_connections_active')) === 8 ? true : undefined));
      const { members } = await server.api<{ members: number }>('GET', '/rooms/radio');
      assert.equal(members, 8);
      // They are in two processes, and the one that answers has none of them.
      const { count, items } = await server.api<{ count: number; items: { name: string }[] }>('GET', '/rooms/radio/members?limit=500');
      assert.equal(count, 8);
      assert.deepEqual(
        items.map(({ name }) => name).sort(),
        Array.from({ length: 8 }, (_, n) => `m-${n}`),
      );
      for (const client of clients) client.socket.terminate();
    });

    test('a process that is killed is replaced, and nobody in the other one notices', async () => {
      const clients = [];
      for (let n = 0; n < 12; n++) clients.push(await enter(url(), gatewayToken(secret, `k-${n}`), 'radio'));
      const [victim] = pids() as [number];
      process.kill(victim, 'SIGKILL');
      const outcomes = await Promise.all(
        clients.map((client) => Promise.race([client.closed, new Promise((resolve) => setTimeout(resolve, 1000, 'open'))])),
      );
      const open = outcomes.filter((outcome) => outcome === 'open').length;
      assert.ok(open >= 4 && open <= 8, `${open} of 12 are still connected`);
      await eventually('another one is ready', async () => (pids().length === 3 ? true : undefined));
      const back = await enter(url(), gatewayToken(secret, 'k-back'), 'radio');
      assert.equal((await say(back, 'hello again')).t, 'ack');
      for (const client of [...clients, back]) client.socket.terminate();
    });

    test('replaced one by one: everybody is told, nobody finds the door closed', async () => {
      const clients = [];
      for (let n = 0; n < 6; n++) clients.push(await enter(url(), gatewayToken(secret, `r-${n}`), 'radio'));
      const before = pids().length;
      process.kill(server.pid!, 'SIGHUP');
      const back = await Promise.all(
        clients.map(async (client, n) => {
          assert.equal((await client.closed).code, CLOSE.restart);
          assert.equal(client.all('drain').length, 1);
          return enter(url(), gatewayToken(secret, `r-${n}`), 'radio');
        }),
      );
      await eventually('both are replaced', async () => (pids().length === before + 2 ? true : undefined));
      for (const client of back) client.socket.terminate();
    });

    test('on the port of the pages', async () => {
      await server.stopGracefully();
      await server.restart({ WS_PORT: String(server.port) });
      const here = await enter(`ws://127.0.0.1:${server.port}/chat`, gatewayToken(secret, 'here'), 'radio');
      assert.equal((await say(here, 'on one port')).t, 'ack');
      assert.equal((await server.api<{ slug: string }>('GET', '/channels/radio')).slug, 'radio');
      here.socket.terminate();
    });

    test('over TLS on a port of its own, and with a new certificate without a restart', async (t) => {
      const authority = await TestAuthority.make();
      t.after(() => authority.remove());
      const [first, second, ca] = [await authority.issue('first'), await authority.issue('second'), await authority.ca()];
      const [certFile, keyFile] = [join(authority.dir, 'now.pem'), join(authority.dir, 'now-key.pem')];
      const use = async ({ cert, key }: { cert: Buffer; key: Buffer }) => {
        await writeFile(keyFile, key);
        await writeFile(certFile, cert);
      };
      await use(first);
      const [wssPort] = (await freePorts(1)) as [number];
      await server.stopGracefully();
      await server.restart({ WS_PORT: String(wsPort), WSS_PORT: String(wssPort), TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile });
      const secure = await enter(`wss://localhost:${wssPort}/chat`, gatewayToken(secret, 'secure'), 'radio', {}, ca);
      const plain = await enter(url(), gatewayToken(secret, 'plain'), 'radio');
      const { mid } = await say(secure, 'behind a lock');
      assert.equal((await plain.next('msg', ({ body }) => body.text === 'behind a lock')).mid, mid);

      await use(second);
      const name = () =>
        new Promise<string>((resolve, reject) => {
          const socket = connect({ port: wssPort, host: '127.0.0.1', servername: 'localhost', ca }, () => {
            resolve(String(socket.getPeerCertificate().subject.CN));
            socket.destroy();
          });
          socket.once('error', reject);
        });
      await eventually('both processes show the new one', async () => {
        const names = [];
        for (let n = 0; n < 12; n++) names.push(await name());
        return names.every((each) => each === 'second') ? true : undefined;
      });
      assert.equal((await say(secure, 'still here')).t, 'ack');
      for (const client of [secure, plain]) client.socket.terminate();
    });
  });
});
