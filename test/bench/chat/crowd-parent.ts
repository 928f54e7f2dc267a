import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { ownCpuSeconds } from '../../support/cpu.js';
import type { CrowdCommand, CrowdCount, CrowdOptions } from './crowd.js';
import { Histogram } from './histogram.js';

/** Sockets of one process: it may have 20,000 descriptors. */
const MEMBERS_A_PROCESS = 17_000;

export interface Counted {
  connected: number;
  published: number;
  acked: number;
  delivered: number;
  closed: Record<string, number>;
  refused: Record<string, number>;
  delays: Histogram;
  ackDelays: Histogram;
}

/** Members of a chat, connected from processes of their own. */
export class Crowd {
  readonly #children: ChildProcess[] = [];

  /** Resolves when all are in their rooms, or some were closed: see `connected`. `from`: number of the first, where there is another crowd. */
  async connect(
    options: Omit<CrowdOptions, 'first'>,
    processes = Math.ceil(options.count / MEMBERS_A_PROCESS),
    from = 0,
  ): Promise<Counted> {
    const each = Math.ceil(options.count / processes);
    const commands: CrowdCommand[] = [];
    for (let first = 0; first < options.count; first += each) {
      this.#children.push(fork(new URL('./crowd.ts', import.meta.url), { execArgv: ['--import', 'tsx', '--max-semi-space-size=64'] }));
      const count = Math.min(each, options.count - first);
      const share = count / options.count;
      commands.push({
        do: 'connect',
        options: { ...options, first: from + first, count, perS: options.perS * share, pending: Math.ceil(options.pending * share) },
      });
    }
    return this.#all(commands);
  }

  /** `perS` and `speakers` are of all together. */
  talk(perS: number, seconds: number, { textBytes = 40, speakers = 1000 } = {}): Promise<Counted> {
    const share = this.#children.length;
    const command = {
      do: 'talk' as const,
      perS: perS / share,
      seconds,
      textBytes,
      speakers: Math.max(1, Math.floor(speakers / share)),
    };
    return this.#all(this.#children.map((_, index) => ({ ...command, phase: index / share })));
  }

  /** So many stop reading, or read again. */
  stall(members: number, on: boolean): Promise<Counted> {
    return this.#all(this.#children.map(() => ({ do: 'stall', members: Math.ceil(members / this.#children.length), on })));
  }

  count(): Promise<Counted> {
    return this.#all(this.#children.map(() => ({ do: 'count' })));
  }

  /** CPU seconds until now. */
  cpuS(): number {
    return this.#children.reduce((sum, { pid }) => sum + ownCpuSeconds(pid!), 0);
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

  async #all(commands: readonly CrowdCommand[]): Promise<Counted> {
    const counts = await Promise.all(
      this.#children.map(
        (child, index) =>
          new Promise<CrowdCount>((resolve, reject) => {
            const exited = () => reject(new Error('a part of the crowd died'));
            child.once('exit', exited);
            child.once('message', (count) => {
              child.off('exit', exited);
              resolve(count as CrowdCount);
            });
            child.send(commands[index]!);
          }),
      ),
    );
    const sum = { connected: 0, published: 0, acked: 0, delivered: 0 };
    const all: Counted = { ...sum, closed: {}, refused: {}, delays: new Histogram(), ackDelays: new Histogram() };
    for (const count of counts) {
      for (const key of ['connected', 'published', 'acked', 'delivered'] as const) all[key] += count[key];
      for (const key of ['closed', 'refused'] as const) {
        for (const [what, times] of Object.entries(count[key])) all[key][what] = (all[key][what] ?? 0) + times;
      }
      all.delays.add(count.delays);
      all.ackDelays.add(count.ackDelays);
    }
    return all;
  }
}
