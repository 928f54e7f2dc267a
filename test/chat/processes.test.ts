import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { addStats } from '../../src/chat/process-stats.js';
import { Processes, type ToProcess } from '../../src/chat/processes.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';

/** A child that does what the test says. */
class FakeChild extends EventEmitter {
  static nextPid = 1;
  readonly pid = FakeChild.nextPid++;
  connected = true;
  exitCode: number | null = null;
  signalCode: string | null = null;
  readonly told: ToProcess[] = [];
  sockets = 0;
  send(message: ToProcess, socket?: unknown, _options?: unknown, done?: () => void): boolean {
    this.told.push(message);
    if (socket) this.sockets++;
    done?.();
    return true;
  }
  ready(): void {
    this.emit('message', { say: 'ready' });
  }
  state(closed: number, more: object = {}): void {
    this.emit('message', { say: 'state', closed, stats: { ...addStats([]), ...more } });
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

async function world(count: number) {
  const clock = new FakeClock();
  const children: FakeChild[] = [];
  const processes = new Processes({
    count,
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

test('each socket goes to the process that has the fewest', async () => {
  const { children, processes } = await world(3);
  assert.deepEqual(children[0]!.told[0], { do: 'begin', with: { config: 1 } });
  for (let n = 0; n < 9; n++) processes.give(socket(), false);
  assert.deepEqual(
    children.map(({ sockets }) => sockets),
    [3, 3, 3],
  );
  children[1]!.state(2);
  processes.give(socket(), false);
  processes.give(socket(), true);
  assert.deepEqual(
    children.map(({ sockets }) => sockets),
    [3, 5, 3],
  );
});

test('a process that dies is replaced; what it has counted stays, its people do not', async () => {
  const { clock, children, processes } = await world(2);
  children[0]!.state(0, { connections: 7, users: 5, delivered: 100, deliveryCounts: [1, 2] });
  children[1]!.state(0, { connections: 1, users: 1, delivered: 10, deliveryCounts: [1, 1] });
  assert.deepEqual([processes.stats.connections, processes.stats.delivered], [8, 110]);
  children[0]!.exit(null, 'SIGKILL');
  await settled();
  assert.equal(children.length, 3);
  const { connections, users, delivered, deliveryCounts } = processes.stats;
  assert.deepEqual([connections, users, delivered, deliveryCounts], [1, 1, 110, [2, 3]]);
  for (let n = 0; n < 4; n++) processes.give(socket(), false);
  assert.equal(children[2]!.sockets, 0, 'not before it is ready');
  children[2]!.ready();
  await settled();
  processes.give(socket(), false);
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
  for (let n = 0; n < 8; n++) processes.give(socket(), false);
  const restarting = processes.restart(2);
  await settled();
  assert.equal(children.length, 3);
  assert.ok(!children[0]!.told.some((told) => told.do === 'drain'));
  children[2]!.ready();
  await settled();
  assert.deepEqual(children[0]!.told.at(-1), { do: 'drain', withinMs: 2000, retryMs: 1000 });
  for (let n = 0; n < 4; n++) processes.give(socket(), false);
  assert.deepEqual([children[0]!.sockets, children[1]!.sockets, children[2]!.sockets], [4, 4, 4]);
  assert.equal(children.length, 3, 'the next waits');
  children[0]!.exit(0);
  await settled();
  assert.equal(children.length, 4);
  children[3]!.ready();
  await settled();
  // It hangs.
  clock.advance(13_000);
  await settled();
  assert.equal(children[1]!.signalCode, 'SIGKILL');
  await restarting;
  assert.deepEqual(processes.pids, [children[2]!.pid, children[3]!.pid]);
  assert.equal(children.length, 4);
});

test('a replacement that does not start leaves the old one where it is', async () => {
  const { children, processes } = await world(1);
  const restarting = processes.restart(1000);
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
  const processes = new Processes({ count: 2, begin: {}, clock, log: silentLog, start });
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
  assert.deepEqual(children[1]!.told.at(-1), { do: 'drain', withinMs: 0, retryMs: 5000 });
  children[0]!.exit(0);
  clock.advance(10_000);
  await stopping;
  assert.equal(children[1]!.signalCode, 'SIGKILL');
  await processes.stop(0);
  await settled();
  assert.equal(children.length, 2);
  const late = socket();
  processes.give(late, false);
  assert.ok(late.destroyed);
});

test('a socket whose process has just gone is destroyed, and the client comes back', async () => {
  const { children, processes } = await world(1);
  children[0]!.connected = false;
  const one = socket();
  processes.give(one, false);
  assert.ok(one.destroyed);
});
