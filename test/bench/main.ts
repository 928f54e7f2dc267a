// npm run bench -- live|origin|access|chat [--only NAME] [--long] [--runs N]
//
// Each bench is a file of its own; this one chooses, runs and reports. Without --long, what takes many minutes is shortened or left out.
import { parseArgs } from 'node:util';
import { measureSigned, measureSignInFlood } from './access.js';
import { measureHeld, measureHotRoom, measureStalled } from './chat/chat.js';
import { measureRolling } from './chat/rolling.js';
import { measureSurface } from './chat/surface.js';
import { measureLatency } from './latency.js';
import { measureCpu, measureMemory, measureStalls } from './load.js';
import { measureModeration } from './moderation.js';
import { measureBlocked, measurePlaylist } from './origin.js';
import { type Figure, printTable, say, writeResults } from './report.js';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { only: { type: 'string' }, long: { type: 'boolean', default: false }, runs: { type: 'string' } },
});
const { only, long } = values;
const runs = Number(values.runs ?? (long ? 3 : 1));

interface Part {
  readonly name: string;
  readonly run: (detail: string | undefined) => Promise<Figure[]>;
  readonly longOnly?: boolean;
}

const cpu = { seconds: long ? 60 : 30, rounds: long ? 5 : 3 };
const BENCHES: Readonly<Record<string, readonly Part[]>> = {
  live: [
    { name: 'latency', run: (detail) => measureLatency({ beeps: 32, runs }, detail) },
    { name: 'cpu', run: async () => [...(await measureCpu(4, 1.15, cpu)), ...(await measureCpu(1, 1.3, cpu))] },
    { name: 'stalls', run: () => measureStalls(long ? 10 : 1) },
    { name: 'memory', run: () => measureMemory(30), longOnly: true },
  ],
  origin: [
    { name: 'playlist', run: () => measurePlaylist({ seconds: 10, rounds: long ? 5 : 3 }) },
    { name: 'blocked', run: () => measureBlocked({ clients: 10_000, parts: long ? 30 : 10 }) },
  ],
  access: [
    { name: 'flood', run: () => measureSignInFlood({ triesPerSecond: 1000, seconds: long ? 120 : 30 }) },
    { name: 'signed', run: () => measureSigned({ seconds: 10, rounds: long ? 5 : 3 }) },
  ],
  chat: [
    { name: 'moderation', run: () => measureModeration({ runs: long ? 1000 : 200 }) },
    { name: 'hot', run: () => measureHotRoom({ members: 1000, messagesPerS: 500, seconds: 10, rounds: long ? 5 : 3 }) },
    { name: 'stalled', run: () => measureStalled({ members: 5000, stalled: 1000, seconds: 15 }) },
    { name: 'held', run: () => measureHeld({ members: 20_000, seconds: 20, runs, mostP99Ms: 10 }) },
    {
      name: 'all',
      run: () => measureHeld({ members: 100_000, seconds: 20, runs: long ? 5 : 1, mostP50Ms: 4, mostP99Ms: 20 }),
      longOnly: true,
    },
    {
      name: 'surface',
      run: () =>
        measureSurface({
          idle: long ? [0, 50_000, 100_000] : [0],
          fanOuts: long ? [10, 100, 1000, 10_000] : [10, 100, 1000],
          seconds: 10,
        }),
    },
    { name: 'rolling', run: () => measureRolling({ clients: long ? 100_000 : 10_000 }) },
  ],
};

const [name = ''] = positionals;
const parts = BENCHES[name];
// `--only latency:Shaka` is a part of a part.
const [wanted, detail] = only?.split(':', 2) ?? [];
const chosen = parts?.filter((part) => (wanted === undefined ? long || !part.longOnly : part.name === wanted));
if (!chosen || chosen.length === 0) {
  const known = Object.entries(BENCHES).map(([bench, list]) => `${bench} (${list.map((part) => part.name).join(', ')})`);
  console.error(`usage: npm run bench -- NAME [--only PART] [--long] [--runs N]\nknown: ${known.join('; ')}`);
  process.exit(2);
}

const figures: Figure[] = [];
for (const part of chosen) {
  say(`— ${name}: ${part.name}`);
  figures.push(...(await part.run(detail)));
}
printTable(figures);
say(`written to ${await writeResults(wanted === undefined ? name : `${name}-${wanted}`, figures)}`);
process.exit(figures.every(({ holds }) => holds) ? 0 : 1);
