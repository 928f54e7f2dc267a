import { type CryptoKey, importJWK, type JWK } from 'jose';
import { z } from 'zod';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';

/** For this long keys are used from memory without reading the set again. */
const FRESH_MS = 10 * 60_000;
/** For this long keys stay in use while their issuer does not answer. */
const STALE_MS = 3_600_000;
/** The set is read at most once in this time, however many tokens name unknown keys. */
const COOLDOWN_MS = 10_000;
const TIMEOUT_MS = 5000;
const MAX_BYTES = 256 * 1024;
const MAX_KEYS = 100;

const setSchema = z.object({ keys: z.array(z.record(z.string(), z.unknown())) });

export interface RemoteKey {
  readonly key: CryptoKey;
  /** The only algorithm that the key is used with. */
  readonly algorithm: string;
}

/**
 * The key set (RFC 7517) of another issuer. A key's algorithm comes from the set, never from a
 * token. Symmetric keys are left out: everybody who can read the set could sign with them.
 */
export class RemoteKeys {
  readonly #url: string;
  readonly #clock: Clock;
  readonly #log: Log;
  #keys: ReadonlyMap<string, RemoteKey> = new Map();
  /** Monotonic milliseconds of the last successful read. */
  #readAtMs = Number.NEGATIVE_INFINITY;
  /** Monotonic milliseconds of the last attempt. */
  #triedAtMs = Number.NEGATIVE_INFINITY;
  #reading: Promise<boolean> | undefined;

  constructor({ url, clock, log }: { url: string; clock: Clock; log: Log }) {
    this.#url = url;
    this.#clock = clock;
    this.#log = log;
  }

  /**
   * The key with this id, or the only key of the set if `kid` is undefined. Undefined: the issuer
   * has no such key. Rejects with `unavailable` if the set cannot be read.
   */
  async find(kid: string | undefined): Promise<RemoteKey | undefined> {
    const ageMs = this.#clock.monotonicMs() - this.#readAtMs;
    if (ageMs > STALE_MS) {
      if (!(await this.#read())) throw new VezaError('unavailable', 'The keys of the token’s issuer cannot be read. Try again.');
    } else if (ageMs > FRESH_MS) {
      // The cached keys are used while the set is read in the background.
      this.#read().catch(() => undefined);
    }
    return this.#lookUp(kid) ?? ((await this.#read()) ? this.#lookUp(kid) : undefined);
  }

  #lookUp(kid: string | undefined): RemoteKey | undefined {
    if (kid !== undefined) return this.#keys.get(kid);
    return this.#keys.size === 1 ? this.#keys.values().next().value : undefined;
  }

  /**
   * Resolves to false if the read failed, or if the last attempt was less than `COOLDOWN_MS` ago.
   */
  #read(): Promise<boolean> {
    if (this.#reading) return this.#reading;
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#triedAtMs < COOLDOWN_MS) return Promise.resolve(false);
    this.#triedAtMs = nowMs;
    this.#reading = this.#fetch()
      .then(
        async (body) => {
          this.#keys = await this.#importKeys(body);
          this.#readAtMs = this.#clock.monotonicMs();
          return true;
        },
        (error) => {
          this.#log.warn(
            { event: 'access.issuer_keys_unreadable', url: this.#url, error: messageOf(error) },
            'could not read the keys of the token issuer',
          );
          return false;
        },
      )
      .finally(() => {
        this.#reading = undefined;
      });
    return this.#reading;
  }

  async #fetch(): Promise<z.infer<typeof setSchema>> {
    const abort = new AbortController();
    const cancel = this.#clock.after(TIMEOUT_MS, () => abort.abort(new Error(`no answer within ${TIMEOUT_MS} ms`)));
    try {
      const response = await fetch(this.#url, { signal: abort.signal, redirect: 'error', headers: { accept: 'application/json' } });
      if (response.status !== 200) {
        await response.body?.cancel();
        throw new Error(`status ${response.status}`);
      }
      const chunks: Uint8Array[] = [];
      let sizeBytes = 0;
      for await (const chunk of response.body ?? []) {
        sizeBytes += chunk.length;
        // Leaving the loop cancels the rest of the body.
        if (sizeBytes > MAX_BYTES) throw new Error(`more than ${MAX_BYTES} bytes`);
        chunks.push(chunk);
      }
      return setSchema.parse(JSON.parse(Buffer.concat(chunks).toString()));
    } finally {
      cancel();
    }
  }

  async #importKeys({ keys }: z.infer<typeof setSchema>): Promise<Map<string, RemoteKey>> {
    const found = new Map<string, RemoteKey>();
    for (const [index, jwk] of (keys as JWK[]).slice(0, MAX_KEYS).entries()) {
      const algorithm = algorithmOf(jwk);
      if (algorithm === undefined) continue;
      try {
        // Only the public members are imported, whatever the key says about its use.
        const { kty, crv, x, y, n, e } = jwk;
        const key = (await importJWK({ kty, crv, x, y, n, e } as JWK, algorithm)) as CryptoKey;
        found.set(typeof jwk.kid === 'string' ? jwk.kid : `#${index}`, { key, algorithm });
      } catch (error) {
        this.#log.warn(
          { event: 'access.issuer_key_skipped', url: this.#url, index, error: messageOf(error) },
          'a key of the token issuer cannot be used and was skipped',
        );
      }
    }
    return found;
  }
}

const RSA_ALGORITHMS: readonly unknown[] = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'];
const EC_ALGORITHMS: Readonly<Record<string, string>> = { 'P-256': 'ES256', 'P-384': 'ES384', 'P-521': 'ES512' };

/** Undefined: the key does not verify signatures, or its algorithm is not accepted. */
function algorithmOf({ kty, crv, alg, use, key_ops }: JWK): string | undefined {
  if (use !== undefined && use !== 'sig') return undefined;
  if (Array.isArray(key_ops) && !key_ops.includes('verify')) return undefined;
  if (kty === 'RSA') return RSA_ALGORITHMS.includes(alg ?? 'RS256') ? (alg ?? 'RS256') : undefined;
  const only =
    kty === 'EC' && typeof crv === 'string' && Object.hasOwn(EC_ALGORITHMS, crv)
      ? EC_ALGORITHMS[crv]
      : kty === 'OKP' && crv === 'Ed25519'
        ? 'EdDSA'
        : undefined;
  return alg === undefined || alg === only || (only === 'EdDSA' && alg === 'Ed25519') ? only : undefined;
}
