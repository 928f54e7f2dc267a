import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import pg from 'pg';
import { WebSocket } from 'ws';
import { type Entry, SUBPROTOCOL, Timeline } from '../../src/chat-client/index.js';
import { ChatChecker, compareViews, NO_FAULTS, STORED_ENTRIES, type StoredEntry, type View } from '../support/chat-checker.js';
import { ChatProxy, type PassingFrame } from '../support/chat-proxy.js';
import { createTestDatabase } from '../support/database.js';
import { gatewayTokens } from '../support/gateway-token.js';
import { eventually } from '../support/process.js';
import { Server } from '../support/server.js';

const ROOM = 'radio';

/** A client that shows what it gets, and never asks whether something is missing. */
class Careless {
  readonly #timeline = new Timeline(() => {});
  readonly #socket: WebSocket;
  isIn = false;

  constructor(url: string, token: string) {
    this.#socket = new WebSocket(url, [SUBPROTOCOL]);
    const say = (frame: object) => this.#socket.send(JSON.stringify(frame));
    this.#socket.on('error', () => undefined);
    this.#socket.on('open', () => say({ t: 'hello', token }));
    this.#socket.on('message', (data) => {
      const frame = JSON.parse(String(data)) as PassingFrame;
      if (frame.t === 'welcome') say({ t: 'join', id: 'join', room: ROOM });
      else if (frame.t === 'joined') this.isIn = true;
      else if (frame.offset !== undefined) this.#timeline.append([frame as Entry]);
    });
  }

  get position(): number {
    return this.#timeline.items.at(-1)?.offset ?? 0;
  }

  get view(): View {
    return { member: 'careless', room: ROOM, items: this.#timeline.items, from: 1, told: [] };
  }

  stop(): void {
    this.#socket.terminate();
  }
}

test('a line that swallows frames: the library finds it out and lacks nothing, and the checker says what somebody careless lacks', async (t) => {
  const { url: databaseUrl, drop } = await createTestDatabase();
  const secret = randomBytes(32).toString('base64url');
  const server = await Server.start({
    env: { DATABASE_URL: databaseUrl, JWT_SECRET: secret, JWT_AUDIENCE: 'test', LOG_LEVEL: 'warn' },
  });
  const url = `ws://127.0.0.1:${server.port}/chat`;
  const proxy = await ChatProxy.start(url);
  const checker = new ChatChecker(url);
  const [tokenOf, database] = [gatewayTokens(secret), new pg.Pool({ connectionString: databaseUrl, max: 1 })];
  let careless: Careless | undefined;
  t.after(async () => {
    careless?.stop();
    checker.stop();
    proxy.stop();
    await database.end();
    await server.stop();
    await drop();
  });
  await server.createChannel(ROOM);
  const author = await checker.join('author', tokenOf('author'), [ROOM]);
  const careful = await checker.join('careful', tokenOf('careful'), [ROOM], proxy.url);
  careless = new Careless(proxy.url, tokenOf('careless'));
  await eventually('somebody careless is in', () => (careless!.isIn ? true : undefined));

  const room = author.rooms[0]!;
  const stored = async () => (await database.query<StoredEntry>(STORED_ENTRIES)).rows;
  const say = (text: string) => checker.say(author, room, text);
  // The third message and the deletion of the first, which is the sixth entry, do not get through, on either line.
  proxy.swallows = ({ t: type, offset }) => (type === 'msg' && offset === 3) || type === 'del';
  for (const text of ['a piano', 'two drums', 'three trumpets', 'some violins', 'many voices']) assert.equal(await say(text), 'sent');
  const mid = room.timeline.items[0]!.mid!;
  await server.api('DELETE', `/rooms/${ROOM}/messages/${mid}`);
  checker.isDeleted(ROOM, mid);
  assert.equal(await say('and silence'), 'sent');
  const rows = await checker.settle(stored, 30_000);
  await eventually('somebody careless has the last message', () => (careless!.position === room.position ? true : undefined));
  assert.deepEqual(
    rows.map(({ type }) => type),
    ['gone', 'msg', 'msg', 'msg', 'msg', 'del', 'msg'],
  );
  assert.equal(proxy.swallowed, 4, 'two frames on two lines');

  const { compared, told, members: _m, entries: _e, acked: _a, unsettled, ...found } = checker.check(rows);
  assert.deepEqual(found, NO_FAULTS);
  assert.deepEqual([compared, told, unsettled], [14, 0, []]);
  assert.ok(careful.rooms[0]!.timeline.items.length === 7);

  const { compared: all, told: nothing, ...faults } = compareViews([...checker.views, careless.view], rows, checker.known);
  assert.deepEqual(faults, {
    ...NO_FAULTS,
    undetectedGaps: ['careless radio 3', 'careless radio 6'],
    lost: ['careless radio author-3'],
    notDeleted: [`careless radio ${mid}`],
    different: [`careless radio 1: msg ${mid}, stored gone ${mid}`],
  });
  assert.deepEqual([all, nothing], [21, 0]);
});
