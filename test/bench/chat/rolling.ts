import { type ChildProcess, fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, statSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import pg from 'pg';
import { ChatChecker, type StoredEntry } from '../../support/chat-checker.js';
import { processTree } from '../../support/cpu.js';
import { freePorts } from '../../support/free-port.js';
import { startPostgres } from '../../support/postgres.js';
import { eventually } from '../../support/process.js';
import { startRedis } from '../../support/redis.js';
import { Server } from '../../support/server.js';
import { type Figure, figure, say, sleep } from '../report.js';
import type { CheckCommand, CheckPart, CheckState } from './checking-crowd.js';
import { type CheckCounts, noCounts } from './checking-member.js';
import { tokenOf } from './dialects.js';
import { Histogram } from './histogram.js';
import { sentence } from './sentence.js';
import { emptyView, nameOf, see } from './view-hash.js';

const MEMBERS_A_PROCESS = 17_000;
const CONNECTIONS_A_PROCESS = 19_000;
/** What a process has open beside its clients: libraries, the database, Redis. */
const OTHER_DESCRIPTORS = 100;

export interface RollingOptions {
  readonly clients: number;
  /** Of the chat. Default: as many as it takes, two at least. */
  readonly processes?: number;
  /** With the client library, beside the others. */
  readonly libraryClients?: number;
  readonly roomMembers?: number;
  readonly messagesPerS?: number;
  /** Before and after the restart. */
  readonly talkS?: number;
}

/** Everything that was found; `faults` must be empty or 0. */
export interface RollingReport {
  readonly clients: number;
  readonly libraryClients: number;
  readonly rooms: number;
  readonly processes: number;
  readonly messages: number;
  /** (client, room, offset), each held against the store. */
  readonly compared: number;
  readonly acked: number;
  readonly restartS: number;
  readonly resumed: number;
  readonly awayMs: { readonly p50: number; readonly p99: number };
  /** Connections of a process at most, and what it may have. */
  readonly fullest: number;
  readonly cap: number;
  readonly counts: CheckCounts;
  readonly faults: {
    /** Members that did not come back. */
    readonly notBack: number;
    /** Rooms of members that end elsewhere than the store, or where an entry is missing, twice, in another place, or another. */
    readonly differentViews: number;
    readonly lost: readonly string[];
    readonly holesInStore: readonly string[];
    readonly duplicates: readonly string[];
    readonly unequalAcks: number;
    readonly withdrawn: number;
    readonly unsettled: number;
    readonly refused: Readonly<Record<string, number>>;
    readonly errors: Readonly<Record<string, number>>;
    /** Otherwise than for the restart. */
    readonly closes: Readonly<Record<string, number>>;
    readonly library: object;
  };
}

/** Members in processes of their own. */
class CheckingCrowd {
  readonly #children: ChildProcess[] = [];

  async connect(options: {
    port: number;
    tokens: { secret: string; localRoom: string };
    count: number;
    rooms: readonly string[];
  }): Promise<void> {
    const processes = Math.ceil(options.count / MEMBERS_A_PROCESS);
    const each = Math.ceil(options.count / processes);
    const commands: CheckCommand[] = [];
    for (let first = 0; first < options.count; first += each) {
      this.#children.push(
        fork(new URL('./checking-crowd.ts', import.meta.url), { execArgv: ['--import', 'tsx', '--max-semi-space-size=64'] }),
      );
      const count = Math.min(each, options.count - first);
      const share = count / options.count;
      commands.push({ do: 'connect', options: { ...options, first, count, perS: 4000 * share, pending: Math.ceil(500 * share) } });
    }
    await this.#all(commands);
  }

  talk(perS: number, tenfold: number): Promise<CheckState[]> {
    return this.#same({ do: 'talk', perS: perS / this.#children.length, tenfold });
  }

  async state(): Promise<CheckState> {
    const parts = await this.#same<CheckState>({ do: 'state' });
    return parts.reduce((sum, { ready, open }) => ({ ready: sum.ready + ready, open: sum.open + open }), { ready: 0, open: 0 });
  }

  report(): Promise<CheckPart[]> {
    return this.#same<CheckPart>({ do: 'report' });
  }

  async stop(): Promise<void> {
    await Promise.all(
      this.#children.splice(0).map(async (child) => {
        if (child.exitCode !== null || child.signalCode !== null) return;
        child.kill('SIGKILL');
        await once(child, 'exit');
      }),
    );
  }

  #same<T = CheckState>(command: CheckCommand): Promise<T[]> {
    return this.#all<T>(this.#children.map(() => command));
  }

  #all<T = CheckState>(commands: readonly CheckCommand[]): Promise<T[]> {
    return Promise.all(
      this.#children.map(
        (child, index) =>
          new Promise<T>((resolve, reject) => {
            const exited = () => reject(new Error('a part of the crowd died'));
            child.once('exit', exited);
            child.once('message', (answer) => {
              child.off('exit', exited);
              resolve(answer as T);
            });
            child.send(commands[index]!);
          }),
      ),
    );
  }
}

/**
 * All chat processes are replaced one by one while everybody talks; then what each member has seen of each room is compared with the store.
 * Writes `bench-results/chat-rolling-check.json`.
 */
export async function checkRolling(options: RollingOptions): Promise<RollingReport> {
  const { clients, libraryClients = 24, roomMembers = 200, messagesPerS = 50, talkS = 5 } = options;
  const processes = options.processes ?? Math.max(2, Math.ceil(clients / (CONNECTIONS_A_PROCESS * 0.95)));
  const all = clients + libraryClients;
  const rooms = Array.from({ length: Math.max(1, Math.ceil((clients * 2) / roomMembers)) }, (_, room) => `room${room}`);
  const [postgres, redis] = await Promise.all([startPostgres(), startRedis()]);
  const secret = randomBytes(32).toString('base64url');
  const tokens = { secret, localRoom: 'check' };
  const [wsPort] = (await freePorts(1)) as [number];
  const server = await Server.start({
    env: {
      DATABASE_URL: postgres.url,
      REDIS_URL: redis.url,
      JWT_SECRET: secret,
      JWT_AUDIENCE: 'check',
      WORKER_THREADS: String(processes),
      WS_PORT: String(wsPort),
      // As few as there are: one that took more than its share would turn somebody away, and be found out.
      MAX_CONNECTIONS: String(all),
      LOG_LEVEL: 'warn',
    },
  });
  const cap = Math.ceil(Math.ceil(all / processes) * 1.02);
  const crowd = new CheckingCrowd();
  const checker = new ChatChecker(`ws://127.0.0.1:${wsPort}/chat`);
  const database = new pg.Pool({ connectionString: postgres.url, max: 1 });
  let watching: NodeJS.Timeout | undefined;
  let talking: NodeJS.Timeout | undefined;
  try {
    const make = async (from: number) => {
      for (let room = from; room < rooms.length; room += 8) await server.createChannel(rooms[room]!);
    };
    await Promise.all(Array.from({ length: 8 }, (_, from) => make(from)));
    const chatProcesses = () =>
      processTree(server.pid).flatMap(({ pid, parent, name }) => (parent === server.pid && name !== 'ffmpeg' ? [pid] : []));
    const before = chatProcesses();
    if (before.length !== processes) throw new Error(`${before.length} chat processes instead of ${processes}`);
    let fullest = 0;
    watching = setInterval(() => {
      for (const pid of chatProcesses()) fullest = Math.max(fullest, descriptorsOf(pid) - OTHER_DESCRIPTORS);
    }, 1000);

    await crowd.connect({ port: wsPort, tokens, count: clients, rooms });
    await Promise.all(
      Array.from({ length: libraryClients }, (_, index) =>
        checker.join(`library-${index}`, tokenOf(clients + index, tokens), [
          rooms[index % rooms.length]!,
          rooms[(index + 1) % rooms.length]!,
        ]),
      ),
    );
    say(`${all} in, ${rooms.length} rooms, ${processes} processes`);
    await crowd.talk(messagesPerS, 20);
    let said = 0;
    if (libraryClients > 0)
      talking = setInterval(() => {
        const member = checker.members[said % libraryClients]!;
        void checker.say(member, member.rooms[said % 2]!, sentence(7_000_000 + said++));
      }, 250);
    await sleep(talkS * 1000);

    const startMs = performance.now();
    process.kill(server.pid, 'SIGHUP');
    const mostMs = 60_000 + processes * 20_000 + clients * 5;
    await eventually(
      'every process is another',
      // Seldom: a look at all processes of a machine is work for it.
      async () => {
        await sleep(1000);
        return chatProcesses().some((pid) => before.includes(pid)) ? undefined : true;
      },
      mostMs,
    ).catch((error) => {
      throw new Error(`${error.message}\n${server.logTail()}`);
    });
    const restartS = (performance.now() - startMs) / 1000;
    say(`restarted in ${restartS.toFixed(1)} s`);
    await eventually('everybody is back', async () => ((await crowd.state()).ready === clients ? true : undefined), 60_000 + clients).catch(
      () => undefined,
    );
    await sleep(talkS * 1000);
    await crowd.talk(0, 1);
    clearInterval(talking);
    clearInterval(watching);
    await eventually('everything is answered', async () => ((await crowd.state()).open === 0 ? true : undefined), 60_000).catch(
      () => undefined,
    );
    const stored = async () =>
      (
        await database.query<StoredEntry>(
          `select c.slug, m."offset"::int as "offset", m.type, m.mid, m.key from messages m
             join rooms r on r.id = m.room_id join channels c on c.id = r.channel_id order by 1, 2`,
        )
      ).rows;
    const rows = await checker.settle(stored, 60_000);
    // What is written to a member is on its way for a moment.
    let found = compare(await crowd.report(), rows);
    for (let again = 0; again < 20 && found.differentViews > 0; again++) {
      await sleep(250);
      found = compare(await crowd.report(), rows);
    }
    const { members: _m, entries: _e, acked: libraryAcked, compared: libraryCompared, told: _t, ...library } = checker.check(rows);
    const { counts } = found;
    const { 1012: _restarts, ...closes } = counts.closes;
    const report: RollingReport = {
      clients,
      libraryClients,
      rooms: rooms.length,
      processes,
      messages: rows.length,
      compared: found.compared + libraryCompared,
      acked: found.acked + libraryAcked,
      restartS,
      resumed: counts.resumed,
      awayMs: { p50: found.away.quantileMs(0.5), p99: found.away.quantileMs(0.99) },
      fullest,
      cap,
      counts,
      faults: {
        notBack: clients - found.ready,
        differentViews: found.differentViews,
        lost: found.lost.slice(0, 20),
        holesInStore: found.holesInStore.slice(0, 20),
        duplicates: found.duplicates.slice(0, 20),
        unequalAcks: counts.unequalAcks,
        withdrawn: counts.resets + counts.partial,
        unsettled: found.open,
        refused: { ...counts.refused, ...checker.refused },
        errors: counts.errors,
        closes,
        library: Object.fromEntries(Object.entries(library).filter(([, list]) => list.length > 0)),
      },
    };
    await mkdir('bench-results', { recursive: true });
    await writeFile('bench-results/chat-rolling-check.json', `${JSON.stringify(report, null, 2)}\n`);
    return report;
  } finally {
    clearInterval(talking);
    clearInterval(watching);
    checker.stop();
    await crowd.stop();
    await database.end();
    await server.stop();
    await Promise.all([postgres.stop(), redis.stop()]);
  }
}

/** What members have seen, against what is stored. */
export function compare(parts: readonly CheckPart[], rows: readonly StoredEntry[]) {
  const truth = new Map<string, { first: number; head: number; views: Set<string>; byOffset: Map<number, string | null> }>();
  const [holesInStore, duplicates, lost]: [string[], string[], string[]] = [[], [], []];
  const bySlug = new Map<string, StoredEntry[]>();
  for (const row of rows) bySlug.set(row.slug, [...(bySlug.get(row.slug) ?? []), row]);
  for (const [slug, entries] of bySlug) {
    const view = emptyView();
    const byOffset = new Map<number, string | null>();
    const mids = new Set<string>();
    let last = 0;
    for (const { offset, type, mid } of entries) {
      if (offset !== last + 1) holesInStore.push(`${slug} ${last + 1}`);
      if (mid !== null && type === 'msg' && mids.has(mid)) duplicates.push(`${slug} ${mid}`);
      if (mid !== null) mids.add(mid);
      last = offset;
      byOffset.set(offset, mid);
      see(view, offset, type, type === 'msg' ? (mid ?? '') : '');
    }
    truth.set(slug, { first: 0, head: last, views: new Set([nameOf(view)]), byOffset });
  }
  const counts = noCounts();
  const away = new Histogram();
  let [compared, differentViews, ready, open, acked] = [0, 0, 0, 0, 0];
  for (const part of parts) {
    ready += part.ready;
    open += part.open;
    acked += part.acked.length;
    away.add(part.away);
    for (const [name, value] of Object.entries(part.counts) as [keyof CheckCounts, number | Record<string, number>][]) {
      const sum = counts[name];
      if (typeof value === 'number') Object.assign(counts, { [name]: (sum as number) + value });
      else
        for (const [what, times] of Object.entries(value))
          (sum as Record<string, number>)[what] = ((sum as Record<string, number>)[what] ?? 0) + times;
    }
    for (const [slug, offset, mid] of part.acked) if (truth.get(slug)?.byOffset.get(offset) !== mid) lost.push(`${slug} ${offset} ${mid}`);
    for (const [slug, views] of Object.entries(part.views)) {
      const room = truth.get(slug);
      for (const [view, members] of Object.entries(views)) {
        const [first, , cursor, hash] = view.split(' ');
        const isSame = room ? first === '0' && cursor === String(room.head) && room.views.has(hash!) : cursor === '0';
        if (!isSame) differentViews += members;
        compared += members * (room?.head ?? 0);
      }
    }
  }
  return { counts, away, compared, differentViews, ready, open, acked, holesInStore, duplicates, lost };
}

/** Since Linux 6.2 it is the folder's size; to read a hundred thousand names twice a second would take from the server. */
function descriptorsOf(pid: number): number {
  try {
    return statSync(`/proc/${pid}/fd`).size || readdirSync(`/proc/${pid}/fd`).length;
  } catch {
    return 0;
  }
}

/** The rows of the bench. */
export async function measureRolling(options: RollingOptions): Promise<Figure[]> {
  const { clients, libraryClients, processes, compared, acked, restartS, awayMs, fullest, cap, faults, messages, counts } =
    await checkRolling(options);
  say(`${messages} messages, ${counts.dupAcks} of ${counts.acks} acks were of a key sent again; faults ${JSON.stringify(faults)}`);
  const at = `rolling restart of ${processes} processes, ${clients.toLocaleString('en')} clients`;
  const none = { most: 0 };
  const listed = Object.values(faults.library as Record<string, string[]>).flat().length;
  return [
    figure(`${at}: clients that resumed in both rooms`, clients - faults.notBack, '', { least: clients }),
    figure(`(client, room, offset) compared, ${libraryClients} clients with the library`, compared, '', undefined),
    figure(
      'views with a gap, a duplicate or another order',
      faults.differentViews + faults.holesInStore.length + faults.duplicates.length + listed,
      '',
      none,
    ),
    figure(`acknowledged messages lost, of ${acked}`, faults.lost.length, '', none),
    figure('acks to one key that differ', faults.unequalAcks, '', none),
    figure('connections of the fullest process', fullest, '', { most: cap }),
    figure('from losing a connection to being in both rooms again, P50', awayMs.p50 / 1000, 's', undefined),
    figure('the same, P99', awayMs.p99 / 1000, 's', undefined),
    figure('the restart of all processes', restartS, 's', undefined),
  ];
}
