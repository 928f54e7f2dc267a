import { mkdir, writeFile } from 'node:fs/promises';
import { type Figure, figure, say, sleep } from '../report.js';
import { type Counted, Crowd } from './crowd-parent.js';
import { startVeza, type VezaServer } from './servers.js';

/** A process may have 19,000 connections. */
const CONNECTIONS_A_PROCESS = 19_000;
/** Two at least, so that Redis is in the way of every cell. */
const LEAST_PROCESSES = 2;
const IDLE_ROOM_MEMBERS = 100;
const CONNECTING = { perS: 4000, pending: 500 };
const WARM_UP_S = 2;
/** For what is still on its way after the last message. */
const LATE_MS = 1000;
const DELIVERIES_PER_S = [1000, 5000, 20_000, 50_000];
/** Fewer messages a second than this are too few for a quantile in the time there is. */
const LEAST_MESSAGES_PER_S = 0.5;
/** How many rooms there are of so many members; each member is in one. */
const ROOMS: Readonly<Record<number, number>> = { 10: 50, 100: 10, 1000: 2, 10000: 1 };

export interface SurfaceOptions {
  /** Connections whose rooms are silent, beside those that talk. */
  readonly idle: readonly number[];
  /** Members of a room. */
  readonly fanOuts: readonly number[];
  /** Of each cell. */
  readonly seconds: number;
}

interface Cell {
  readonly idle: number;
  readonly fanOut: number;
  readonly messagesPerS: number;
  readonly wantedPerS: number;
  readonly seenPerS: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
  /** Of one core, in percent. */
  readonly serviceCpu: number;
  readonly loadCpu: number;
  readonly refused: Counted['refused'];
  readonly closed: Counted['closed'];
}

const roomsOf = (fanOut: number) => ROOMS[fanOut] ?? 1;
const number = (value: number) => value.toLocaleString('en');

/** Delay and CPU for each room size, rate and number of idle connections. Writes `bench-results/chat-surface.md`. */
export async function measureSurface({ idle, fanOuts, seconds }: SurfaceOptions): Promise<Figure[]> {
  const cells: Cell[] = [];
  for (const quiet of idle) {
    cells.push(...(await measureBeside(quiet, fanOuts, seconds)));
    // After each, so that what is measured is there whatever comes next.
    await mkdir('bench-results', { recursive: true });
    await writeFile('bench-results/chat-surface.md', tableOf(cells));
  }
  console.log(tableOf(cells));
  return cells.map(({ idle: quiet, fanOut, wantedPerS, p99Ms }) =>
    figure(`${number(quiet)} idle, fan-out ${number(fanOut)}, ${number(wantedPerS)} deliveries a second, P99`, p99Ms, 'ms', undefined),
  );
}

async function measureBeside(idle: number, fanOuts: readonly number[], seconds: number): Promise<Cell[]> {
  const talkers = Math.max(...fanOuts.map((fanOut) => fanOut * roomsOf(fanOut)));
  const processes = Math.max(LEAST_PROCESSES, Math.ceil((idle + talkers) / CONNECTIONS_A_PROCESS));
  const rooms = Math.ceil((idle * 2) / IDLE_ROOM_MEMBERS);
  const server = await startVeza({ processes, maxConnections: processes * CONNECTIONS_A_PROCESS, rooms, prefix: 'quiet' });
  const quiet = new Crowd();
  const cells: Cell[] = [];
  try {
    if (idle > 0) await connect(quiet, server, { count: idle, rooms, prefix: 'quiet' }, 0);
    for (const fanOut of fanOuts) {
      const prefix = `fan-${fanOut}-`;
      await server.makeRooms(prefix, roomsOf(fanOut), true);
      const crowd = new Crowd();
      try {
        await connect(crowd, server, { count: fanOut * roomsOf(fanOut), rooms: roomsOf(fanOut), roomsEach: 1, prefix }, idle);
        for (const wantedPerS of DELIVERIES_PER_S) {
          if (wantedPerS / fanOut < LEAST_MESSAGES_PER_S) continue;
          const cell = await measureCell(server, crowd, quiet, { idle, fanOut, wantedPerS, seconds });
          say(rowOf(cell));
          cells.push(cell);
        }
      } finally {
        await crowd.stop();
      }
    }
    return cells;
  } finally {
    await quiet.stop();
    await server.stop();
  }
}

interface Members {
  readonly count: number;
  readonly rooms: number;
  readonly roomsEach?: 1;
  readonly prefix: string;
}

async function connect(crowd: Crowd, server: VezaServer, members: Members, from: number): Promise<void> {
  const startMs = performance.now();
  const { connected, closed } = await crowd.connect({ ...server.crowd, ...CONNECTING, ...members, sampleOneOf: 1 }, undefined, from);
  if (connected < members.count) throw new Error(`${connected} of ${members.count} connected: ${JSON.stringify(closed)}`);
  say(`${server.name}: ${number(connected)} in ${members.prefix}… after ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
}

interface CellOptions extends Pick<Cell, 'idle' | 'fanOut' | 'wantedPerS'> {
  readonly seconds: number;
}

async function measureCell(server: VezaServer, crowd: Crowd, quiet: Crowd, options: CellOptions): Promise<Cell> {
  const { idle, fanOut, wantedPerS, seconds } = options;
  const messagesPerS = wantedPerS / fanOut;
  await crowd.talk(messagesPerS, WARM_UP_S);
  await sleep(LATE_MS);
  await crowd.count();
  const cpuS = () => ({ service: server.cpuS(), load: crowd.cpuS() + quiet.cpuS(), atMs: performance.now() });
  const from = cpuS();
  const counted = await crowd.talk(messagesPerS, seconds);
  const to = cpuS();
  await sleep(LATE_MS);
  const late = await crowd.count();
  counted.delays.add(late.delays.toJSON());
  const percent = (what: 'service' | 'load') => ((to[what] - from[what]) / ((to.atMs - from.atMs) / 1000)) * 100;
  const sum = (...counts: Readonly<Record<string, number>>[]) => {
    const all: Record<string, number> = {};
    for (const [what, times] of counts.flatMap((each) => Object.entries(each))) all[what] = (all[what] ?? 0) + times;
    return all;
  };
  return {
    idle,
    fanOut,
    messagesPerS,
    wantedPerS,
    seenPerS: (counted.delivered + late.delivered) / seconds,
    p50Ms: counted.delays.quantileMs(0.5),
    p99Ms: counted.delays.quantileMs(0.99),
    p999Ms: counted.delays.quantileMs(0.999),
    serviceCpu: percent('service'),
    loadCpu: percent('load'),
    refused: sum(counted.refused, late.refused),
    closed: sum(counted.closed, late.closed),
  };
}

const HEAD = [
  'fan-out',
  'messages/s',
  'deliveries/s asked',
  'deliveries/s seen',
  'P50 ms',
  'P99 ms',
  'P99.9 ms',
  'CPU of the service %',
  'CPU of the load %',
];

function rowOf({ fanOut, messagesPerS, wantedPerS, seenPerS, p50Ms, p99Ms, p999Ms, serviceCpu, loadCpu, refused, closed }: Cell): string {
  const delays = [p50Ms, p99Ms, p999Ms].map((value) => value.toFixed(2));
  const cpu = [serviceCpu, loadCpu].map((value) => value.toFixed(0));
  const troubles = { ...refused, ...closed };
  const told = Object.keys(troubles).length > 0 ? ` ${JSON.stringify(troubles)}` : '';
  const numbers = [fanOut, messagesPerS, wantedPerS, Math.round(seenPerS)].map(number);
  return `| ${[...numbers, ...delays, ...cpu].join(' | ')} |${told}`;
}

/** A table for each number of idle connections; percent are of one core. */
function tableOf(cells: readonly Cell[]): string {
  return [...new Set(cells.map(({ idle }) => idle))]
    .map((idle) => {
      const rows = cells.filter((cell) => cell.idle === idle).map(rowOf);
      return [`${number(idle)} idle`, '', `| ${HEAD.join(' | ')} |`, `|${'---|'.repeat(HEAD.length)}`, ...rows, ''].join('\n');
    })
    .join('\n');
}
