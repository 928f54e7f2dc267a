import type { IncomingMessage } from 'node:http';
import type { Clock } from '../../runtime/clock.js';
import { each } from '../../runtime/each.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { withDeadline } from '../../runtime/waiting.js';
import type { ChannelStatus, LiveEdge, LiveView } from '../edge.js';
import { WorkerClient, type WorkerClientOptions } from './client.js';
import { doneSchema, type FeedBroadcast, type Line, lineSchema, MAX_LINE_BYTES, PROTOCOL } from './protocol.js';
import { RemoteView } from './remote-view.js';

/**
 * The worker counts as away after its feed has been broken off for this long. Until then the last
 * known state is served, and blocked requests keep waiting.
 */
const GRACE_MS = 1000;
const FIRST_RETRY_MS = 200;
const MAX_RETRY_MS = 1000;
/**
 * The feed is broken off after this long without a line. The worker sends at least one every
 * second.
 */
const SILENCE_MS = 5000;
/** `start` waits at most this long for the worker, which may also be started later. */
const START_MS = 3000;
/** An act waits at most this long until the feed has reported its result. */
const RESULT_DEADLINE_MS = 2000;
const MAX_CHANNELS = 10_000;

const AWAY = 'the worker that holds the live broadcasts does not answer; try again';

export interface RemoteEdgeOptions extends WorkerClientOptions {
  readonly log: Log;
}

/**
 * The mode of the edge; only `#enter` changes it.
 * - `unheard`: no feed was received since the start; no channel is known.
 * - `here`: the feed is followed.
 * - `lost`: the feed broke off less than GRACE_MS ago.
 * - `away`: the feed broke off. Views throw `unavailable`, and `status` reports the last known
 *   broadcasts as `holding`.
 */
type RemoteEdgeMode = 'unheard' | 'here' | 'lost' | 'away';

/**
 * The broadcasts of a worker. Their timelines are followed through its feed, so requests that wait
 * for a part are blocked here; media is requested from the worker.
 */
export class RemoteEdge implements LiveEdge {
  readonly name = 'worker';
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #client: WorkerClient;
  readonly #views = new Map<string, RemoteView>();
  readonly #listeners = new Set<() => void>();
  #mode: RemoteEdgeMode = 'unheard';
  #sequence = 0;
  /** The checks of acts that wait until the feed has reported their result. */
  readonly #resultChecks = new Set<() => void>();
  #heardMs = 0;
  #feed: IncomingMessage | undefined;
  #cancelGrace = () => {};
  #cancelPause = () => {};
  #fault = '';
  #stopped = false;

  constructor(options: RemoteEdgeOptions) {
    this.#clock = options.clock;
    this.#log = options.log;
    this.#client = new WorkerClient(options);
  }

  /** Resolves when the feed has listed all broadcasts, or after START_MS. */
  async start(): Promise<void> {
    const here = new Promise<void>((resolve) => {
      const unwatch = this.onChannels(() => {
        if (this.#mode !== 'here') return;
        unwatch();
        resolve();
      });
    });
    void this.#follow();
    await withDeadline(this.#clock, START_MS, here, () => undefined);
  }

  /** Disconnects from the worker. Twice is harmless. */
  stop(): void {
    this.#stopped = true;
    this.#cancelGrace();
    this.#cancelPause();
    this.#feed?.destroy();
    this.#client.close();
    for (const view of this.#views.values()) view.close();
  }

  /** For readiness: rejects while the worker is away. */
  async check(): Promise<void> {
    if (this.#isAway) throw new Error(AWAY);
  }

  view(channel: string): LiveView | undefined {
    if (this.#isAway) throw new VezaError('unavailable', AWAY);
    return this.#views.get(channel);
  }

  channels(): string[] {
    return [...this.#views.keys()];
  }

  get streams(): number {
    let count = 0;
    for (const { state } of this.#views.values()) if (state !== 'offline') count++;
    return count;
  }

  status(channel: string): ChannelStatus {
    const view = this.#views.get(channel);
    if (!view || view.state === 'offline') return { state: 'offline', nowPlaying: undefined };
    const { title, startWallMs, broadcastId, titles } = view;
    const nowMs = this.#clock.wallMs();
    const nowPlaying = this.#isAway ? undefined : titles.findLast((candidate) => candidate.startWallMs <= nowMs);
    return { state: this.#isAway ? 'holding' : view.state, title, startWallMs, broadcastId, nowPlaying };
  }

  end(channel: string, reason: string): Promise<boolean> {
    return this.#act(channel, 'end', { reason });
  }

  setTitle(channel: string, update: { title: string; artist?: string }): Promise<boolean> {
    return this.#act(channel, 'title', update);
  }

  onChannels(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  get #isAway(): boolean {
    return this.#mode === 'unheard' || this.#mode === 'away';
  }

  async #act(channel: string, act: string, body: unknown): Promise<boolean> {
    const answer = doneSchema.safeParse(await this.#client.post(`/v1/channels/${encodeURIComponent(channel)}/${act}`, body));
    if (!answer.success) throw new VezaError('unavailable', 'the worker speaks another version');
    const { done, sequence } = answer.data;
    // Waits until the feed has reported what the caller asked for, so that its next request sees it.
    if (this.#mode === 'here' && this.#sequence < sequence) {
      await new Promise<void>((resolve) => {
        const cancel = this.#clock.after(RESULT_DEADLINE_MS, () => checkResult(true));
        const checkResult = (late = false) => {
          if (!late && this.#mode === 'here' && this.#sequence < sequence) return;
          cancel();
          this.#resultChecks.delete(checkResult);
          resolve();
        };
        this.#resultChecks.add(checkResult);
      });
    }
    return done;
  }

  #enter(mode: RemoteEdgeMode): void {
    if (this.#mode === mode) return;
    const wasAway = this.#isAway;
    this.#mode = mode;
    this.#cancelGrace();
    if (mode === 'lost') this.#cancelGrace = this.#clock.after(GRACE_MS, () => this.#enter('away'));
    if (mode === 'here') this.#log.info({ event: 'worker.connected', channels: this.#views.size }, 'the worker is connected');
    if (mode === 'away')
      this.#log.error(
        { event: 'worker.lost', error: this.#fault },
        'the connection to the worker is lost; live playback is answered with 503 until it is back',
      );
    // Blocked requests must learn that the worker is away or back.
    if (this.#isAway !== wasAway) for (const view of this.#views.values()) view.changed();
    for (const checkResult of [...this.#resultChecks]) checkResult();
    this.#changed();
  }

  #changed(): void {
    each([...this.#listeners], (listener) => listener());
  }

  /** Follows the feed, and connects again when it breaks off, until `stop`. */
  async #follow(): Promise<void> {
    let pauseMs = FIRST_RETRY_MS;
    while (!this.#stopped) {
      const heardMs = this.#heardMs;
      try {
        await this.#read();
        this.#fault = 'it ended its feed';
      } catch (error) {
        const fault = messageOf(error);
        if (fault !== this.#fault && this.#mode === 'unheard')
          this.#log.warn({ event: 'worker.not_available', error: fault }, 'the worker is not available yet');
        this.#fault = fault;
      }
      if (this.#stopped) return;
      if (this.#mode === 'here') this.#enter('lost');
      pauseMs = this.#heardMs > heardMs ? FIRST_RETRY_MS : Math.min(MAX_RETRY_MS, pauseMs * 2);
      await new Promise<void>((resolve) => {
        const cancel = this.#clock.after(pauseMs, resolve);
        this.#cancelPause = () => {
          cancel();
          resolve();
        };
      });
    }
  }

  /** Reads one connection of the feed to its end. Rejects when it breaks off. */
  async #read(): Promise<void> {
    const feed = await this.#client.get('/v1/feed');
    if (!feed) throw new Error('it has no feed: is this the worker’s port?');
    this.#feed = feed;
    if (this.#stopped) feed.destroy();
    const listedChannels = new Set<string>();
    this.#heardMs = this.#clock.monotonicMs();
    const cancel = this.#clock.every(SILENCE_MS / 5, () => {
      if (this.#clock.monotonicMs() - this.#heardMs > SILENCE_MS) feed.destroy(new Error(`it said nothing for ${SILENCE_MS} ms`));
    });
    let rest = '';
    try {
      feed.setEncoding('utf8');
      for await (const text of feed as AsyncIterable<string>) {
        this.#heardMs = this.#clock.monotonicMs();
        let end = text.indexOf('\n');
        if (end < 0) rest += text;
        else {
          this.#applyLine(lineOf(rest + text.slice(0, end)), listedChannels);
          let from = end + 1;
          for (end = text.indexOf('\n', from); end >= 0; end = text.indexOf('\n', from)) {
            this.#applyLine(lineOf(text.slice(from, end)), listedChannels);
            from = end + 1;
          }
          rest = text.slice(from);
        }
        if (rest.length > MAX_LINE_BYTES) throw new Error('a line of its feed is too long');
      }
    } finally {
      cancel();
      feed.destroy();
      this.#feed = undefined;
    }
  }

  #applyLine(line: Line, listedChannels: Set<string>): void {
    if ('hello' in line) {
      if (line.hello.protocol !== PROTOCOL)
        throw new Error(`it speaks version ${line.hello.protocol} of the protocol, and here it is ${PROTOCOL}`);
    } else if ('show' in line) {
      listedChannels.add(line.show.channel);
      this.#applyShow(line.show);
    } else if ('gone' in line) {
      this.#removeView(line.gone);
    } else if ('synced' in line) {
      for (const channel of this.#views.keys()) if (!listedChannels.has(channel)) this.#removeView(channel);
      this.#fault = '';
      this.#sequence = line.sequence;
      this.#enter('here');
    }
    if ('sequence' in line && this.#mode === 'here') {
      this.#sequence = line.sequence;
      for (const checkResult of [...this.#resultChecks]) checkResult();
    }
  }

  #applyShow(show: FeedBroadcast): void {
    const before = this.#views.get(show.channel);
    if (before?.viewId === show.viewId) {
      before.apply(show);
      return;
    }
    if (!before && this.#views.size >= MAX_CHANNELS) throw new Error(`it has more than ${MAX_CHANNELS} channels on air`);
    this.#views.set(show.channel, new RemoteView(this.#client, this.#clock, show));
    before?.close();
    this.#changed();
  }

  #removeView(channel: string): void {
    const view = this.#views.get(channel);
    this.#views.delete(channel);
    view?.close();
    this.#changed();
  }
}

function lineOf(text: string): Line {
  const line = lineSchema.safeParse(JSON.parse(text));
  if (!line.success) throw new Error(`its feed has a line that is not understood: ${line.error.issues[0]?.message}`);
  return line.data;
}
