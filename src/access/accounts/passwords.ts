import { randomBytes } from 'node:crypto';
import { VezaError } from '../../runtime/errors.js';
import { PasswordPool, type PasswordPoolOptions } from './password-pool.js';
import type { PasswordCost } from './password-worker.js';

export const MIN_PASSWORD_CHARS = 8;
export const MAX_PASSWORD_CHARS = 256;
/**
 * An API accepts at most this many UTF-16 units before it counts characters: some scripts use
 * several units per character until they are composed.
 */
export const MAX_PASSWORD_UNITS = 4 * MAX_PASSWORD_CHARS;

/**
 * OWASP's second recommendation for argon2id: 19 MiB, 2 passes, 1 lane. A hash with another cost is
 * replaced at the next sign-in.
 */
export const PASSWORD_COST: PasswordCost = { memoryKib: 19_456, passes: 2, lanes: 1 };

export interface PasswordsOptions extends PasswordPoolOptions {
  readonly cost?: PasswordCost;
}

/**
 * Checks and hashes passwords with argon2id in threads. A password has 8 to 256 characters; two
 * passwords that look the same are the same (NFC). Every method rejects with `busy` when too many
 * tasks wait, and with `unavailable` when its thread died.
 */
export class Passwords {
  readonly #pool: PasswordPool;
  readonly #cost: PasswordCost;
  readonly #prefix: string;
  /**
   * A hash that no known password has: its digest is random. Checking against it takes as long as
   * checking a real hash.
   */
  readonly #unmatchedHash: string;
  /** How many times argon2 ran, whatever the result. */
  worked = 0;

  constructor({ cost = PASSWORD_COST, ...pool }: PasswordsOptions = {}) {
    this.#pool = new PasswordPool(pool);
    this.#cost = cost;
    this.#prefix = `$argon2id$v=19$m=${cost.memoryKib},t=${cost.passes},p=${cost.lanes}$`;
    const unpadded = (sizeBytes: number) => randomBytes(sizeBytes).toString('base64').replaceAll('=', '');
    this.#unmatchedHash = `${this.#prefix}${unpadded(16)}$${unpadded(32)}`;
  }

  /**
   * Checks whether a password may be chosen. `own`: what other people know about its owner, such as
   * name and address. Rejects with `bad_request`; the message says what to choose instead.
   */
  async check(password: string, own: readonly string[]): Promise<void> {
    const text = composed(password);
    const length = [...text].length;
    if (length < MIN_PASSWORD_CHARS || length > MAX_PASSWORD_CHARS) {
      throw new VezaError('bad_request', `A password is ${MIN_PASSWORD_CHARS} to ${MAX_PASSWORD_CHARS} characters long.`);
    }
    // Unpaired surrogates would all be hashed as the same replacement character.
    if (/\p{Cs}/u.test(text)) throw new VezaError('bad_request', 'The password is not well-formed text.');
    if (await this.#pool.run({ task: 'guessable', password: text, own })) {
      throw new VezaError(
        'bad_request',
        'This password is among the first that anybody would try. Choose one that is your own: three words, for instance.',
      );
    }
  }

  /** The hash to store. The password must have passed `check`. */
  async hash(password: string): Promise<string> {
    this.worked++;
    return (await this.#pool.run({ task: 'hash', password: composed(password), cost: this.#cost })) as string;
  }

  /**
   * Whether the password matches `hash`. Without a hash (no such account, or an account without a
   * password) the answer is no and takes as long. `outdated`: the password is right, and the stored
   * hash has another cost than today's.
   */
  async verify(hash: string | undefined, password: string): Promise<{ right: boolean; outdated: boolean }> {
    this.worked++;
    const matches = await this.#pool.run({ task: 'verify', password: composed(password), hash: hash ?? this.#unmatchedHash });
    const right = matches === true && hash !== undefined;
    return { right, outdated: right && !hash.startsWith(this.#prefix) };
  }

  /** How many tasks were refused with `busy` because too many waited. */
  get refused(): number {
    return this.#pool.refused;
  }

  stop(): Promise<void> {
    return this.#pool.stop();
  }
}

function composed(password: string): string {
  if (password.length > MAX_PASSWORD_UNITS)
    throw new VezaError('bad_request', `A password is at most ${MAX_PASSWORD_CHARS} characters long.`);
  return password.normalize('NFC');
}
