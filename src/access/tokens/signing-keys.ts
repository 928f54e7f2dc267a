import { type CryptoKey, calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK, type JWK } from 'jose';
import type { Database, Queryable } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { Loop } from '../../runtime/loop.js';
import type { Vault } from '../vault.js';

/** How long an access token is good. */
export const ACCESS_TOKEN_MS = 15 * 60_000;
/** The only algorithm (Ed25519) of Veza's own access tokens. */
export const SIGNING_ALGORITHM = 'EdDSA';

/** How long a key signs. */
const SIGNS_MS = 24 * 3_600_000;
/**
 * The next key is made this long before it signs, so that a database that is unavailable for a
 * short time delays nothing.
 */
const MADE_AHEAD_MS = 30 * 60_000;
/**
 * A key signs at the earliest this long after it was made, so that systems that cache the key set
 * have it in time. Ten minutes are for caches, the rest is for a process that reads the table late.
 */
const PUBLISHED_AHEAD_MS = 12 * 60_000;
/**
 * How long a key is kept after it has signed: the life of a token, and two minutes for processes
 * whose clocks differ.
 */
const KEPT_AFTER_MS = ACCESS_TOKEN_MS + 2 * 60_000;
/**
 * The table is read this often, so that a key that another process revoked is refused here within
 * five seconds.
 */
const POLL_MS = 2000;
/**
 * A process that has not read the table for this long reads it before it signs, because others may
 * have retired its key.
 */
const STALE_MS = 2 * 60_000;
/** By how much the clocks of processes may differ. */
const CLOCKS_DIFFER_MS = 60_000;
/** Unknown key ids cause at most one query in this time, because clients may invent them. */
const UNKNOWN_COOLDOWN_MS = 3000;
/** A key id is the SHA-256 thumbprint of the key (RFC 7638), in base64url. */
const KID = /^[\w-]{43}$/;
/**
 * The number of the advisory lock. It has no meaning, but every version of Veza must use the same.
 */
const LOCK = 0x76657a62;

export interface SigningKeysOptions {
  readonly database: Database;
  readonly vault: Vault;
  readonly clock: Clock;
  readonly log: Log;
}

/** The times of a key, in wall clock milliseconds. */
export interface KeyTimes {
  readonly kid: string;
  readonly signsFromMs: number;
  /** The key signs longer if there is no later one. */
  readonly signsUntilMs: number;
  /** Until this time the key is in the key set, because tokens that it signed may be good. */
  readonly keptUntilMs: number;
}

interface SigningKey extends KeyTimes {
  readonly publicJwk: JWK;
  readonly publicKey: CryptoKey;
  readonly privateKey: CryptoKey;
}

/**
 * The keys that sign access tokens. Every 24 hours one of the processes makes a new key. A key is
 * published before it signs, and stays published while a token that it signed can be good. If the
 * database is unavailable, the known keys stay in use.
 *
 * One key signs at a time: the latest whose time has come. All processes choose the same key,
 * because the times are in the table, written under a lock, minutes before they count.
 */
export class SigningKeys {
  readonly #database: Database;
  readonly #vault: Vault;
  readonly #clock: Clock;
  readonly #log: Log;
  /** Keys by id, in the order in which they sign. */
  #keys: ReadonlyMap<string, SigningKey> = new Map();
  /**
   * Ids of keys whose private key cannot be decrypted. They neither sign nor count as a successor.
   */
  readonly #broken = new Set<string>();
  /** Monotonic milliseconds of the last read. */
  #loadedAtMs = Number.NEGATIVE_INFINITY;
  /** Monotonic milliseconds of the last read because of an unknown key id. */
  #lookedAtMs = Number.NEGATIVE_INFINITY;
  #isUnavailable = false;
  readonly #reloads: Loop;

  constructor({ database, vault, clock, log }: SigningKeysOptions) {
    this.#database = database;
    this.#vault = vault;
    this.#clock = clock;
    this.#log = log;
    this.#reloads = new Loop({
      clock,
      periodMs: POLL_MS,
      task: () => this.#reload(),
      onError: (error) => {
        if (!this.#isUnavailable)
          log.warn(
            { event: 'access.signing_keys_unreadable', error: messageOf(error) },
            'could not read the signing keys; the known ones stay in use',
          );
        this.#isUnavailable = true;
      },
    });
  }

  /** Reads the keys, makes the first one if there is none, and keeps them up to date. */
  async start(): Promise<void> {
    await this.reload();
    this.#reloads.start();
  }

  /** Waits for the running reload. A second call does nothing. */
  async stop(): Promise<void> {
    await this.#reloads.stop();
  }

  /** The content of `/.well-known/jwks.json`. */
  keySet(): { keys: JWK[] } {
    return { keys: [...this.#keys.values()].map((key) => key.publicJwk) };
  }

  /** Whether the key existed at the last read. */
  has(kid: string): boolean {
    return this.#keys.has(kid);
  }

  /** The public key with this id. Undefined: there is no such key. */
  async publicKey(kid: string): Promise<CryptoKey | undefined> {
    const nowMs = this.#clock.monotonicMs();
    if (!this.#keys.has(kid) && KID.test(kid) && nowMs - this.#lookedAtMs >= UNKNOWN_COOLDOWN_MS) {
      // Another process may have made the key since the last read.
      this.#lookedAtMs = nowMs;
      await this.#reloadOrKeep();
    }
    return this.#keys.get(kid)?.publicKey;
  }

  /** The key that signs now. Rejects with `unavailable` if no key was ever read. */
  async signer(): Promise<{ kid: string; privateKey: CryptoKey }> {
    let found = this.#current();
    // The timer may be late, for example after the machine has slept. Other processes may have
    // retired the key meanwhile.
    const isStale = this.#clock.monotonicMs() - this.#loadedAtMs > STALE_MS;
    if (!found || isStale || found.signsUntilMs <= this.#clock.wallMs()) {
      await this.#reloadOrKeep();
      found = this.#current();
    }
    if (!found) throw new VezaError('unavailable', 'There is no signing key yet. Try again.');
    return found;
  }

  /**
   * Makes a new key. It is published at once and signs after 12 minutes; the key before it stays
   * until its tokens expire. `revoke`: all other keys are deleted and the new one signs at once.
   * Every access token is refused within five seconds, and clients refresh.
   */
  async rotate({ revoke = false } = {}): Promise<KeyTimes> {
    const made = await makeKey();
    const nowMs = this.#clock.wallMs();
    const times = timesOf(made.kid, revoke ? nowMs : nowMs + PUBLISHED_AHEAD_MS);
    await this.#locked(async (connection) => {
      if (revoke) await connection.query('delete from signing_keys');
      else {
        // A key that has signed nothing yet is deleted, so that frequent rotation does not pile up
        // keys.
        await connection.query('delete from signing_keys where signs_from > $1', [new Date(nowMs + CLOCKS_DIFFER_MS)]);
        await connection.query('update signing_keys set signs_until = $1, kept_until = $2 where signs_until > $1', [
          new Date(times.signsFromMs),
          new Date(times.signsFromMs + KEPT_AFTER_MS),
        ]);
      }
      await this.#insert(connection, made, times);
    });
    // A running reload may have read the table before this change.
    await this.#reloads.settled();
    await this.reload();
    return times;
  }

  /**
   * Reads the table, and makes or deletes keys that are due. Concurrent callers share one reload.
   */
  reload(): Promise<void> {
    return this.#reloads.run();
  }

  async #reload(): Promise<void> {
    for (let pass = 0; ; pass++) {
      const rows = await this.#rows(this.#database);
      const keys = new Map<string, SigningKey>();
      for (const row of rows) {
        const key = await this.#opened(row);
        if (key) keys.set(row.kid, key);
      }
      const isDue = this.#dueSteps(rows).length > 0;
      // The number of passes is limited: a new key that cannot be decrypted would be replaced for
      // ever.
      if (!isDue || pass === 2) {
        this.#keys = keys;
        this.#loadedAtMs = this.#clock.monotonicMs();
        this.#isUnavailable = false;
        return;
      }
      const made = await makeKey();
      await this.#locked(async (connection) => {
        for (const step of this.#dueSteps(await this.#rows(connection))) await step(connection, made);
      });
    }
  }

  async #reloadOrKeep(): Promise<void> {
    try {
      await this.reload();
    } catch (error) {
      if (this.#keys.size === 0) throw error;
      this.#log.warn(
        { event: 'access.signing_keys_unreadable', error: messageOf(error) },
        'could not read the signing keys; the known ones stay in use',
      );
    }
  }

  /** The changes that the table needs now, in this order. */
  #dueSteps(rows: readonly Row[]): ((connection: Queryable, made: MadeKey) => Promise<void>)[] {
    const nowMs = this.#clock.wallMs();
    const steps: ((connection: Queryable, made: MadeKey) => Promise<void>)[] = [];
    const newest = rows.filter((row) => !this.#broken.has(row.kid)).at(-1);
    if (!newest) {
      // The first key may sign at once: nobody has cached the key set yet.
      steps.push((connection, made) => this.#insert(connection, made, timesOf(made.kid, nowMs)));
    } else if (newest.signs_until.getTime() - nowMs < MADE_AHEAD_MS) {
      const fromMs = Math.max(newest.signs_until.getTime(), nowMs + PUBLISHED_AHEAD_MS);
      steps.push(async (connection, made) => {
        await this.#insert(connection, made, timesOf(made.kid, fromMs));
        // If no process ran in time to make the successor, the current key signs until the
        // successor may.
        await connection.query('update signing_keys set signs_until = $2, kept_until = $3 where kid = $1 and signs_until < $2', [
          newest.kid,
          new Date(fromMs),
          new Date(fromMs + KEPT_AFTER_MS),
        ]);
      });
    }
    const over = rows.filter((row) => row !== newest && row.kept_until.getTime() <= nowMs).map((row) => row.kid);
    if (over.length > 0)
      steps.push(async (connection) => {
        await connection.query('delete from signing_keys where kid = any($1)', [over]);
      });
    return steps;
  }

  #current(): SigningKey | undefined {
    const nowMs = this.#clock.wallMs();
    const keys = [...this.#keys.values()];
    // The latest key whose time has come. If there is none, the first key is used: its maker's
    // clock may be ahead of this one.
    return keys.findLast((key) => key.signsFromMs <= nowMs) ?? keys[0];
  }

  async #opened(row: Row): Promise<SigningKey | undefined> {
    const times: KeyTimes = {
      kid: row.kid,
      signsFromMs: row.signs_from.getTime(),
      signsUntilMs: row.signs_until.getTime(),
      keptUntilMs: row.kept_until.getTime(),
    };
    const known = this.#keys.get(row.kid);
    if (known) return { ...known, ...times };
    if (this.#broken.has(row.kid)) return undefined;
    try {
      const privateJwk = JSON.parse((await this.#vault.open(purposeOf(row.kid), row.sealed_private_jwk)).toString()) as JWK;
      return {
        ...times,
        publicJwk: { ...row.public_jwk, kid: row.kid, alg: SIGNING_ALGORITHM, use: 'sig' },
        publicKey: (await importJWK(row.public_jwk, SIGNING_ALGORITHM)) as CryptoKey,
        privateKey: (await importJWK(privateJwk, SIGNING_ALGORITHM)) as CryptoKey,
      };
    } catch (error) {
      if (error instanceof VezaError) throw error;
      this.#broken.add(row.kid);
      this.#log.error(
        { event: 'access.signing_key_unusable', kid: row.kid, error: messageOf(error) },
        'a signing key cannot be decrypted; a new key replaces it',
      );
      return undefined;
    }
  }

  async #rows(connection: Queryable): Promise<Row[]> {
    return (await connection.query<Row>('select * from signing_keys order by signs_from, kid')).rows;
  }

  async #insert(connection: Queryable, { kid, publicJwk, privateJwk }: MadeKey, times: KeyTimes): Promise<void> {
    await connection.query(
      `insert into signing_keys (kid, public_jwk, sealed_private_jwk, signs_from, signs_until, kept_until) values ($1, $2, $3, $4, $5, $6)`,
      [
        kid,
        JSON.stringify(publicJwk),
        this.#vault.seal(purposeOf(kid), JSON.stringify(privateJwk)),
        new Date(times.signsFromMs),
        new Date(times.signsUntilMs),
        new Date(times.keptUntilMs),
      ],
    );
    this.#log.info(
      { event: 'access.signing_key_created', kid, signsFrom: new Date(times.signsFromMs).toISOString() },
      'a new signing key was created',
    );
  }

  /**
   * Runs `work` in one process at a time. It must not open sealed values: that may need a query,
   * and the embedded database has one connection.
   */
  async #locked(work: (connection: Queryable) => Promise<void>): Promise<void> {
    await this.#database.transaction(async (connection) => {
      await connection.query('select pg_advisory_xact_lock($1)', [LOCK]);
      await work(connection);
    });
  }
}

interface Row {
  kid: string;
  public_jwk: JWK;
  sealed_private_jwk: Buffer;
  signs_from: Date;
  signs_until: Date;
  kept_until: Date;
}

interface MadeKey {
  readonly kid: string;
  readonly publicJwk: JWK;
  readonly privateJwk: JWK;
}

const purposeOf = (kid: string) => `signing-key:${kid}`;

const timesOf = (kid: string, signsFromMs: number): KeyTimes => ({
  kid,
  signsFromMs,
  signsUntilMs: signsFromMs + SIGNS_MS,
  keptUntilMs: signsFromMs + SIGNS_MS + KEPT_AFTER_MS,
});

async function makeKey(): Promise<MadeKey> {
  const { publicKey, privateKey } = await generateKeyPair(SIGNING_ALGORITHM, { crv: 'Ed25519', extractable: true });
  const publicJwk = await exportJWK(publicKey);
  return { kid: await calculateJwkThumbprint(publicJwk), publicJwk, privateJwk: await exportJWK(privateKey) };
}
