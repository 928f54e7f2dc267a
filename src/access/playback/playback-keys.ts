import { randomBytes, timingSafeEqual } from 'node:crypto';
import { chmod, open, rename, rm } from 'node:fs/promises';
import type { Database, Queryable } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { Vault } from '../vault.js';
import { type PlaybackToken, type SignedFor, sign, signedText } from './playback-token.js';

/** A playback key without its secret. */
export interface PlaybackKey {
  readonly id: string;
  readonly createdAtMs: number;
  /**
   * The key signs links from this time on, in wall clock milliseconds. Links signed with it are
   * accepted at once.
   */
  readonly signsFromMs: number;
}

interface Key extends PlaybackKey {
  readonly secret: Buffer;
}

export interface PlaybackKeysOptions {
  readonly database: Database;
  readonly vault: Vault;
  readonly clock: Clock;
  readonly log: Log;
  /** The file from which an edge server reads the keys. It is rewritten after every change. */
  readonly file?: string | undefined;
}

/**
 * The content of the file for an edge server, which `infra/nginx/playback.js` reads. It is secret.
 */
export interface ExportedPlaybackKeys {
  /** Secrets in base64url, by key id. */
  readonly keys: Readonly<Record<string, string>>;
}

const SECRET_BYTES = 32;
const ID_BYTES = 4;
/** The number of the advisory lock. It has no meaning, but every process must use the same. */
const LOCK = 0x706c6179;

const purposeOf = (id: string) => `playback-key:${id}`;

/**
 * The keys of playback links. There are at most two, so that links stay good when a key is added.
 * Adding a third deletes the older of the two, which voids all links signed with it.
 */
export class PlaybackKeys {
  readonly #options: PlaybackKeysOptions;
  /** Newest first. */
  #keys: readonly Key[] = [];
  #written = '';
  #listeners: (() => void)[] = [];

  constructor(options: PlaybackKeysOptions) {
    this.#options = options;
  }

  /** Makes the first key if there is none, and reads the keys. */
  async start(): Promise<void> {
    await this.#options.database.transaction(async (connection) => {
      await connection.query('select pg_advisory_xact_lock($1)', [LOCK]);
      const { rowCount } = await connection.query('select 1 from playback_keys limit 1');
      if (rowCount === 0) await this.#add(connection, 0);
    });
    await this.load();
  }

  /** Reads the keys again after a change. */
  async load(): Promise<void> {
    const { database, vault } = this.#options;
    const { rows } = await database.query<{ kid: string; sealed_secret: Buffer; signs_from: Date; created_at: Date }>(
      'select kid, sealed_secret, signs_from, created_at from playback_keys order by number desc',
    );
    const keys = await Promise.all(
      rows.map(async (row) => ({
        id: row.kid,
        secret: await vault.open(purposeOf(row.kid), row.sealed_secret),
        createdAtMs: row.created_at.getTime(),
        signsFromMs: row.signs_from.getTime(),
      })),
    );
    const same = keys.length === this.#keys.length && keys.every(({ id }, index) => id === this.#keys[index]?.id);
    this.#keys = keys;
    if (!same) for (const listener of this.#listeners) listener();
    await this.#write();
  }

  /**
   * Calls `listener` when a key was added or deleted. Links that were verified before may be void.
   */
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  list(): PlaybackKey[] {
    return this.#keys.map(({ id, createdAtMs, signsFromMs }) => ({ id, createdAtMs, signsFromMs }));
  }

  /**
   * Signs a token with the newest key that may sign. Returns the signature and the id of the key.
   */
  sign(token: Pick<PlaybackToken, 'expiry' | 'listener'>, forWhat: SignedFor): { keyId: string; signature: string } {
    const nowMs = this.#options.clock.wallMs();
    const key = this.#keys.find(({ signsFromMs }) => signsFromMs <= nowMs) ?? this.#keys.at(-1);
    if (!key) throw new Error('there is no playback key yet');
    return { keyId: key.id, signature: sign(key.secret, signedText({ ...token, keyId: key.id }, forWhat)) };
  }

  /**
   * Whether the signature is right, in constant time per key. The base64url texts are compared, not
   * the bytes, so that only one spelling of a token is accepted.
   */
  verify(token: PlaybackToken, forWhat: SignedFor): boolean {
    const key = this.#keys.find(({ id }) => id === token.keyId);
    if (!key) return false;
    const right = Buffer.from(sign(key.secret, signedText(token, forWhat)));
    const given = Buffer.from(token.signature);
    return right.length === given.length && timingSafeEqual(right, given);
  }

  /**
   * Adds a key and deletes the older one. The new key signs after `signsInMs`; by then every
   * process and edge server must have read it.
   */
  async replace(signsInMs: number): Promise<void> {
    await this.#options.database.transaction(async (connection) => {
      await connection.query('select pg_advisory_xact_lock($1)', [LOCK]);
      await connection.query('delete from playback_keys where number <> (select max(number) from playback_keys)');
      await this.#add(connection, signsInMs);
    });
    await this.load();
  }

  export(): ExportedPlaybackKeys {
    return { keys: Object.fromEntries(this.#keys.map(({ id, secret }) => [id, secret.toString('base64url')])) };
  }

  async #add(connection: Queryable, signsInMs: number): Promise<void> {
    const { clock, vault } = this.#options;
    const id = randomBytes(ID_BYTES).toString('hex');
    const nowMs = clock.wallMs();
    await connection.query('insert into playback_keys (kid, sealed_secret, signs_from, created_at) values ($1, $2, $3, $4)', [
      id,
      vault.seal(purposeOf(id), randomBytes(SECRET_BYTES)),
      new Date(nowMs + signsInMs),
      new Date(nowMs),
    ]);
  }

  /** Writes the file as a whole or not at all. Playback goes on if the file cannot be written. */
  async #write(): Promise<void> {
    const { file, log } = this.#options;
    const text = `${JSON.stringify(this.export())}\n`;
    if (file === undefined || text === this.#written) return;
    const unfinished = `${file}.${randomBytes(ID_BYTES).toString('hex')}`;
    try {
      const opened = await open(unfinished, 'wx', 0o640);
      try {
        await opened.writeFile(text);
        await opened.sync();
      } finally {
        await opened.close();
      }
      // `chmod` ignores the umask. The edge server reads the file as a member of the folder's
      // group.
      await chmod(unfinished, 0o640);
      await rename(unfinished, file);
      this.#written = text;
    } catch (error) {
      await rm(unfinished, { force: true });
      log.error(
        { event: 'access.playback_keys_file_failed', file, error: messageOf(error) },
        'could not write PLAYBACK_KEYS_FILE; the edge server refuses links signed with newer keys',
      );
    }
  }
}
