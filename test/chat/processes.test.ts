import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import type { HandedRequest } from '../../src/chat/gateway/handed-request.js';
import { addStats } from '../../src/chat/gateway/process-stats.js';
import { type PortHandle, ProcessPool, type ToProcess } from '../../src/chat/processes/process-pool.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';

const PORT = {} as PortHandle;
const REQUEST: HandedRequest = { method: 'GET', url: '/chat', rawHeaders: [], head: '' };

/** A child that does what the test says. */
class FakeChild extends EventEmitter {
  static nextPid = 1;
  readonly pid = FakeChild.nextPid++;
  connected = true;
  exitCode: number | null = null;
  signalCode: string | null = null;
  readonly told: ToProcess[] = [];
  sockets = 0;
  handles = 0;
  send(message: ToProcess, ...more: readonly unknown[]): boolean {
    this.told.push(message);
    if (message.do === 'take') this.sockets++;
    if (message.do === 'accept' && more[0] === PORT) this.handles++;
    (more.at(-1) as () => void)();
    return true;
  }
  ready(): void {
    this.emit('message', { say: 'ready' });
  }
  state(state: { open?: number; taken?: number; accepts?: boolean }, stats: object = {}): void {
    this.emit('message', { say: 'state', open: 0, taken: 0, accepts: false, ...state, stats: { ...addStats([]), ...stats } });
  }
  /** How far it may go. */
  get upTo(): number | undefined {
    return this.told.reduce<number | undefined>((upTo, told) => (told.do === 'accept' ? told.upTo : upTo), undefined);
  }
  exit(code: number | null, signal: string | null = null): void {
    this.connected = false;
    this.exitCode = code;
    this.signalCode = signal;
    this.emit('exit', code, signal);
  }
  kill(signal: string): boolean {
    if (this.connected) this.exit(null, signal);
    return true;
  }
}

class FakeSocket {
  destroyed = false;
  destroy(): void {
    this.destroyed = true;
  }
}
const socket = () => new FakeSocket() as unknown as Socket & FakeSocket;
const settled = async () => {
  for (let n = 0; n < 5; n++) await new Promise((resolve) => setImmediate(resolve));
};

/** As time passes. */
const waited = async (clock: FakeClock, ms: number) => {
  for (let passed = 0; passed < ms; passed += 100) {
    await settled();
    clock.advance(100);
  }
  await settled();
};

async function world(count: number, full = 1000) {
  const clock = new FakeClock();
  const children: FakeChild[] = [];
  const processes = new ProcessPool({
    count,
    full,
    begin: { config: 1 },
    clock,
    log: silentLog,
    start: () => {
      const child = new FakeChild();
      children.push(child);
      return child as unknown as ChildProcess;
    },
  });
  const starting = processes.start();
  for (const child of children) child.ready();
  await starting;
  return { clock, children, processes };
}

test('a request that was read goes to the process that has the fewest', async () => {
  const { children, processes } = await world(3);
  assert.deepEqual(children[0]!.told[0], { do: 'begin', with: { config: 1 } });
  for (let n = 0; n < 9; n++) processes.handOver(socket(), REQUEST);
  assert.deepEqual(
    children.map(({ sockets }) => sockets),
    [3, 3, 3],
  );
  assert.deepEqual(children[0]!.told.at(-1), { do: 'take', request: REQUEST });
  // Of three it has taken two, which are gone, and one is on its way.
  children[1]!.state({ open: 0, taken: 2 });
  processes.handOver(socket(), REQUEST);
  processes.handOver(socket(), REQUEST);
  assert.deepEqual(
    children.map(({ sockets }) => sockets),
    [3, 5, 3],
  );
});

test('each accepts until it is a little ahead of the emptiest, and is given the port again when that one has caught up', async () => {
  const { children, processes } = await world(3);
  assert.ok(children.every(({ upTo }) => upTo === undefined));
  processes.sharePorts(new Map([['plain', PORT]]));
  assert.deepEqual(
    children.map(({ upTo, handles }) => [upTo, handles]),
    [
      [2, 1],
      [2, 1],
      [2, 1],
    ],
  );
  const [one, two, three] = children as [FakeChild, FakeChild, FakeChild];
  one.state({ open: 2 });
  two.state({ open: 2 });
  assert.deepEqual([one.handles, two.handles], [1, 1], 'it is the turn of the third');
  three.state({ open: 2 });
  assert.deepEqual([one.handles, two.handles, three.handles], [2, 2, 2]);
  assert.deepEqual([one.upTo, two.upTo, three.upTo], [4, 4, 4]);
  one.state({ open: 320, accepts: true });
  two.state({ open: 320, accepts: true });
  three.state({ open: 320, accepts: true });
  assert.equal(one.upTo, 320 + 2 + 5, 'the more there are, the less it matters');
  assert.equal(one.handles, 2, 'it has the port');
  three.state({ open: 0, accepts: true });
  assert.deepEqual([one.upTo, two.upTo], [2, 2], 'and to less when another has become emptier');
});

test('nobody waits for a process that says nothing', async () => {
  const { clock, children, processes } = await world(2);
  processes.sharePorts(new Map([['plain', PORT]]));
  const [silent, other] = children as [FakeChild, FakeChild];
  other.state({ open: 2 });
  assert.equal(other.handles, 1);
  clock.advance(1001);
  other.state({ open: 2 });
  assert.deepEqual([other.handles, other.upTo], [2, 4]);
  silent.state({ open: 0, accepts: true });
  other.state({ open: 4 });
  assert.equal(other.handles, 2, 'it is back');
});

test('one that hangs is killed and replaced, and is given nothing meanwhile', async () => {
  const { clock, children, processes } = await world(2);
  const [hung, other] = children as [FakeChild, FakeChild];
  for (let second = 0; second < 29; second++) {
    clock.advance(1000);
    other.state({ open: 5 });
    // It is not known at once.
    if (second > 1) processes.handOver(socket(), REQUEST);
  }
  assert.deepEqual([hung.sockets, other.sockets], [0, 27]);
  assert.equal(hung.signalCode, null);
  clock.advance(1000);
  await settled();
  assert.equal(hung.signalCode, 'SIGKILL');
  assert.equal(children.length, 3);
  assert.equal(other.signalCode, null);
});

test('sharing resolves when the first accepts, and rejects when it cannot', async () => {
  const { children, processes } = await world(2);
  const sharing = processes.sharePorts(new Map([['plain', PORT]]));
  children[0]!.emit('message', { say: 'deaf', reason: 'listen EADDRINUSE' });
  await assert.rejects(sharing, /EADDRINUSE/);
  const others = await world(2);
  const shared = others.processes.sharePorts(new Map([['plain', PORT]]));
  others.children[1]!.state({ accepts: true });
  await shared;
});

test('both ports go to a process, each with how many there are', async () => {
  const { children, processes } = await world(1);
  processes.sharePorts(
    new Map([
      ['plain', PORT],
      ['secure', PORT],
    ]),
  );
  assert.deepEqual(
    children[0]!.told.filter((told) => told.do === 'accept'),
    [
      { do: 'accept', upTo: 2, port: { name: 'plain', of: 2 } },
      { do: 'accept', upTo: 2, port: { name: 'secure', of: 2 } },
    ],
  );
});

test('none goes beyond what it is meant to hold before all do, and then all go on, to say that they are full', async () => {
  const { children, processes } = await world(2, 3);
  processes.sharePorts(new Map([['plain', PORT]]));
  const [one, two] = children as [FakeChild, FakeChild];
  one.state({ open: 2 });
  two.state({ open: 2 });
  assert.deepEqual([one.upTo, two.upTo], [3, 3]);
  one.state({ open: 3 });
  assert.deepEqual([one.upTo, one.handles], [3, 2]);
  two.state({ open: 3 });
  assert.deepEqual([one.upTo, one.handles, two.upTo], [5, 3, 5]);
});

test('a process that dies is replaced; what it has counted stays, its people do not', async () => {
  const { clock, children, processes } = await world(2);
  children[0]!.state({}, { connections: 7, users: 5, delivered: 100, deliveryCounts: [1, 2] });
  children[1]!.state({}, { connections: 1, users: 1, delivered: 10, deliveryCounts: [1, 1] });
  assert.deepEqual([processes.stats.connections, processes.stats.delivered], [8, 110]);
  children[0]!.exit(null, 'SIGKILL');
  await settled();
  assert.equal(children.length, 3);
  const { connections, users, delivered, deliveryCounts } = processes.stats;
  assert.deepEqual([connections, users, delivered, deliveryCounts], [1, 1, 110, [2, 3]]);
  for (let n = 0; n < 4; n++) processes.handOver(socket(), REQUEST);
  assert.equal(children[2]!.sockets, 0, 'not before it is ready');
  children[2]!.ready();
  await settled();
  processes.handOver(socket(), REQUEST);
  assert.equal(children[2]!.sockets, 1);

  children[2]!.exit(1);
  await settled();
  children[3]!.exit(1);
  await settled();
  assert.equal(children.length, 4, 'one that does not start is tried again after a while');
  clock.advance(1000);
  await settled();
  assert.equal(children.length, 5);
});

test('replaced one by one: the new one is ready before the old one sends its people away', async () => {
  const { clock, children, processes } = await world(2);
  for (let n = 0; n < 8; n++) processes.handOver(socket(), REQUEST);
  const restarting = processes.replaceAll(2);
  await settled();
  assert.equal(children.length, 3);
  assert.ok(!children[0]!.told.some((told) => told.do === 'drain'));
  processes.sharePorts(new Map([['plain', PORT]]));
  assert.equal(children[2]!.upTo, undefined, 'not before it is ready');
  children[2]!.ready();
  await settled();
  assert.equal(children[2]!.upTo, 2);
  assert.deepEqual(children[0]!.told.at(-1), { do: 'drain', count: 1, retryMs: 1000 });
  await waited(clock, 500);
  assert.deepEqual(children[0]!.told.at(-1), { do: 'end', retryMs: 1000 });
  for (let n = 0; n < 4; n++) processes.handOver(socket(), REQUEST);
  assert.deepEqual([children[0]!.sockets, children[1]!.sockets, children[2]!.sockets], [4, 4, 4]);
  assert.equal(children.length, 3, 'the next waits');
  children[0]!.exit(0);
  await settled();
  assert.equal(children.length, 4);
  children[3]!.ready();
  await settled();
  // It hangs.
  await waited(clock, 400 + 10_000);
  assert.equal(children[1]!.signalCode, 'SIGKILL');
  await restarting;
  assert.deepEqual(processes.pids, [children[2]!.pid, children[3]!.pid]);
  assert.equal(children.length, 4);
});

test('a process that is replaced sends nobody away whom the others have not taken in, but for those who never come back', async () => {
  const { clock, children, processes } = await world(2);
  for (const child of children) child.state({ open: 3000 });
  const [leaving, other] = children as [FakeChild, FakeChild];
  const sent = () => leaving.told.reduce((sum, told) => sum + (told.do === 'drain' ? told.count : 0), 0);
  const passed = async (ms: number) => {
    for (let until = 0; until < ms; until += 100) {
      leaving.state({ open: 3000 - sent() + 1 });
      await waited(clock, 100);
    }
  };
  const restarting = processes.replaceAll(2000);
  const replacement = children[2]!;
  replacement.ready();
  await settled();
  assert.equal(sent(), 200);
  await passed(1000);
  assert.equal(sent(), 500, 'no more than so many are away');
  replacement.state({ open: 250 });
  other.state({ open: 3050 });
  await passed(1000);
  assert.equal(sent(), 800);
  // Those 500 are gone for good.
  await passed(1800);
  assert.equal(sent(), 800);
  await passed(1000);
  assert.equal(sent(), 1300);
  assert.ok(!leaving.told.some((told) => told.do === 'end'));
  for (let open = 300; sent() < 3000; open += 500) {
    replacement.state({ open });
    await passed(500);
  }
  await passed(100);
  assert.deepEqual(leaving.told.at(-1), { do: 'end', retryMs: 1000 });
  leaving.exit(0);
  await settled();
  children[3]!.emit('message', { say: 'failed', reason: 'enough' });
  await restarting;
});

test('a process that hangs, or has nobody left, is not drained for long', async () => {
  const { clock, children, processes } = await world(2);
  const [hung, left] = children as [FakeChild, FakeChild];
  hung.state({ open: 10_000 });
  left.state({ open: 10_000 });
  const restarting = processes.replaceAll(1000);
  children[2]!.ready();
  await waited(clock, 3100);
  assert.deepEqual(hung.told.at(-1), { do: 'end', retryMs: 1000 });
  hung.exit(0);
  await settled();
  left.state({ open: 10_000 });
  children[3]!.ready();
  await waited(clock, 500);
  left.state({ open: 0 });
  await waited(clock, 200);
  assert.deepEqual(left.told.at(-1), { do: 'end', retryMs: 1000 });
  left.exit(0);
  await restarting;
});

test('one that dies while its replacement starts is not replaced twice', async () => {
  const { children, processes } = await world(2);
  const restarting = processes.replaceAll(1000);
  await settled();
  children[0]!.exit(null, 'SIGSEGV');
  await settled();
  assert.equal(children.length, 3);
  children[2]!.emit('message', { say: 'failed', reason: 'no database' });
  await restarting;
  await settled();
  assert.equal(children.length, 4, 'but it is when that one does not start');
});

test('a replacement that does not start leaves the old one where it is', async () => {
  const { children, processes } = await world(1);
  const restarting = processes.replaceAll(1000);
  await settled();
  children[1]!.emit('message', { say: 'failed', reason: 'no database' });
  await restarting;
  assert.deepEqual(processes.pids, [children[0]!.pid]);
});

test('the start fails when one does not start, and nothing is left', async () => {
  const children: FakeChild[] = [];
  const clock = new FakeClock();
  const start = () => {
    const child = new FakeChild();
    children.push(child);
    return child as unknown as ChildProcess;
  };
  const processes = new ProcessPool({ count: 2, full: 10, begin: {}, clock, log: silentLog, start });
  const starting = processes.start();
  children[0]!.ready();
  children[1]!.emit('message', { say: 'failed', reason: 'Redis is too old' });
  await settled();
  clock.advance(10_000);
  await assert.rejects(starting, /Redis is too old/);
  assert.ok(children.every(({ connected }) => !connected));
});

test('stopping tells everybody when to come back, twice is harmless, and what hangs is killed', async () => {
  const { clock, children, processes } = await world(2);
  const stopping = processes.stop(5000);
  assert.deepEqual(children[1]!.told.at(-1), { do: 'end', retryMs: 5000 });
  children[0]!.exit(0);
  clock.advance(10_000);
  await stopping;
  assert.equal(children[1]!.signalCode, 'SIGKILL');
  await processes.stop(0);
  await settled();
  assert.equal(children.length, 2);
  const late = socket();
  processes.handOver(late, REQUEST);
  assert.ok(late.destroyed);
});

test('a socket whose process has just gone is destroyed, and the client comes back', async () => {
  const { children, processes } = await world(1);
  children[0]!.connected = false;
  const one = socket();
  processes.handOver(one, REQUEST);
  assert.ok(one.destroyed);
});

test('a process that met an exception is replaced: the new one is ready before its people are sent away', async () => {
  const { clock, children, processes } = await world(2);
  children[0]!.state({ open: 3 });
  children[0]!.emit('message', { say: 'unwell' });
  children[0]!.emit('message', { say: 'unwell' });
  await settled();
  assert.equal(children.length, 3, 'one replacement, however often it is said');
  assert.ok(!children[0]!.told.some((told) => told.do === 'drain' || told.do === 'end'));
  children[2]!.ready();
  await settled();
  assert.ok(children[0]!.told.some((told) => told.do === 'drain'));
  children[0]!.state({ open: 0 });
  await waited(clock, 500);
  assert.equal(children[0]!.told.at(-1)!.do, 'end');
  children[0]!.exit(0);
  await settled();
  assert.equal(children.length, 3);
  assert.equal(processes.pids.length, 2);
});

test('a process that the system refuses is tried for again, and stop does not wait for it', async () => {
  const clock = new FakeClock();
  const children: FakeChild[] = [];
  let refuses: 'no' | 'at once' | 'later' = 'no';
  const processes = new ProcessPool({
    count: 1,
    full: 10,
    begin: {},
    clock,
    log: silentLog,
    start: () => {
      if (refuses === 'at once') throw new Error('spawn ENOMEM');
      const child = new FakeChild();
      children.push(child);
      if (refuses === 'later') {
        Object.assign(child, { pid: undefined, connected: false });
        process.nextTick(() => child.emit('error', new Error('spawn EAGAIN')));
      }
      return child as unknown as ChildProcess;
    },
  });
  const starting = processes.start();
  children[0]!.ready();
  await starting;
  refuses = 'at once';
  children[0]!.exit(null, 'SIGKILL');
  await waited(clock, 3000);
  refuses = 'later';
  await waited(clock, 3000);
  const tried = children.length;
  assert.ok(tried >= 3, `${tried}`);
  refuses = 'no';
  await waited(clock, 2000);
  children.at(-1)!.ready();
  await settled();
  assert.equal(processes.pids.length, 1);
  children.at(-1)!.exit(0);
  refuses = 'later';
  await waited(clock, 2000);
  await processes.stop(0);
});
