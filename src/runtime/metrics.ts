import { availableParallelism, totalmem } from 'node:os';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Clock } from './clock.js';
import { type UnexpectedCounts, unexpectedCounts } from './unexpected.js';

/** Gauges whose values are read at each scrape. */
const GAUGES = {
  streams_active: 'Broadcasts on air here (live or held).',
  listeners_active: 'Listeners of all channels, estimated from who asked for playlists, plus open progressive streams.',
  ingest_bitrate_bits: 'Bits a second that broadcasters send, of all channels.',
  segment_upload_backlog: 'Finished segments that the object store does not have yet.',
  webhook_backlog: 'Webhook deliveries that wait, of all processes.',
  webhook_oldest_due_seconds: 'How long the oldest webhook delivery that is due has been so, of all processes.',
  websocket_connections_active: 'Chat connections, of all processes of this service.',
  active_users_total:
    'People who are signed in to the chat now, counted in each process. A gauge, in spite of its name: it rises and falls.',
  message_delivery_success_rate:
    'Of the chat messages that were to be written to members, those that were not left out because a member was too slow; 0 to 1.',
  stream_quality_degraded_percent: 'Players that reported a stall in the last minute, of those that reported (CMCD).',
} as const;

const DURATIONS = {
  part_publish_delay_seconds: {
    help: 'From the time a part should be out (its end on the timeline) to the time it is.',
    buckets: [0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5],
  },
  segment_upload_seconds: {
    help: 'From a finished segment to its confirmation by the object store.',
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60],
  },
} as const;

export type GaugeName = keyof typeof GAUGES;
export type DurationName = keyof typeof DURATIONS;

export interface MetricsOptions {
  clock: Clock;
  service: string;
  version: string;
  /**
   * The memory that is 100 % of `memory_usage_percent`. Undefined: the container's limit or the
   * machine's memory.
   */
  memoryLimitMb: number | undefined;
}

/**
 * The metrics of this process (`/metrics`). Their names are part of the public interface. No label
 * has a value that comes from a client.
 */
export class Metrics {
  readonly #registry = new Registry();
  readonly #httpSeconds: Histogram<'route' | 'method'>;
  readonly #httpTotal: Counter<'status'>;
  readonly #httpErrors: Counter;
  readonly #durations: Record<DurationName, Histogram>;
  readonly #readers = new Map<GaugeName, () => number>();
  readonly #counters = new Map<string, Counter>();
  readonly #unexpected = new Map<string, () => UnexpectedCounts>([['main', unexpectedCounts]]);
  readonly contentType = this.#registry.contentType;

  constructor(options: MetricsOptions) {
    const registers = [this.#registry];
    this.#registry.setDefaultLabels({ service: options.service });
    // The default, a check every 10 ms, alone costs 9 ms of CPU per second.
    collectDefaultMetrics({ register: this.#registry, eventLoopMonitoringPrecision: 100 });
    new Gauge({ name: 'veza_info', help: 'Always 1; the version is in its label.', labelNames: ['version'], registers }).set(
      { version: options.version },
      1,
    );

    this.#httpSeconds = new Histogram({
      name: 'http_request_duration_seconds',
      help: 'From the request to the last byte of the answer. Playlist requests that wait for a part are under routes of their own.',
      labelNames: ['route', 'method'],
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10],
      registers,
    });
    this.#httpTotal = new Counter({ name: 'http_requests_total', help: 'Answered requests.', labelNames: ['status'], registers });
    this.#httpErrors = new Counter({ name: 'http_errors_total', help: 'Answers with a status of 500 and above.', registers });

    this.#durations = Object.fromEntries(
      Object.entries(DURATIONS).map(([name, { help, buckets }]) => [name, new Histogram({ name, help, buckets: [...buckets], registers })]),
    ) as unknown as Record<DurationName, Histogram>;
    const readers = this.#readers;
    for (const [name, help] of Object.entries(GAUGES)) {
      const collect = function (this: Gauge) {
        this.set(readers.get(name as GaugeName)?.() ?? 0);
      };
      new Gauge({ name, help, registers, collect });
    }

    const unexpected = this.#unexpected;
    new Counter({
      name: 'process_unexpected_errors_total',
      help: 'Errors that nobody took (kind: exception or rejection), in this process and in those of its parts. Each is a defect.',
      labelNames: ['part', 'kind'],
      registers,
      collect() {
        this.reset();
        for (const [part, read] of unexpected) for (const [kind, count] of Object.entries(read())) this.inc({ part, kind }, count);
      },
    });

    const { clock } = options;
    let last = { cpu: process.cpuUsage(), atMs: clock.monotonicMs() };
    new Gauge({
      name: 'cpu_usage_percent',
      help: 'Of this process since the last scrape; 100 is all cores it may use.',
      registers,
      collect() {
        const now = { cpu: process.cpuUsage(), atMs: clock.monotonicMs() };
        const usedMs = (now.cpu.user - last.cpu.user + now.cpu.system - last.cpu.system) / 1000;
        const passedMs = now.atMs - last.atMs;
        if (passedMs < 100) return;
        this.set((usedMs / passedMs / availableParallelism()) * 100);
        last = now;
      },
    });
    const limitBytes = options.memoryLimitMb === undefined ? machineMemoryBytes() : options.memoryLimitMb * 1e6;
    new Gauge({
      name: 'memory_usage_percent',
      help: 'Resident memory of this process, of what it may use.',
      registers,
      collect() {
        this.set((process.memoryUsage.rss() / limitBytes) * 100);
      },
    });
  }

  /**
   * Counts one answered request. `route` is one of the service's own route patterns, never a path
   * that a client sent.
   */
  request(route: string, method: string, status: number, seconds: number): void {
    this.#httpSeconds.observe({ route, method }, seconds);
    this.#httpTotal.inc({ status });
    if (status >= 500) this.#httpErrors.inc();
  }

  duration(name: DurationName, seconds: number): void {
    this.#durations[name].observe(seconds);
  }

  /** Sets the function that reads a gauge's value. The last call for a name counts. */
  provide(name: GaugeName, read: () => number): void {
    this.#readers.set(name, read);
  }

  /**
   * Returns the counter for something that a room of the code discards, cuts or refuses. The same
   * name gives the same counter. `name` ends in `_total`.
   */
  counter(name: string, help: string): { add(count?: number): void } {
    let counter = this.#counters.get(name);
    if (!counter) {
      counter = new Counter({ name, help, registers: [this.#registry] });
      this.#counters.set(name, counter);
    }
    return { add: (count = 1) => counter.inc(count) };
  }

  /**
   * Sets the function that reads the unexpected errors of other processes of this service. The
   * counts never decrease.
   */
  provideUnexpected(part: 'chat', read: () => UnexpectedCounts): void {
    this.#unexpected.set(part, read);
  }

  /**
   * Shows a count that is kept by the caller and read at each scrape. It never decreases. `name`
   * ends in `_total`.
   */
  provideCount(name: string, help: string, read: () => number): void {
    const collect = function (this: Counter) {
      this.reset();
      this.inc(read());
    };
    new Counter({ name, help, registers: [this.#registry], collect });
  }

  /**
   * Shows a histogram that is kept by the caller and read at each scrape. `counts` has one number
   * per bucket, and a last one for values above all bounds; none ever decreases.
   */
  provideHistogram(
    name: string,
    help: string,
    bounds: readonly number[],
    read: () => { readonly counts: readonly number[]; readonly sum: number },
  ): void {
    this.#registry.registerMetric(new ReadHistogram(name, help, bounds, read) as unknown as Counter);
  }

  /** Every metric in Prometheus' text format. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }
}

/**
 * The container's memory limit if there is one, else the machine's memory. Without a limit Node
 * reports 0, or a number larger than any machine's memory.
 */
function machineMemoryBytes(): number {
  const limit = process.constrainedMemory?.() ?? 0;
  return limit > 0 && limit < totalmem() ? limit : totalmem();
}

/** The parts of a prom-client metric that its registry uses. */
class ReadHistogram {
  constructor(
    readonly name: string,
    readonly help: string,
    private readonly bounds: readonly number[],
    private readonly read: () => { readonly counts: readonly number[]; readonly sum: number },
  ) {}

  get() {
    const { counts, sum } = this.read();
    let count = 0;
    const values = this.bounds.map((le, index) => {
      count += counts[index] ?? 0;
      return { metricName: `${this.name}_bucket`, labels: { le }, value: count };
    });
    count += counts[this.bounds.length] ?? 0;
    return Promise.resolve({
      name: this.name,
      help: this.help,
      type: 'histogram',
      aggregator: 'sum',
      values: [
        ...values,
        { metricName: `${this.name}_bucket`, labels: { le: '+Inf' }, value: count },
        { metricName: `${this.name}_sum`, labels: {}, value: sum },
        { metricName: `${this.name}_count`, labels: {}, value: count },
      ],
    });
  }

  reset(): void {
    // Empty: the values are kept by the caller.
  }
}
