import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EXACT_UP_TO } from '../../src/chat/rooms/presence/local-members.js';
import { LINGER_MS, Presence } from '../../src/chat/rooms/presence/presence.js';
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
    presence.enterRoom('r', person(1));
    presence.enterRoom('r', undefined);
  }
  processes[0].enterRoom('r', person(2));
  clock.advance(1000);
  assert.deepEqual(
    processes.map((presence) => presence.count('r')),
    [5, 5, 5],
  );
});

test('above so many it is each process’s count', () => {
  const { clock, processes } = world(2);
  for (const presence of processes) for (let n = 0; n < EXACT_UP_TO; n++) presence.enterRoom('r', person(n));
  clock.advance(1000);
  assert.equal(processes[0].count('r'), 2 * EXACT_UP_TO);
});

test('who loses his connection is there for a while; who leaves is not', () => {
  const { clock, processes } = world(2);
  const told: number[] = [];
  processes[0].onCounts((_room, count) => told.push(count));
  processes[0].enterRoom('r', person(1));
  processes[0].enterRoom('r', person(2));
  clock.advance(1000);
  processes[0].leaveRoom('r', person(1), true);
  clock.advance(LINGER_MS - 1000);
  processes[0].enterRoom('r', person(1));
  clock.advance(LINGER_MS * 2);
  assert.deepEqual(told, [2]);
  processes[0].leaveRoom('r', person(2), false);
  clock.advance(1000);
  assert.deepEqual(told, [2, 1]);
  assert.equal(processes[1].count('r'), 1);
});

test('a process that is silent has nobody; one that begins is told; one that stops says so', () => {
  const { clock, wire, processes } = world(2);
  processes[0].enterRoom('r', person(1));
  clock.advance(1000);
  const late = new Presence({ clock, bus: wire });
  clock.advance(1000);
  assert.equal(late.count('r'), 1);
  processes[0].stop();
  assert.equal(late.count('r'), 0);
  processes[1].enterRoom('r', person(2));
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
  for (let n = 0; n < 4; n++) presence.enterRoom(`r${n}`, person(1));
  clock.advance(1000);
  assert.deepEqual(told.splice(0), ['r0 1', 'r1 1', 'r2 1 later', 'r3 1 later']);
  presence.enterRoom('r3', person(2));
  clock.advance(3000);
  assert.deepEqual(told, ['r3 2'], 'each change once');
});

test('what is said again is spread over a minute, and a process that begins is told everything within seconds', () => {
  const { clock, wire, processes } = world(2);
  const said: string[][] = [];
  wire.onText((text) => said.push(Object.keys((JSON.parse(text) as { rooms?: object }).rooms ?? {})));
  const most = () => Math.max(...said.map(({ length }) => length));
  for (let n = 0; n < 1200; n++) processes[0].enterRoom(`r${n}`, person(n));
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
  processes[0].enterRoom('r', person(1));
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

test('who is in a room is asked of every process and put together, each once; a process without connections knows it too', async () => {
  const { clock, wire, processes } = world(3);
  const [api, one, two] = processes as [Presence, Presence, Presence];
  for (let n = 0; n < 300; n++) one.enterRoom('r', person(n));
  for (let n = 200; n < 500; n++) two.enterRoom('r', person(n));
  one.enterRoom('r', undefined);
  one.enterRoom('other', person(900));
  clock.advance(1000);
  const names = (people: readonly { id: string; name: string }[]) => people.map(({ id, name }) => `${id} ${name}`).sort();
  const everybody = names(Array.from({ length: 500 }, (_, n) => person(n)));
  assert.deepEqual(names(await api.people('r', 500)), everybody);
  assert.deepEqual(names(await two.people('r', 500)), everybody);
  assert.equal((await two.people('r', 5)).length, 5);
  assert.deepEqual(await api.people('nobody', 100), []);
  const texts = wire.texts;
  assert.equal(
    (await Promise.all(Array.from({ length: 50 }, () => api.people('r', 100)))).every((found) => found.length === 100),
    true,
  );
  assert.equal(wire.texts, texts, 'within a second it is not asked again');
  clock.advance(1000);
  one.leaveRoom('r', person(0), false);
  assert.equal((await api.people('r', 500)).length, 499);
});

test('a process that does not answer is not waited for, nor the bus when it is away; one that stops is known at once', async () => {
  const { clock, wire, processes } = world(2);
  const [one, two] = processes;
  const dead = new Presence({ clock, bus: { publish: (text) => text.includes('"to"') || wire.publish(text), onText: wire.onText } });
  one.enterRoom('r', person(1));
  two.enterRoom('r', person(2));
  dead.enterRoom('r', person(3));
  clock.advance(1000);
  const asking = one.people('r');
  clock.advance(300);
  assert.deepEqual(await asking, [person(1), person(2)]);
  clock.advance(1000);
  const stopping = one.people('r');
  dead.stop();
  assert.deepEqual(await stopping, [person(1), person(2)]);
  clock.advance(1000);
  wire.isCut = true;
  const away = one.people('r');
  clock.advance(300);
  assert.deepEqual(await away, [person(1)]);
});

test('idle rooms cost no more for it, and an answer is read by him who asked', async () => {
  const { clock, wire, processes } = world(3);
  const said: string[] = [];
  wire.onText((text) => said.push(text));
  for (let n = 0; n < 100; n++) processes[1].enterRoom(`r${n}`, person(n));
  clock.advance(20_000);
  assert.ok(said.every((text) => !text.includes('"who"') && !text.startsWith('{"to"')));
  // Of somebody who may say what he likes: bounded, and nothing that is no person.
  wire.publish('{"p":"stranger","rooms":{}}');
  const asking = processes[0].people('r1', 8);
  const { p, who } = JSON.parse(said.find((text) => text.includes('"who"'))!) as { p: string; who: [number, string, number] };
  const people = [[5, 'x'], ['y'], null, ['z'.repeat(2000), 'z'], ...Array.from({ length: 1000 }, (_, n) => [`n${n}`, 'N'])];
  wire.publish(JSON.stringify({ to: p, p: 'stranger', room: 'r1', n: who[0], people }));
  for (const text of ['null', JSON.stringify({ to: p }), JSON.stringify({ to: p, p: 'x', room: 'r1' }), '{"p":"x","who":[1]}'])
    wire.publish(text);
  assert.deepEqual(
    (await asking).map(({ id }) => id),
    ['u-1', 'n0', 'n1', 'n2', 'n3'],
  );
});

test('what another process says of a room and cannot be is not believed; the counts of all rooms go on', () => {
  const { clock, wire, processes } = world(1);
  const [presence] = processes;
  presence.enterRoom('r', person(1));
  const told: [string, number][] = [];
  presence.onCounts((roomId, count) => told.push([roomId, count]));
  for (const share of [
    [1, 0, 7],
    [1, 0, { length: 8 }],
    ['1', 0, null],
    [1, null, ''],
    [1.5, 0, null],
  ])
    wire.publish(JSON.stringify({ p: 'other', rooms: { r: share } }));
  presence.enterRoom('q', person(2));
  clock.advance(1000);
  assert.deepEqual(told, [
    ['r', 1],
    ['q', 1],
  ]);
});
