import type { IncomingMessage, RequestListener } from 'node:http';
import { type HttpListener, listenHttp } from '../../src/app/http/listener.js';
import type { LiveEdge } from '../../src/live/edge.js';
import { RemoteEdge } from '../../src/live/worker/edge-remote.js';
import { WorkerPort } from '../../src/live/worker/port.js';
import { type Clock, SystemClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';

/** A worker's port over a live room, on a port of this machine, and what it was asked. */
export class TestWorker {
  readonly asked: string[] = [];
  readonly url: string;
  readonly port: WorkerPort;
  readonly #listener: HttpListener;

  private constructor(port: WorkerPort, listener: HttpListener, asked: string[]) {
    this.port = port;
    this.#listener = listener;
    this.asked = asked;
    this.url = `http://127.0.0.1:${listener.port}`;
  }

  /** `port`: that of one that was here before. */
  static async start(live: LiveEdge, port = 0): Promise<TestWorker> {
    const clock = new SystemClock();
    const workerPort = new WorkerPort({ edge: live, clock, log: silentLog, ready: async () => undefined });
    workerPort.start();
    const asked: string[] = [];
    const handler: RequestListener = (req: IncomingMessage, res) => {
      asked.push(`${req.method} ${req.url}`);
      workerPort.handle(req, res);
    };
    return new TestWorker(workerPort, await listenHttp(handler, { host: '127.0.0.1', port, http2: false }, clock), asked);
  }

  get tcpPort(): number {
    return this.#listener.port;
  }

  /** As a network that fails for a moment. */
  cut(): void {
    this.#listener.server.closeAllConnections();
  }

  /** As a killed process: every connection is cut. */
  async kill(): Promise<void> {
    this.#listener.server.closeAllConnections();
    this.port.stop();
    await this.#listener.stop(0);
  }
}

/** The machine's timers, and the wall clock of the test's world. */
export function clockWith(world: Pick<Clock, 'wallMs'>): Clock {
  const system = new SystemClock();
  return {
    monotonicMs: () => system.monotonicMs(),
    wallMs: () => world.wallMs(),
    after: (ms, task) => system.after(ms, task),
    every: (ms, task) => system.every(ms, task),
  };
}

/** Resolves when the edge has been told everything that was so until now: an act waits for that, also one on nothing. */
export const caughtUp = (edge: RemoteEdge): Promise<unknown> => edge.setTitle('nobody', { title: 'nothing' });

export async function startRemote(url: string, clock: Clock): Promise<RemoteEdge> {
  const edge = new RemoteEdge({ url, clock, log: silentLog });
  await edge.start();
  return edge;
}
