import type { Database } from '../backing/database/database.js';
import type { Clock } from '../runtime/clock.js';
import { messageOf } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import { Loop } from '../runtime/loop.js';
import type { LiveEdge } from './edge.js';

/** How often titles are looked at. Of titles that change more often, only the newest is written. */
const LOOK_MS = 1000;

export interface TitleNotesOptions {
  /** The broadcasts of this process. */
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
 * Writes the title that is heard on each channel into the database, for processes without
 * broadcasts: the chat shows it in the channel's room.
 *
 * It runs in the process that holds the broadcasts, so each title is written once. Only the newest
 * title is written: those that changed while the database was unavailable are skipped.
 */
export class TitleNotes {
  readonly name = 'titles';
  readonly #options: TitleNotesOptions;
  /** Id of the title that was written last, by slug, for channels that are on air. */
  #written = new Map<string, string>();
  readonly #looks: Loop;
  #isFailing = false;

  constructor(options: TitleNotesOptions) {
    this.#options = options;
    this.#looks = new Loop({ clock: options.clock, periodMs: LOOK_MS, task: () => this.#look() });
  }

  start(): void {
    this.#looks.start();
  }

  /** Stops looking, and waits for a write that has begun. Twice is harmless. */
  async stop(): Promise<void> {
    await this.#looks.stop();
  }

  /**
   * Writes the titles that have changed. Never rejects: a title that cannot be written is written
   * at the next look.
   */
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
      this.#isFailing = false;
    } catch (error) {
      if (!this.#isFailing)
        log.warn({ event: 'show.title_not_saved', error: messageOf(error) }, 'could not save what is playing; the chat gets it later');
      this.#isFailing = true;
    }
  }
}
