import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { type Database, openDatabase } from '../../src/backing/database/database.js';
import { chatEpochs } from '../../src/backing/database/migrations/0007-chat-epochs.js';
import type { Room } from '../../src/chat/rooms/room.js';
import type { Rooms } from '../../src/chat/rooms/rooms.js';
import { silentLog } from '../../src/runtime/log.js';
import { Member, makeRoom, makeRooms, publish } from '../support/chat-rooms.js';
import { createTestDatabase, type TestDatabase } from '../support/database.js';
import { FastClock, FaultyDatabase, FaultyLink, Gate, LogServer } from '../support/faulty-chat.js';

/** Seconds of the service take a tenth here. */
const FASTER = 10;
const PROCESSES = 3;
const AUTHORS = 6;

interface Process {
  readonly clock: FastClock;
  readonly rooms: Rooms;
  readonly room: Room;
  readonly link: FaultyLink;
  readonly logGate: Gate;
  readonly databaseGate: Gate;
  readonly members: Member[];
}

const FAULTS = [
  'wipe',
  'deaf',
  'stutter',
  'logAway',
  'databaseAway',
  'allDatabasesAway',
  'databaseDown',
  'sleep',
  'kill',
  'both',
  'bothDown',
  'oneLosesAll',
] as const;
type Fault = { readonly kind: (typeof FAULTS)[number]; readonly process: number; readonly forMs: number; readonly pauseMs: number };

/** As it is installed. */
const ARCHIVE_FUNCTION = chatEpochs
  .slice(chatEpochs.indexOf('create function chat_archive('), chatEpochs.indexOf('-- No row: the epoch is not'))
  .replace('create function', 'create or replace function');

/** As it was: whatever has been stored at the offset of an entry is taken for that entry. */
const careless = (sql: string): string => {
  const joined = sql.replace('s."offset" = g."offset" and s.epoch = g.epoch', 's."offset" = g."offset"');
  const taken = joined.replace('where not (f.is_stored and f.known_n is null)', 'where f.stored_offset is null or f.known_n is not null');
  assert.ok(joined !== sql && taken !== joined);
  return taken;
};

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Several processes of a chat on one log and one PostgreSQL, with members and authors, while faults are put in; and what must hold at the end. */
class World {
  readonly clock = new FastClock(FASTER);
  readonly server = new LogServer(this.clock);
  readonly database: Database;
  readonly roomId: string;
  readonly processes: (Process | undefined)[] = [];
  readonly acked = new Map<string, number>();
  #isOver = false;
  /** Of members of processes that were killed. */
  readonly #checked: Member[] = [];

  constructor(database: Database, roomId: string) {
    this.database = database;
    this.roomId = roomId;
  }

  async startProcess(index: number): Promise<void> {
    const logGate = new Gate();
    const databaseGate = new Gate();
    const link = new FaultyLink(this.server, logGate);
    const clock = this.clock.another();
    const { rooms } = makeRooms(new FaultyDatabase(this.database, databaseGate), link, { clock });
    rooms.start();
    const room = await untilDone(() => rooms.open(this.roomId));
    this.processes[index] = { clock, rooms, room, link, logGate, databaseGate, members: [new Member(room, 0), new Member(room)] };
  }

  /** A process dies with all it had in memory; its members go on elsewhere from where they were. */
  async kill(index: number): Promise<void> {
    const victim = this.processes[index];
    if (!victim) return;
    victim.logGate.isDead = true;
    victim.databaseGate.isDead = true;
    victim.clock.halt();
    this.processes[index] = undefined;
    await this.startProcess(index);
    const { room, members } = this.processes[index]!;
    for (const old of victim.members) {
      victim.room.removeListener(old);
      // Who died before anybody had said anything has seen nothing.
      if (old.entries.size > 0) this.#checked.push(old);
      const { cursor, keep } = await untilDone(() => room.resumeFrom({ epoch: old.epoch, offset: old.cursor }));
      const member = new Member(room, cursor);
      for (const [offset, entry] of old.entries) if (offset <= Math.min(cursor, keep ?? cursor)) member.entries.set(offset, entry);
      members.push(member);
    }
  }

  async author(name: string): Promise<void> {
    for (let i = 0; !this.#isOver; i++) {
      const key = `k${i}`;
      for (let attempt = 0; ; attempt++) {
        const process = this.processes[(i + attempt + Number(name.slice(1))) % PROCESSES];
        if (!process) {
          await sleep(5);
          continue;
        }
        // A process that is asleep or dead answers nothing: the client gives up and asks another.
        const answer = await within(800, async () => {
          const outcome = await publish(process.room, name, key, `${name} ${key}`);
          if (outcome.kind !== 'published') return undefined;
          const commit = await outcome.committed;
          return commit.kind === 'stored' ? { mid: outcome.mid, offset: commit.offset } : undefined;
        });
        if (answer) {
          this.acked.set(answer.mid, answer.offset);
          break;
        }
        await sleep(10);
      }
      await sleep(3);
    }
  }

  /** Somebody who says one thing after the other, whatever becomes of it: something is under way at every moment. */
  async chatterer(name: string): Promise<void> {
    const underWay: Promise<void>[] = [];
    for (let i = 0; !this.#isOver; i++) {
      const process = this.processes[i % PROCESSES];
      if (process) {
        const said = async () => {
          const outcome = await publish(process.room, name, `c${i}`, `${name} ${i}`);
          if (outcome.kind !== 'published') return;
          const commit = await outcome.committed;
          if (commit.kind === 'stored') this.acked.set(outcome.mid, commit.offset);
        };
        // Of a process that is killed nothing comes back.
        underWay.push(Promise.race([said(), process.clock.halted]));
      }
      await sleep(8);
    }
    await Promise.all(underWay);
  }

  /** Several at once. */
  async injectAll(faults: readonly Fault[]): Promise<void> {
    await Promise.all(faults.map((fault) => this.inject(fault)));
  }

  async inject({ kind, process: index, forMs, pauseMs }: Fault): Promise<void> {
    const process = this.processes[index % PROCESSES];
    await sleep(pauseMs);
    if (!process) return;
    const gates = this.processes.flatMap((one) => (one ? [one.databaseGate] : []));
    switch (kind) {
      case 'wipe':
        await this.server.wipe();
        break;
      case 'kill':
        await this.kill(index % PROCESSES);
        break;
      case 'deaf':
        process.link.isDeaf = true;
        await sleep(forMs);
        // Nobody tells it: it must find out.
        process.link.isDeaf = false;
        break;
      case 'stutter':
        process.link.isStuttering = true;
        await sleep(forMs);
        process.link.isStuttering = false;
        break;
      case 'logAway':
        process.logGate.isAway = true;
        await sleep(forMs);
        process.logGate.isAway = false;
        break;
      case 'databaseAway':
        process.databaseGate.isAway = true;
        await sleep(forMs);
        process.databaseGate.isAway = false;
        break;
      case 'allDatabasesAway':
        for (const gate of gates) gate.isAway = true;
        await sleep(forMs);
        for (const gate of gates) gate.isAway = false;
        break;
      case 'both':
        for (const gate of gates) gate.isAway = true;
        await sleep(forMs / 2);
        await this.server.wipe();
        await sleep(forMs / 2);
        for (const gate of gates) gate.isAway = false;
        break;
      case 'databaseDown':
        // Nothing is stored at all, so that everything that is said waits.
        for (const gate of gates) gate.isCut = true;
        await sleep(forMs);
        for (const gate of gates) gate.isCut = false;
        break;
      case 'bothDown':
        for (const gate of gates) gate.isCut = true;
        await sleep(forMs * 0.9);
        await this.server.wipe();
        await sleep(forMs * 0.1);
        // What waits of the dead epoch is stored together with what the new one has said at the same offsets meanwhile.
        for (const gate of gates) gate.isCut = false;
        break;
      case 'oneLosesAll':
        // Others store what comes after what this one cannot: there is a hole when the room is begun anew.
        process.databaseGate.isCut = true;
        await sleep(forMs / 2);
        await this.server.wipe();
        await sleep(forMs / 2);
        process.databaseGate.isCut = false;
        break;
      case 'sleep':
        process.logGate.sleep();
        process.databaseGate.sleep();
        await sleep(forMs);
        // It wakes up in a room that others have begun anew, with what it was about to store.
        await this.server.wipe();
        await sleep(50);
        process.logGate.wake();
        process.databaseGate.wake();
        break;
    }
  }

  /** Each of `moments` is one fault, or several at once. */
  async run(moments: readonly (Fault | readonly Fault[])[]): Promise<{ messages: number; epochs: number }> {
    for (let index = 0; index < PROCESSES; index++) await this.startProcess(index);
    try {
      return await this.#talk(moments.flatMap((moment) => [Array.isArray(moment) ? moment : [moment]]) as Fault[][]);
    } finally {
      this.#isOver = true;
      await Promise.all(this.processes.map((process) => process?.rooms.stop()));
      for (const process of this.processes) process?.clock.halt();
      await this.server.inner.stop();
    }
  }

  async #talk(moments: readonly (readonly Fault[])[]): Promise<{ messages: number; epochs: number }> {
    const authors = [...Array.from({ length: AUTHORS }, (_, i) => this.author(`u${i}`)), this.chatterer('chatterer')];
    await sleep(50);
    for (const faults of moments) await this.injectAll(faults);
    await sleep(50);
    this.#isOver = true;
    await Promise.all(authors);
    return this.check();
  }

  async check(): Promise<{ messages: number; epochs: number }> {
    const deadlineMs = performance.now() + 20_000;
    // The last wipe may not have been noticed yet.
    const state = async () => {
      const page = await this.server.inner.read(this.roomId, Number.MAX_SAFE_INTEGER, 1);
      const { rows } = await this.database.query<{ epoch: number }>('select epoch from rooms where id = $1', [this.roomId]);
      return page?.epoch === rows[0]!.epoch ? page : undefined;
    };
    let page = await state();
    while (!page) {
      assert.ok(performance.now() < deadlineMs, 'the room is not begun anew');
      await sleep(20);
      page = await state();
    }
    const members = this.processes.flatMap((process) => process!.members);
    while (members.some((member) => member.cursor < page.head || member.epoch < page.epoch)) {
      assert.ok(performance.now() < deadlineMs, `a member is at ${members.map((member) => member.cursor)} of ${page.head}`);
      await sleep(20);
    }
    for (const member of [...members, ...this.#checked]) assert.deepEqual(member.faults, []);

    // Everything that the log has is stored in the end, also by a process that died.
    for (;;) {
      const { archived, head } = (await this.server.inner.read(this.roomId, Number.MAX_SAFE_INTEGER, 1))!;
      if (archived === head) break;
      assert.ok(performance.now() < deadlineMs, `stored are ${archived} of ${head}`);
      await sleep(20);
    }
    const { rows } = await this.database.query<{ offset: number; type: string; mid: string | null }>(
      'select "offset", type, mid from messages where room_id = $1 order by "offset"',
      [this.roomId],
    );
    assert.deepEqual(
      rows.map((row) => row.offset),
      rows.map((_, i) => i + 1),
      'no hole in PostgreSQL',
    );
    assert.equal(rows.length, page.head);
    const order = rows.map(({ offset, type, mid }) => `${offset} ${type} ${type === 'msg' ? mid : ''}`);
    const mids = rows.flatMap((row) => (row.type === 'msg' ? [row.mid] : []));
    assert.equal(new Set(mids).size, mids.length, 'no message twice');
    for (const [mid, offset] of this.acked) {
      assert.equal(rows[offset - 1]?.mid, mid, `the acknowledged message at ${offset}`);
      assert.equal(rows[offset - 1]?.type, 'msg');
    }
    for (const member of members) {
      const entries = [...member.entries.values()].sort((a, b) => a.offset - b.offset);
      const first = Math.min(entries[0]?.offset ?? Number.POSITIVE_INFINITY, member.joinedAt + 1);
      assert.deepEqual(
        entries.map(({ offset, t, mid }) => `${offset} ${t} ${mid ?? ''}`),
        order.slice(first - 1),
        'every member has what is stored, in its order',
      );
    }
    return { messages: mids.length, epochs: page.epoch };
  }
}

async function untilDone<T>(work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch {
      await sleep(20);
    }
  }
}

function within<T>(ms: number, work: () => Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), ms);
  });
  return Promise.race([work(), late]).finally(() => clearTimeout(timer));
}

describe('rooms of several processes on one log and one PostgreSQL', () => {
  let server: TestDatabase;
  let database: Database;
  before(async () => {
    server = await createTestDatabase();
    database = await openDatabase({ url: server.url, dataDir: '/nonexistent', poolSize: 12, timeoutMs: 10_000, log: silentLog });
  });
  after(async () => {
    await database?.stop();
    await server?.drop();
  });

  for (const kind of FAULTS) {
    test(`nothing is lost, doubled or out of order: ${kind}`, async () => {
      const world = new World(database, await makeRoom(database));
      const result = await world.run([0, 1].map((process) => ({ kind, process, forMs: 300, pauseMs: 60 })));
      assert.ok(result.messages > 0 && world.acked.size > 0);
    });
  }

  for (const kind of ['wipe', 'kill', 'logAway', 'deaf', 'databaseAway'] as const) {
    test(`nor when two come at once: databaseDown and ${kind}`, async () => {
      const world = new World(database, await makeRoom(database));
      const pair = [0, 1].map((process) => [
        { kind: 'databaseDown' as const, process, forMs: 300, pauseMs: 40 },
        { kind, process, forMs: 200, pauseMs: 250 },
      ]);
      await world.run(pair);
      assert.ok(world.acked.size > 0);
    });
  }

  test('a function that tells what it has stored apart by the offset alone is found out', async (t) => {
    t.after(() => database.query(ARCHIVE_FUNCTION));
    await database.query(careless(ARCHIVE_FUNCTION));
    const found: string[] = [];
    for (let attempt = 0; attempt < 8 && found.length === 0; attempt++) {
      const world = new World(database, await makeRoom(database));
      await world.run([0, 1].map((process) => ({ kind: 'bothDown' as const, process, forMs: 400, pauseMs: 40 }))).catch((error: Error) => {
        found.push(error.message);
      });
    }
    assert.match(found.join(), /the acknowledged message at/);
  });

  test('while the database is away a room delivers, also a new one; the acknowledgement comes when it is back', async () => {
    const world = new World(database, await makeRoom(database));
    await world.startProcess(0);
    const { room, databaseGate, members, rooms } = world.processes[0]!;
    databaseGate.isCut = true;
    const outcome = await publish(room, 'ann', 'k', 'hello');
    assert.ok(outcome.kind === 'published');
    await members[0]!.until(() => members[0]!.texts.includes('hello'));
    databaseGate.isCut = false;
    assert.equal((await outcome.committed).kind, 'stored');
    await rooms.stop();
  });

  test('nor when faults come as they like', async () => {
    const fault = fc.record({
      kind: fc.constantFrom(...FAULTS),
      process: fc.nat(PROCESSES - 1),
      forMs: fc.integer({ min: 1, max: 400 }),
      pauseMs: fc.integer({ min: 0, max: 120 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(fault, { minLength: 1, maxLength: 2 }), { minLength: 3, maxLength: 8 }), async (faults) => {
        const world = new World(database, await makeRoom(database));
        await world.run(faults);
      }),
      {
        numRuns: Number(process.env.RUNS ?? 5),
        endOnFailure: true,
        includeErrorInReport: true,
        ...(process.env.SEED ? { seed: Number(process.env.SEED) } : {}),
      },
    );
  });
});
