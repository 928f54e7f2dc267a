import { type CryptoKey, calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK, type JWK } from 'jose';
import type { Database, Queryable } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { Loop } from '../../runtime/loop.js';
import type { Vault } from '../vault.js';

/** How long an access token is good. */
export const ACCESS_TOKEN_MS = 15 * 60_000;
/** The one algorithm (Ed25519) of our access tokens. */
export const SIGNING_ALGORITHM = 'EdDSA';

const SIGNS_MS = 24 * 3_600_000;
/** The next key is made this long before its time, so that a database that is away for a while delays nothing. */
const MADE_AHEAD_MS = 30 * 60_000;
/**
 * No key signs sooner after it was made. Ten minutes are promised to whoever keeps the key set in a cache; the rest is for a process that reads
 * the table late.
 */
const PUBLISHED_AHEAD_MS = 12 * 60_000;
/** A token's life, and a little for processes whose clocks differ. */
const KEPT_AFTER_MS = ACCESS_TOKEN_MS + 2 * 60_000;
/** How often the table is read: a key that was revoked by another process is nobody's here within five seconds. */
const POLL_MS = 2000;
/** A process that has not read the table for this long may sign with a key that others have put away. */
const STALE_MS = 2 * 60_000;
/** By how much the clocks of processes may differ where one asks whether a key has begun to sign. */
const CLOCKS_DIFFER_MS = 60_000;
/** A stranger who invents key ids costs a query this often at most. */
const UNKNOWN_COOLDOWN_MS = 3000;
/** RFC 7638, SHA-256. */
const KID = /^[\w-]{43}$/;
/** Any number will do, as long as every version of Veza takes the same. */
const LOCK = 0x76657a62;

export interface SigningKeysOptions {
  readonly database: Database;
  readonly vault: Vault;
  readonly clock: Clock;
  readonly log: Log;
}

/** When a key does what, wall clock milliseconds. */
export interface KeyTimes {
  readonly kid: string;
  readonly signsFromMs: number;
  /** It signs on when there is no other. */
  readonly signsUntilMs: number;
  /** Until then it is in the key set, because tokens that it signed are good. */
  readonly keptUntilMs: number;
}

interface SigningKey extends KeyTimes {
  readonly publicJwk: JWK;
  readonly publicKey: CryptoKey;
  readonly privateKey: CryptoKey;
}

/**
 * The keys that access tokens are signed with. A new one every 24 hours, by whichever process comes first; it is published before it signs, and
 * stays published as long as a token of its is good. While the database is away, the keys known are used on.
 *
 * At one time one key signs: the latest whose time has come. All processes find the same one, because what they decide by is in the table,
 * written under a lock, for minutes before it counts.
 */
export class SigningKeys {
  readonly #database: Database;
  readonly #vault: Vault;
  readonly #clock: Clock;
  readonly #log: Log;
  /** By kid, in the order in which they sign. */
  #keys: ReadonlyMap<string, SigningKey> = new Map();
  /** Rows whose private key does not open: they neither sign nor count as a successor. */
  readonly #broken = new Set<string>();
  /** Monotonic. */
  #loadedAtMs = Number.NEGATIVE_INFINITY;
  /** Monotonic: when the table was last read because of a key id that was not known. */
  #lookedAtMs = Number.NEGATIVE_INFINITY;
  #isAway = false;
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
        if (!this.#isAway)
          log.warn(
            { event: 'access.signing_keys_unreadable', error: messageOf(error) },
            'could not read the signing keys; the known ones stay in use',
          );
        this.#isAway = true;
      },
    });
  }

  /** Reads the keys, makes the first one, and sees to it from then on. */
  async start(): Promise<void> {
    await this.reload();
    this.#reloads.start();
  }

  /** Waits for what is under way. Twice is harmless. */
  async stop(): Promise<void> {
    await this.#reloads.stop();
  }

  /** For `/.well-known/jwks.json`. */
  keySet(): { keys: JWK[] } {
    return { keys: [...this.#keys.values()].map((key) => key.publicJwk) };
  }

  /** As last read. */
  has(kid: string): boolean {
    return this.#keys.has(kid);
  }

  /** What verifies a token that names this key; undefined: it is none of ours. */
  async publicKey(kid: string): Promise<CryptoKey | undefined> {
    const nowMs = this.#clock.monotonicMs();
    if (!this.#keys.has(kid) && KID.test(kid) && nowMs - this.#lookedAtMs >= UNKNOWN_COOLDOWN_MS) {
      // Another process may have made it just now.
      this.#lookedAtMs = nowMs;
      await this.#reloadOrUseOn();
    }
    return this.#keys.get(kid)?.publicKey;
  }

  /** The key that signs now. Rejects with `unavailable` when none has ever been read. */
  async signer(): Promise<{ kid: string; privateKey: CryptoKey }> {
    let found = this.#current();
    // It has slept, or its timer is late: others may have put this key away.
    const isStale = this.#clock.monotonicMs() - this.#loadedAtMs > STALE_MS;
    if (!found || isStale || found.signsUntilMs <= this.#clock.wallMs()) {
      await this.#reloadOrUseOn();
      found = this.#current();
    }
    if (!found) throw new VezaError('unavailable', 'There is no key to sign with yet; try again.');
    return found;
  }

  /**
   * A new key, now. It is published at once and signs 12 minutes later; the one before stays as long as its tokens are good. `revoke`: the
   * others are thrown away and it signs at once, so that every access token there is ends within five seconds, and clients refresh.
   */
  async rotate({ revoke = false } = {}): Promise<KeyTimes> {
    const made = await makeKey();
    const nowMs = this.#clock.wallMs();
    const times = timesOf(made.kid, revoke ? nowMs : nowMs + PUBLISHED_AHEAD_MS);
    await this.#locked(async (connection) => {
      if (revoke) await connection.query('delete from signing_keys');
      else {
        // One that has signed nothing yet gives way, so that rotating often does not pile them up.
        await connection.query('delete from signing_keys where signs_from > $1', [new Date(nowMs + CLOCKS_DIFFER_MS)]);
        await connection.query('update signing_keys set signs_until = $1, kept_until = $2 where signs_until > $1', [
          new Date(times.signsFromMs),
          new Date(times.signsFromMs + KEPT_AFTER_MS),
        ]);
      }
      await this.#insert(connection, made, times);
    });
    // A reload that is under way may have read the table before.
    await this.#reloads.settled();
    await this.reload();
    return times;
  }

  /** Reads the table, and brings it up to date when it is time. Whoever asks meanwhile waits for the same. */
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
      const isDue = this.#due(rows).length > 0;
      // A key that was made just now and does not open would go round for ever.
      if (!isDue || pass === 2) {
        this.#keys = keys;
        this.#loadedAtMs = this.#clock.monotonicMs();
        this.#isAway = false;
        return;
      }
      const made = await makeKey();
      await this.#locked(async (connection) => {
        for (const step of this.#due(await this.#rows(connection))) await step(connection, made);
      });
    }
  }

  async #reloadOrUseOn(): Promise<void> {
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

  /** What has to be done to the table, in this order. */
  #due(rows: readonly Row[]): ((connection: Queryable, made: MadeKey) => Promise<void>)[] {
    const nowMs = this.#clock.wallMs();
    const steps: ((connection: Queryable, made: MadeKey) => Promise<void>)[] = [];
    const newest = rows.filter((row) => !this.#broken.has(row.kid)).at(-1);
    if (!newest) {
      // Nobody has a key set of ours in a cache: it may sign at once.
      steps.push((connection, made) => this.#insert(connection, made, timesOf(made.kid, nowMs)));
    } else if (newest.signs_until.getTime() - nowMs < MADE_AHEAD_MS) {
      const fromMs = Math.max(newest.signs_until.getTime(), nowMs + PUBLISHED_AHEAD_MS);
      steps.push(async (connection, made) => {
        await this.#insert(connection, made, timesOf(made.kid, fromMs));
        // Nobody was there to make the next one in time: this one signs on until that may.
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
    // None before its time, except that one whose maker's clock is ahead of ours is better than none.
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

  /** One process at a time. Inside, nothing may ask the vault to open: the embedded database has one connection. */
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
