import type { ServerResponse } from 'node:http';
import type { Clock } from '../../runtime/clock.js';
import type { Log } from '../../runtime/log.js';
import type { LiveEdge, LiveView } from '../edge.js';
import { BEAT_MS, type FeedBroadcast, type Line, PROTOCOL } from './protocol.js';

/**
 * An app with more unsent bytes than this is disconnected. It connects again and is sent
 * everything.
 */
const MAX_UNSENT_BYTES = 16 * 1024 * 1024;

interface FollowedView {
  readonly view: LiveView;
  readonly viewId: string;
  unfollow: () => void;
  /**
   * Stamps of the lists that change seldom, as they were last sent. The lists only grow at their end
   * or lose their oldest items, so a stamp is enough to see a change.
   */
  sentStamps: { runs: string; gaps: number; titles: string };
}

/** Sends apps what is on air, and each change once, for all of them. */
export class WorkerFeed {
  readonly #edge: LiveEdge;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #worker: string;
  readonly #apps = new Set<ServerResponse>();
  readonly #followed = new Map<string, FollowedView>();
  readonly #dirty = new Set<string>();
  #views = 0;
  #sequence = 0;
  #due = false;
  #cancels: (() => void)[] = [];

  /** `worker`: an id that is new at each start of the process. */
  constructor(options: { edge: LiveEdge; clock: Clock; log: Log; worker: string }) {
    this.#edge = options.edge;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#worker = options.worker;
  }

  get apps(): number {
    return this.#apps.size;
  }

  /** The sequence number of the line that was sent last. */
  get sequence(): number {
    return this.#sequence;
  }

  start(): void {
    this.#cancels = [this.#edge.onChannels(() => this.#flushSoon()), this.#clock.every(BEAT_MS, () => this.#sendBeat())];
    this.flush();
  }

  stop(): void {
    for (const cancel of this.#cancels.splice(0)) cancel();
    for (const { unfollow } of this.#followed.values()) unfollow();
    this.#followed.clear();
    this.disconnect();
  }

  /** Disconnects all apps. They connect again and are sent everything. */
  disconnect(): void {
    for (const app of this.#apps) app.end();
    this.#apps.clear();
  }

  /** Adds an app. Its response ends only when it is disconnected. */
  add(res: ServerResponse): void {
    this.flush();
    res.writeHead(200, { 'Content-Type': 'application/x-ndjson', 'Cache-Control': 'no-store' });
    const lines: Line[] = [{ hello: { protocol: PROTOCOL, worker: this.#worker } }];
    for (const [channel, followed] of this.#followed) lines.push({ show: this.#showOf(channel, followed, true), sequence: this.#sequence });
    lines.push({ synced: true, sequence: this.#sequence });
    res.write(lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    this.#apps.add(res);
    res.once('close', () => this.#apps.delete(res));
  }

  /** Sends all changes now. */
  flush(): void {
    this.#due = false;
    const now = new Set(this.#edge.channels());
    for (const [channel, followed] of this.#followed) {
      if (now.has(channel) && this.#edge.view(channel) === followed.view) continue;
      followed.unfollow();
      this.#followed.delete(channel);
      if (!now.has(channel)) this.#sendLine({ gone: channel, sequence: ++this.#sequence });
    }
    for (const channel of now) {
      const view = this.#edge.view(channel);
      let followed = this.#followed.get(channel);
      if (!view || (followed && !this.#dirty.has(channel))) continue;
      const isNew = followed === undefined;
      if (!followed) {
        followed = { view, viewId: `${this.#worker}.${++this.#views}`, unfollow: () => undefined, sentStamps: stampsOf(view) };
        this.#followed.set(channel, followed);
      }
      this.#sendLine({ show: this.#showOf(channel, followed, isNew), sequence: ++this.#sequence });
      followed.sentStamps = stampsOf(view);
      followed.unfollow();
      followed.unfollow = view.onChange(() => {
        this.#dirty.add(channel);
        this.#flushSoon();
      });
    }
    this.#dirty.clear();
  }

  // Sends all changes in the next turn of the event loop: the packager, which causes them, does not
  // wait, and parts of several codecs that are published together are sent together.
  #flushSoon(): void {
    if (this.#due) return;
    this.#due = true;
    setImmediate(() => {
      if (this.#due && this.#cancels.length > 0) this.flush();
    });
  }

  #showOf(channel: string, { view, viewId, sentStamps }: FollowedView, whole: boolean): FeedBroadcast {
    const { timeline, renditions } = view;
    const { broadcastId, grid, firstNumber, runs, gaps, titles, progress, ended } = timeline;
    const status = this.#edge.status(channel);
    const stamps = stampsOf(view);
    // A channel whose last broadcast is still listed may already have the next one, which is not
    // visible yet.
    const isOn = status.broadcastId === broadcastId && !ended;
    return {
      channel,
      viewId,
      ...(whole && { view: { broadcastId, renditions: [...renditions], grid, firstNumber } }),
      ...((whole || stamps.runs !== sentStamps.runs) && { runs: [...runs] }),
      ...((whole || stamps.gaps !== sentStamps.gaps) && { gaps: [...gaps] }),
      ...((whole || stamps.titles !== sentStamps.titles) && { titles: [...titles] }),
      progress: { ...progress },
      ended,
      held: view.held(),
      state: isOn ? status.state : 'offline',
      ...(isOn && status.title !== undefined && { title: status.title }),
      ...(isOn && status.startWallMs !== undefined && { startWallMs: status.startWallMs }),
    };
  }

  #sendBeat(): void {
    this.#sendLine({ beat: this.#sequence });
  }

  #sendLine(line: Line): void {
    if (this.#apps.size === 0) return;
    const text = `${JSON.stringify(line)}\n`;
    for (const app of this.#apps) {
      if (app.writableLength > MAX_UNSENT_BYTES) {
        this.#log.warn(
          { event: 'worker.app_too_slow', unsentBytes: app.writableLength },
          'an app read the live feed too slowly and was disconnected',
        );
        this.#apps.delete(app);
        app.destroy();
      } else app.write(text);
    }
  }
}

function stampsOf({ timeline: { runs, gaps, titles } }: LiveView): FollowedView['sentStamps'] {
  return { runs: `${runs.length} ${runs.at(-1)?.id}`, gaps: gaps.size, titles: `${titles.length} ${titles.at(-1)?.id}` };
}
