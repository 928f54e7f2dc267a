import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EXACT_UP_TO, LINGER_MS, Presence } from '../../src/chat/presence.js';
import { FakeClock } from '../../src/runtime/clock.js';

class Wire {
  readonly listeners: ((text: string) => void)[] = [];
  isCut = false;
  texts = 0;
  publish = (text: string) => {
    this.texts++;
    if (!this.isCut) for (const listener of [...this.listeners]) listener(text);
  };
  onText = (listener: (text: string) => void) => void this.listeners.push(listener);
}
const person = (n: number) => ({ id: `u-${n}`, name: `U ${n}` });

function world(count: number) {
  const clock = new FakeClock();
  const wire = new Wire();
  const processes = Array.from({ length: count }, () => new Presence({ clock, bus: wire }));
  return { clock, wire, processes: processes as [Presence, Presence, ...Presence[]] };
}

test('one person in several processes is one; guests are counted each', () => {
  const { clock, processes } = world(3);
  for (const presence of processes) {
    presence.enter('r', person(1));
    presence.enter('r', undefined);
  }
  processes[0].enter('r', person(2));
  clock.advance(1000);
  assert.deepEqual(
    processes.map((presence) => presence.count('r')),
    [5, 5, 5],
  );
});

test('above so many it is each process’s count', () => {
  const { clock, processes } = world(2);
  for (const presence of processes) for (let n = 0; n < EXACT_UP_TO; n++) presence.enter('r', person(n));
  clock.advance(1000);
  assert.equal(processes[0].count('r'), 2 * EXACT_UP_TO);
});

test('who loses his connection is there for a while; who leaves is not', () => {
  const { clock, processes } = world(2);
  const told: number[] = [];
  processes[0].onCounts((_room, count) => told.push(count));
  processes[0].enter('r', person(1));
  processes[0].enter('r', person(2));
  clock.advance(1000);
  processes[0].leave('r', person(1), true);
  clock.advance(LINGER_MS - 1000);
  processes[0].enter('r', person(1));
  clock.advance(LINGER_MS * 2);
  assert.deepEqual(told, [2]);
  processes[0].leave('r', person(2), false);
  clock.advance(1000);
  assert.deepEqual(told, [2, 1]);
  assert.equal(processes[1].count('r'), 1);
});

test('a process that is silent has nobody; one that begins is told; one that stops says so', () => {
  const { clock, wire, processes } = world(2);
  processes[0].enter('r', person(1));
  clock.advance(1000);
  const late = new Presence({ clock, bus: wire });
  clock.advance(1000);
  assert.equal(late.count('r'), 1);
  processes[0].stop();
  assert.equal(late.count('r'), 0);
  processes[1].enter('r', person(2));
  clock.advance(1000);
  assert.equal(late.count('r'), 1);
  wire.isCut = true;
  clock.advance(17_000);
  assert.equal(late.count('r'), 0);
  wire.isCut = false;
  clock.advance(60_000);
  assert.equal(late.count('r'), 1, 'all is said again');
});

test('telling counts is bounded: the rest is told as what may wait', () => {
  const clock = new FakeClock();
  const presence = new Presence({ clock });
  const told: string[] = [];
  presence.onCounts((room, count, isCostly) => {
    told.push(`${room} ${count}${isCostly ? ' later' : ''}`);
    return isCostly ? 0 : 250;
  });
  for (let n = 0; n < 4; n++) presence.enter(`r${n}`, person(1));
  clock.advance(1000);
  assert.deepEqual(told.splice(0), ['r0 1', 'r1 1', 'r2 1 later', 'r3 1 later']);
  presence.enter('r3', person(2));
  clock.advance(3000);
  assert.deepEqual(told, ['r3 2'], 'each change once');
});

test('what is said again is spread over a minute, and a process that begins is told everything within seconds', () => {
  const { clock, wire, processes } = world(2);
  const said: string[][] = [];
  wire.onText((text) => said.push(Object.keys((JSON.parse(text) as { rooms?: object }).rooms ?? {})));
  const most = () => Math.max(...said.map(({ length }) => length));
  for (let n = 0; n < 1200; n++) processes[0].enter(`r${n}`, person(n));
  clock.advance(3000);
  assert.equal(most(), 500, 'at most so many rooms a second');
  assert.equal(processes[1].count('r1199'), 1);
  said.splice(0);
  clock.advance(62_000);
  assert.equal(most(), 20, 'a sixtieth of them each second');
  assert.equal(new Set(said.flat()).size, 1200);
  const late = new Presence({ clock, bus: wire });
  clock.advance(3000);
  assert.equal(late.count('r0') + late.count('r600') + late.count('r1199'), 3);
});

test('what others say is not believed blindly', () => {
  const { clock, wire, processes } = world(2);
  processes[0].enter('r', person(1));
  for (const text of [
    '',
    'x',
    '[]',
    '{}',
    '{"p":5}',
    '{"p":"x","rooms":{"r":5}}',
    '{"p":"x","rooms":{"r":[-1,0,null]}}',
    '{"p":"x","rooms":null}',
  ])
    wire.publish(text);
  clock.advance(1000);
  assert.equal(processes[0].count('r'), 1);
});
