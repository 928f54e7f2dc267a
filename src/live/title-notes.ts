import type { Database } from '../backing/database/database.js';
import type { Clock } from '../runtime/clock.js';
import { messageOf } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import { Loop } from '../runtime/loop.js';
import type { LiveEdge } from './edge.js';

/** Of titles that change more often, those in between are not written down. */
const LOOK_MS = 1000;

export interface TitleNotesOptions {
  /** The shows of this process. */
  readonly live: Pick<LiveEdge, 'channels' | 'status'>;
  readonly database: Database;
  readonly clock: Clock;
  readonly log: Log;
}

interface Note {
  readonly slug: string;
  readonly id: string;
  readonly broadcastId: string;
  readonly title: string;
  readonly artist: string | undefined;
  readonly startWallMs: number;
}

/**
 * Writes down in the database what is heard on each channel, for processes that have nothing to do with shows: the chat tells it in the channel's room.
 * Of the process that has the shows on air, so each title is written once; the newest alone, so that what the database could not take
 * meanwhile is not caught up with.
 */
export class TitleNotes {
  readonly name = 'titles';
  readonly #options: TitleNotesOptions;
  /** The title that is written down, by slug, of channels that are on air. */
  #written = new Map<string, string>();
  readonly #looks: Loop;
  #isAway = false;

  constructor(options: TitleNotesOptions) {
    this.#options = options;
    this.#looks = new Loop({ clock: options.clock, periodMs: LOOK_MS, task: () => this.#look() });
  }

  start(): void {
    this.#looks.start();
  }

  /** Waits for what is under way. Twice is harmless. */
  async stop(): Promise<void> {
    await this.#looks.stop();
  }

  /** Never rejects: what cannot be written now is tried again at the next look. */
  look(): Promise<void> {
    return this.#looks.run();
  }

  async #look(): Promise<void> {
    const { live, database, log } = this.#options;
    const known = new Map<string, string>();
    const notes: Note[] = [];
    for (const slug of live.channels()) {
      const { nowPlaying, broadcastId } = live.status(slug);
      if (!nowPlaying || broadcastId === undefined) continue;
      const { id, title, artist, startWallMs } = nowPlaying;
      if (this.#written.get(slug) === id) known.set(slug, id);
      else notes.push({ slug, id, broadcastId, title, artist, startWallMs });
    }
    this.#written = known;
    if (notes.length === 0) return;
    try {
      await database.query(
        `insert into now_playing (channel_id, title_id, broadcast_id, title, artist, started_at)
         select c.id, g.title_id, g.broadcast_id, g.title, g.artist, g.started_at
         from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
           g(slug, title_id, broadcast_id, title, artist, started_at) join channels c on c.slug = g.slug
         on conflict (channel_id) do update set title_id = excluded.title_id, broadcast_id = excluded.broadcast_id,
           title = excluded.title, artist = excluded.artist, started_at = excluded.started_at
         where now_playing.title_id <> excluded.title_id`,
        [
          notes.map(({ slug }) => slug),
          notes.map(({ id }) => id),
          notes.map(({ broadcastId }) => broadcastId),
          notes.map(({ title }) => title),
          notes.map(({ artist }) => artist ?? null),
          notes.map(({ startWallMs }) => new Date(startWallMs)),
        ],
      );
      for (const { slug, id } of notes) known.set(slug, id);
      this.#isAway = false;
    } catch (error) {
      if (!this.#isAway)
        log.warn({ event: 'show.title_not_saved', error: messageOf(error) }, 'could not save what is playing; the chat gets it later');
      this.#isAway = true;
    }
  }
}
