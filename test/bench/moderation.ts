import { Classifier } from '../../src/chat/automod/classifier.js';
import { DEFAULT_CLASSIFIER_SETTINGS } from '../../src/chat/automod/classifier-settings.js';
import { SystemClock } from '../../src/runtime/clock.js';
import { filled, NASTY, nastyTerms } from '../chat/moderation-nasty.js';
import { type Figure, figure, say } from './report.js';

const many = Number.MAX_SAFE_INTEGER;
const ORDINARY_BYTES = 200;
const LONGEST_BYTES = 8192;

function timesUs(judge: () => void, runs: number): number[] {
  for (let run = 0; run < runs / 4; run++) judge();
  const times = new Array<number>(runs);
  for (let run = 0; run < runs; run++) {
    const startMs = performance.now();
    judge();
    times[run] = (performance.now() - startMs) * 1000;
  }
  return times.sort((a, b) => a - b);
}

const at = (sorted: readonly number[], share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!;

/** What judging costs: an ordinary message, and the worst of the longest, with 200 terms that begin alike and every rule on. */
export async function measureModeration({ runs }: { runs: number }): Promise<Figure[]> {
  const moderation = new Classifier({
    clock: new SystemClock(),
    limits: { floodBurst: many, repeats: many, shortRepeats: many, linksPerMinute: many },
  });
  const settings = {
    ...DEFAULT_CLASSIFIER_SETTINGS,
    links: 'hold',
    blockedTerms: nastyTerms(),
    allowedTerms: ['a band called shit'],
  } as const;
  const judge = (text: string) => () => {
    moderation.classify({ roomId: 'room', authorId: 'author', privileged: false, text, settings });
  };
  const ordinary = timesUs(judge(filled(NASTY['ordinary chat']!, ORDINARY_BYTES * 2).slice(0, ORDINARY_BYTES)), runs * 20);
  let worst = { name: '', us: 0 };
  for (const [name, unit] of Object.entries(NASTY)) {
    const judgeIt = judge(filled(unit, LONGEST_BYTES));
    const times = timesUs(judgeIt, runs);
    // What the processors did for it: a busy machine makes the times longer, not this.
    const before = process.cpuUsage();
    for (let run = 0; run < runs; run++) judgeIt();
    const { user, system } = process.cpuUsage(before);
    const us = (user + system) / runs;
    say(
      `  ${name}: ${us.toFixed(0)} µs of CPU, shortest ${times[0]!.toFixed(0)}, P50 ${at(times, 0.5).toFixed(0)}, P99 ${at(times, 0.99).toFixed(0)} µs`,
    );
    if (us > worst.us) worst = { name, us };
  }
  return [
    figure('moderation: 200 characters, P50', at(ordinary, 0.5), 'µs', { most: 100 }),
    figure('moderation: 200 characters, P99', at(ordinary, 0.99), 'µs', undefined),
    figure(`moderation: 8,192 bytes, CPU time of the worst text (${worst.name})`, worst.us, 'µs', { most: 2000 }),
  ];
}
