// Members that check what they are told, in a process of their own; told what to do by messages of its parent (`CheckCommand`), and answers each.
import { type CheckCounts, CheckingMember, noCounts } from './checking-member.js';
import { type TokenOptions, tokenOf } from './dialects.js';
import { Histogram } from './histogram.js';
import { sentence } from './sentence.js';

export interface CheckOptions {
  readonly port: number;
  readonly tokens: TokenOptions;
  readonly first: number;
  readonly count: number;
  readonly perS: number;
  readonly pending: number;
  /** By the number of the room. */
  readonly rooms: readonly string[];
}

export type CheckCommand =
  | { readonly do: 'connect'; readonly options: CheckOptions }
  /** So many messages a second until it is 0; one of `tenfold` is sent ten times. */
  | { readonly do: 'talk'; readonly perS: number; readonly tenfold: number }
  | { readonly do: 'state' }
  | { readonly do: 'report' };

export interface CheckState {
  readonly ready: number;
  readonly open: number;
}

export interface CheckPart extends CheckState {
  readonly counts: CheckCounts;
  /** By room: what members have seen of it, and how many of them. */
  readonly views: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly acked: readonly (readonly [slug: string, offset: number, mid: string])[];
  /** From losing the connection to being in all rooms again. */
  readonly away: number[];
}

const members: CheckingMember[] = [];
const counts = noCounts();
const acked: [string, number, string][] = [];
const away = new Histogram();
let options: CheckOptions;
let ready = 0;
let said = 0;
let talking: NodeJS.Timeout | undefined;

/** Two rooms each; another neighbour in each turn, so that no two rooms have the same members. */
function roomsOf(member: number): string[] {
  const { rooms } = options;
  const first = member % rooms.length;
  if (rooms.length === 1) return [rooms[0]!];
  const second = (first + 1 + (Math.floor(member / rooms.length) % (rooms.length - 1))) % rooms.length;
  return [rooms[first]!, rooms[second]!];
}

async function connectAll(): Promise<void> {
  const host = {
    counts,
    port: options.port,
    token: (index: number) => tokenOf(index, options.tokens),
    stored: (slug: string, offset: number, mid: string) => void acked.push([slug, offset, mid]),
    ready: (awayMs: number | undefined) => {
      ready++;
      if (awayMs !== undefined) away.record(awayMs * 1000);
    },
    lost: () => {
      ready--;
    },
  };
  const startMs = performance.now();
  while (members.length < options.count || ready < options.count) {
    const due = Math.min(options.count, ((performance.now() - startMs) / 1000) * options.perS);
    while (members.length < due && members.length - ready < options.pending) {
      const index = options.first + members.length;
      const member = new CheckingMember(index, roomsOf(index), host);
      members.push(member);
      member.connect();
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

function talk(perS: number, tenfold: number): void {
  clearInterval(talking);
  if (perS <= 0) return;
  const startMs = performance.now();
  let count = 0;
  talking = setInterval(() => {
    const due = ((performance.now() - startMs) / 1000) * perS;
    for (; count < due; count++, said++) {
      // Also of who has lost his line at this moment: it goes out when he is back.
      const member = members[(said * 7919) % members.length]!;
      member.publish(said, `${process.pid}-${said}`, sentence(options.first + said * 31), said % tenfold === 0 ? 10 : 1);
    }
  }, 10);
}

function report(): CheckPart {
  const views: Record<string, Record<string, number>> = {};
  for (const member of members)
    for (const [slug, view] of member.describe()) {
      views[slug] ??= {};
      views[slug][view] = (views[slug][view] ?? 0) + 1;
    }
  return { ...state(), counts, views, acked, away: away.toJSON() };
}

const state = (): CheckState => ({ ready, open: members.reduce((sum, { open }) => sum + open, 0) });

process.on('message', async (command: CheckCommand) => {
  switch (command.do) {
    case 'connect':
      options = command.options;
      await connectAll();
      break;
    case 'talk':
      talk(command.perS, command.tenfold);
      break;
    case 'state':
      break;
    case 'report':
      process.send!(report());
      return;
  }
  process.send!(state());
});
process.on('disconnect', () => process.exit(0));
