import { createHash } from 'node:crypto';
import type { Database } from '../../backing/database/database.js';

/** By which right a link was made: to give to others, or to hear with oneself. */
export type LinkRight = 'links' | 'play';

/** Who made a link and when, as its token says. */
export interface LinkMaker {
  /** See `makerTag`. */
  readonly tag: string;
  /** Seconds since 1970, of the database's clock. */
  readonly madeAtS: number;
}

interface Ended {
  /** Undefined: on every channel that is not in `except`. */
  readonly slug: string | undefined;
  readonly except: readonly string[];
  readonly endedAtS: number;
}

/** The newest are read; each is one account on one channel, or one that was banned, deleted or demoted in the last 31 days. */
const MAX_READ = 100_000;

/** 48 bits: says which account it was to whoever has the list of those whose links have ended, and to nobody else. */
export const makerTag = (right: LinkRight, accountId: string): string =>
  createHash('sha256').update(`${right}\n${accountId}`).digest('base64url').slice(0, 8);

/**
 * Playback links that are void before they expire, because their maker lost the right to make them: by maker and time, since no list is kept of
 * the links themselves. In memory; whoever owns it reads it again when it has changed.
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

  /** `channel` undefined: it is not known of which channel the recording is, which is so for those that are open to everybody. */
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
