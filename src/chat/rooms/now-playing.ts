import type { Database } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { NewEntry } from './room.js';

const LOOK_MS = 1000;
/**
 * The interval between two titles in one room at least. After it the title that is playing then is
 * announced.
 */
const MIN_GAP_MS = 10_000;
/** A title that began longer ago is not announced: the chat was unavailable when it began. */
const MAX_AGE_MS = 600_000;
/**
 * A process that has not announced its claimed title after this may have ended. Another one then
 * claims it.
 */
const CLAIM_MS = 10_000;
const STOP_MS = 1000;
const BATCH = 50;
/** The longest title and the longest artist in an entry. */
const MAX_CHARS = 300;

export interface NowPlayingOptions {
  readonly database: Database;
  /** `Rooms.appendEntry`. */
  readonly act: (roomId: string, entry: NewEntry) => Promise<unknown>;
  readonly clock: Clock;
  readonly log: Log;
}

interface NowPlayingRow {
  channel_id: string;
  room_id: string;
  title_id: string;
  broadcast_id: string;
  title: string;
  artist: string | null;
  is_late: boolean;
  is_told: boolean;
}

/**
 * Announces in each room what its channel plays, with entries `{t:"now", title, artist?}`: one for
 * each change, and at most one every ten seconds. The table `now_playing` has the titles; the
 * process that holds the broadcast writes it. Any number of processes may announce: one of them
 * claims a title. If it ends before it has finished, another one appends the title under the same
 * key, which is one entry.
 */
export class NowPlaying {
  readonly name = 'now playing';
  readonly #options: NowPlayingOptions;
  #cancel = () => {};
  #looking: Promise<void> | undefined;
  #isFailing = false;

  constructor(options: NowPlayingOptions) {
    this.#options = options;
  }

  start(): void {
    this.#cancel = this.#options.clock.every(LOOK_MS, () => void this.look());
  }

  /**
   * Waits at most one second for a running announcement, which may wait for PostgreSQL; another
   * process then finishes it. A second call does no harm.
   */
  async stop(): Promise<void> {
    this.#cancel();
    if (!this.#looking) return;
    let cancel = () => {};
    const late = new Promise<void>((resolve) => {
      cancel = this.#options.clock.after(STOP_MS, resolve);
    });
    await Promise.race([this.#looking, late]);
    cancel();
  }

  /** Announces the titles that are due. Never rejects: a failed announcement is repeated. */
  look(): Promise<void> {
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  async #look(): Promise<void> {
    const { log } = this.#options;
    try {
      const results = await Promise.allSettled((await this.#claim()).map((row) => this.#tell(row)));
      const failed = results.find((result) => result.status === 'rejected');
      if (failed) throw failed.reason;
      this.#isFailing = false;
    } catch (error) {
      if (!this.#isFailing)
        log.warn(
          { event: 'chat.now_playing_not_announced', error: messageOf(error) },
          'could not announce to rooms what is playing; will try again',
        );
      this.#isFailing = true;
    }
  }

  async #claim(): Promise<NowPlayingRow[]> {
    const { database, clock } = this.#options;
    const nowMs = clock.wallMs();
    const { rows } = await database.query<NowPlayingRow>(
      `update now_playing n set claimed_until = $2 from rooms r
       where r.channel_id = n.channel_id and n.channel_id in (
         select channel_id from now_playing
         where told_id is distinct from title_id and (claimed_until is null or claimed_until <= $1) and (told_at is null or told_at <= $3)
         order by started_at limit ${BATCH} for update skip locked)
       returning n.channel_id, r.id as room_id, n.title_id, n.broadcast_id, n.title, n.artist, n.started_at < $4 as is_late,
         (n.told_broadcast_id, n.told_title, n.told_artist) is not distinct from (n.broadcast_id, n.title, n.artist) as is_told`,
      [new Date(nowMs), new Date(nowMs + CLAIM_MS), new Date(nowMs - MIN_GAP_MS), new Date(nowMs - MAX_AGE_MS)],
    );
    return rows;
  }

  async #tell(row: NowPlayingRow): Promise<void> {
    const { database, clock, act } = this.#options;
    const { channel_id, room_id, title_id, broadcast_id, title, artist, is_late, is_told } = row;
    // `is_told`: the last announced title plays again, and the one between was never announced.
    const isNew = !is_late && !is_told;
    if (isNew) {
      const payload = { title: shown(title), ...(artist !== null && { artist: shown(artist) }) };
      await act(room_id, { type: 'now', payload, key: `${broadcast_id}:${title_id}` });
    }
    await database.query(
      `update now_playing set claimed_until = null, told_id = $2, told_broadcast_id = $3, told_title = $4, told_artist = $5,
         told_at = case when $6 then $7 else told_at end where channel_id = $1`,
      [channel_id, title_id, broadcast_id, title, artist, isNew, new Date(clock.wallMs())],
    );
  }
}

const shown = (text: string) => (text.length <= MAX_CHARS ? text : `${text.slice(0, MAX_CHARS - 1).replace(/[\ud800-\udbff]$/, '')}…`);
