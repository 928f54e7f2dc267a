import { median } from '../../support/audio.js';
import { type Figure, figure, say, sleep } from '../report.js';
import { type Counted, Crowd } from './crowd-parent.js';
import { type ChatServer, startBare, startNats, startSocketIo, startVeza } from './servers.js';

/** A process may have 19,000 connections. */
const CONNECTIONS_A_PROCESS = 19_000;
const ROOM_MEMBERS = 100;
const DELIVERIES_PER_S = 5000;
/** Four times as fast as it must be, to see where it ends. */
const CONNECT_PER_S = 4000;
const CONNECTING_AT_ONCE = 500;

const ms = (value: number) => value.toFixed(2);
const told = (counts: Readonly<Record<string, number>>) => JSON.stringify(counts);

function sayDelays(what: string, { delays, ackDelays, delivered, published, acked, refused, closed }: Counted): void {
  const [p50, p99, p999] = [0.5, 0.99, 0.999].map((share) => ms(delays.quantileMs(share)));
  const acks = acked > 0 ? `; acks P50 ${ms(ackDelays.quantileMs(0.5))} P99 ${ms(ackDelays.quantileMs(0.99))} ms` : '';
  say(
    `${what}: ${delivered} deliveries of ${published} messages, P50 ${p50} P99 ${p99} P99.9 ${p999} ms${acks}; refused ${told(refused)}, closed ${told(closed)}`,
  );
}

interface Held {
  readonly server: ChatServer;
  readonly crowd: Crowd;
  readonly tookS: number;
  readonly connected: number;
  readonly idleBytes: number;
}

/** So many members, in two rooms each, connected from nothing. */
async function hold(server: ChatServer, members: number, sampleOneOf = 1): Promise<Held> {
  const idleBytes = server.residentBytes();
  const crowd = new Crowd();
  const startMs = performance.now();
  const { connected, closed } = await crowd.connect({
    ...server.crowd,
    count: members,
    perS: CONNECT_PER_S,
    pending: CONNECTING_AT_ONCE,
    rooms: roomsFor(members),
    sampleOneOf,
  });
  const tookS = (performance.now() - startMs) / 1000;
  say(`${server.name}: ${connected} of ${members} connected in ${tookS.toFixed(1)} s; closed ${told(closed)}`);
  return { server, crowd, tookS, connected, idleBytes };
}

const roomsFor = (members: number) => Math.ceil((members * 2) / ROOM_MEMBERS);

export interface HeldOptions {
  readonly members: number;
  /** Of each run. */
  readonly seconds: number;
  readonly runs: number;
  readonly mostP99Ms: number;
  readonly mostP50Ms?: number;
}

/** Connections held, what each costs, and how fast messages arrive meanwhile; the control does the same afterwards on the same machine. */
export async function measureHeld({ members, seconds, runs, mostP99Ms, mostP50Ms }: HeldOptions): Promise<Figure[]> {
  const processes = Math.ceil(members / CONNECTIONS_A_PROCESS);
  const messagesPerS = DELIVERIES_PER_S / ROOM_MEMBERS;
  const delivery = async ({ server, crowd }: Held) => {
    await crowd.talk(messagesPerS, 5);
    const found: { p50: number; p99: number }[] = [];
    for (let run = 1; run <= runs; run++) {
      const cpuFrom = server.cpuS();
      const { delays, ...rest } = await crowd.talk(messagesPerS, seconds);
      sayDelays(`${server.name}, ${members} held, run ${run}, ${(((server.cpuS() - cpuFrom) / seconds) * 100).toFixed(0)} % CPU`, {
        ...rest,
        delays,
      });
      found.push({ p50: delays.quantileMs(0.5), p99: delays.quantileMs(0.99) });
    }
    return { p50: median(found.map(({ p50 }) => p50)), p99: median(found.map(({ p99 }) => p99)) };
  };
  const measure = async (start: () => Promise<ChatServer>) => {
    const server = await start();
    let held: Held | undefined;
    try {
      held = await hold(server, members);
      const quiet = server.residentBytes();
      const delays = await delivery(held);
      const resident = server.residentBytes();
      say(
        `${server.name}: ${(held.idleBytes / 2 ** 20).toFixed(0)} MiB before, ${(quiet / 2 ** 20).toFixed(0)} held, ${(resident / 2 ** 20).toFixed(0)} talking`,
      );
      return { ...held, ...delays, resident };
    } finally {
      await held?.crowd.stop();
      await server.stop();
    }
  };
  const prefix = 'room';
  const ours = await measure(() => startVeza({ processes, rooms: roomsFor(members), prefix }));
  const control = await measure(() => startBare(processes));
  const beside = (value: number) => ({ name: 'bare fan-out', value });
  const at = `${members.toLocaleString('en')} held`;
  return [
    figure('connections held, tokens verified, two rooms each', ours.connected, '', { least: members }, beside(control.connected)),
    figure(`all connected from nothing, ${at}`, ours.tookS, 's', { most: (120 * members) / 100_000 }, beside(control.tookS)),
    figure(
      `resident memory of the service ÷ connections, ${at}`,
      ours.resident / ours.connected / 1024,
      'KB',
      // What the service takes without anybody is spread over them.
      members < 100_000 ? undefined : { most: 12 },
      beside(control.resident / control.connected / 1024),
    ),
    figure(
      `delivery, ${at}, ${DELIVERIES_PER_S} a second, P50`,
      ours.p50,
      'ms',
      mostP50Ms === undefined ? undefined : { most: mostP50Ms },
      beside(control.p50),
    ),
    figure(`delivery, ${at}, ${DELIVERIES_PER_S} a second, P99`, ours.p99, 'ms', { most: mostP99Ms }, beside(control.p99)),
  ];
}

export interface HotOptions {
  readonly members: number;
  readonly messagesPerS: number;
  readonly seconds: number;
  readonly rounds: number;
}

/** One hot room: deliveries for a second of CPU, one server after the other in each round. */
export async function measureHotRoom({ members, messagesPerS, seconds, rounds }: HotOptions): Promise<Figure[]> {
  const starts = [() => startVeza({ processes: 1, rooms: 1, prefix: 'room', hot: true }), startSocketIo, startNats];
  const found = new Map<string, number[]>();
  for (let round = 1; round <= rounds; round++) {
    for (const start of starts) {
      const server = await start();
      const crowd = new Crowd();
      try {
        const options = { ...server.crowd, count: members, perS: CONNECT_PER_S, pending: 200, rooms: 1, sampleOneOf: 97 };
        const { connected, closed } = await crowd.connect(options, 1);
        if (connected < members) throw new Error(`${server.name}: ${connected} of ${members} connected: ${told(closed)}`);
        const talk = { speakers: 100 };
        await crowd.talk(messagesPerS, 3, talk);
        await sleep(500);
        await crowd.count();
        const cpuFrom = server.cpuS();
        const counted = await crowd.talk(messagesPerS, seconds, talk);
        // What is still on its way.
        await sleep(1000);
        const late = await crowd.count();
        const perCpuS = (counted.delivered + late.delivered) / (server.cpuS() - cpuFrom);
        sayDelays(
          `${server.name}, round ${round}: ${Math.round(perCpuS)} deliveries a CPU-second, ${counted.delivered + late.delivered} in all`,
          counted,
        );
        found.set(server.name, [...(found.get(server.name) ?? []), perCpuS]);
      } finally {
        await crowd.stop();
        await server.stop();
      }
    }
  }
  const [[, ours = []] = [], [, socketIo = []] = [], [, nats = []] = []] = [...found];
  const ratio = median(ours.map((value, round) => value / socketIo[round]!));
  const where = `one room of ${members}, ${messagesPerS} messages a second`;
  return [
    figure(`deliveries a CPU-second, ${where}`, median(ours), '', { least: 300_000 }, { name: 'nats-server', value: median(nats) }),
    figure('the same ÷ Socket.IO', ratio, '×', { least: 4 }, { name: 'Socket.IO', value: median(socketIo) }),
  ];
}

export interface StalledOptions {
  readonly members: number;
  readonly stalled: number;
  readonly seconds: number;
}

/** Members that stop reading: what they cost, and what the others notice. */
export async function measureStalled({ members, stalled, seconds }: StalledOptions): Promise<Figure[]> {
  const server = await startVeza({ processes: 1, rooms: roomsFor(members), prefix: 'room' });
  const { crowd } = await hold(server, members);
  try {
    const talk = () => crowd.talk(DELIVERIES_PER_S / ROOM_MEMBERS, seconds);
    await talk();
    const before = await talk();
    const heldBefore = server.residentBytes();
    sayDelays('all read', before);
    await crowd.stall(stalled, true);
    const during = await talk();
    const heldDuring = server.residentBytes();
    sayDelays(`${stalled} do not`, during);
    return [
      figure(`memory of ${stalled} stalled readers`, (heldDuring - heldBefore) / 2 ** 20, 'MiB', { most: 5 }),
      figure("the others' P99 meanwhile ÷ before", during.delays.quantileMs(0.99) / before.delays.quantileMs(0.99), '×', { most: 1.2 }),
    ];
  } finally {
    await crowd.stop();
    await server.stop();
  }
}
