import { createHash } from 'node:crypto';
import type { Database } from '../../backing/database/database.js';

/**
 * The right by which a link was made: `links` to give links to others, `play` to hear with one's
 * own link.
 */
export type LinkRight = 'links' | 'play';

/** The maker and the time of a link, from its token. */
export interface LinkMaker {
  /** The maker's tag from `makerTag`. */
  readonly tag: string;
  /** Seconds since 1970, by the database's clock. */
  readonly madeAtS: number;
}

interface Ended {
  /** Undefined: the links to every channel that is not in `except` have ended. */
  readonly slug: string | undefined;
  readonly except: readonly string[];
  readonly endedAtS: number;
}

/**
 * At most this many ended rights are read, the newest. Each is one account on one channel, or one
 * account that was banned, deleted or demoted, in the last 31 days.
 */
const MAX_READ = 100_000;

/**
 * A tag of 48 bits for an account. Only somebody who has the list of ended rights can tell the
 * account from it.
 */
export const makerTag = (right: LinkRight, accountId: string): string =>
  createHash('sha256').update(`${right}\n${accountId}`).digest('base64url').slice(0, 8);

/**
 * Playback links that are void before they expire because their maker lost the right to make them.
 * Links are not stored, so they are found by maker and time. The list is in memory; the composition
 * calls `load` after every change.
 */
export class EndedLinks {
  readonly #database: Database;
  #byTag: ReadonlyMap<string, readonly Ended[]> = new Map();

  constructor(database: Database) {
    this.#database = database;
  }

  async load(): Promise<void> {
    const { rows } = await this.#database.query<EndedRow>(
      `select account_id, what, slug, except_slugs, ended_at from ended_playback_links order by number desc limit ${MAX_READ}`,
    );
    const byTag = new Map<string, Ended[]>();
    for (const { account_id, what, slug, except_slugs, ended_at } of rows) {
      const tag = makerTag(what, account_id);
      const ended = { slug: slug ?? undefined, except: except_slugs, endedAtS: ended_at.getTime() / 1000 };
      const others = byTag.get(tag);
      if (others) others.push(ended);
      else byTag.set(tag, [ended]);
    }
    this.#byTag = byTag;
  }

  /**
   * Whether a link has ended. `channel` is undefined for a recording whose channel is unknown,
   * which happens only for recordings that everybody may play.
   */
  has({ tag, madeAtS }: LinkMaker, channel: string | undefined): boolean {
    const found = this.#byTag.get(tag);
    return (
      found?.some(({ slug, except, endedAtS }) => {
        if (madeAtS >= endedAtS) return false;
        return slug === undefined ? channel === undefined || !except.includes(channel) : slug === channel;
      }) ?? false
    );
  }
}

interface EndedRow {
  account_id: string;
  what: LinkRight;
  slug: string | null;
  except_slugs: string[];
  ended_at: Date;
}
