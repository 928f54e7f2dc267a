import { randomBytes } from 'node:crypto';
import { VezaError } from '../../runtime/errors.js';
import { PasswordPool, type PasswordPoolOptions } from './password-pool.js';
import type { PasswordCost } from './password-worker.js';

export const MIN_PASSWORD_CHARS = 8;
export const MAX_PASSWORD_CHARS = 256;
/** UTF-16 units that an API takes before it counts characters: some scripts need several a character until they are composed. */
export const MAX_PASSWORD_UNITS = 4 * MAX_PASSWORD_CHARS;

/** OWASP's second choice for argon2id: 19 MiB, 2 passes, 1 lane. Hashes of other costs are made anew when their password comes by. */
export const PASSWORD_COST: PasswordCost = { memoryKib: 19_456, passes: 2, lanes: 1 };

export interface PasswordsOptions extends PasswordPoolOptions {
  readonly cost?: PasswordCost;
}

/**
 * Passwords: argon2id in threads of its own. A password is 8 to 256 characters; two that look the same are the same (NFC). Every method
 * rejects with `busy` when too many wait already, and with `unavailable` when its thread died.
 */
export class Passwords {
  readonly #pool: PasswordPool;
  readonly #cost: PasswordCost;
  readonly #prefix: string;
  /** Nobody's: its digest is random, and so the hash of no password that anybody knows. */
  readonly #nobodys: string;
  /** How often argon2 was asked for, right or wrong, known account or not. */
  worked = 0;

  constructor({ cost = PASSWORD_COST, ...pool }: PasswordsOptions = {}) {
    this.#pool = new PasswordPool(pool);
    this.#cost = cost;
    this.#prefix = `$argon2id$v=19$m=${cost.memoryKib},t=${cost.passes},p=${cost.lanes}$`;
    const unpadded = (sizeBytes: number) => randomBytes(sizeBytes).toString('base64').replaceAll('=', '');
    this.#nobodys = `${this.#prefix}${unpadded(16)}$${unpadded(32)}`;
  }

  /**
   * Whether somebody may choose it. `own`: what anybody knows of its owner, such as name and address. Rejects with `bad_request`, and says
   * what to choose instead.
   */
  async check(password: string, own: readonly string[]): Promise<void> {
    const text = composed(password);
    const length = [...text].length;
    if (length < MIN_PASSWORD_CHARS || length > MAX_PASSWORD_CHARS) {
      throw new VezaError('bad_request', `A password is ${MIN_PASSWORD_CHARS} to ${MAX_PASSWORD_CHARS} characters long.`);
    }
    // Halves of characters would all be hashed as the same one.
    if (/\p{Cs}/u.test(text)) throw new VezaError('bad_request', 'The password is not well-formed text.');
    if (await this.#pool.run({ task: 'guessable', password: text, own })) {
      throw new VezaError(
        'bad_request',
        'This password is among the first that anybody would try. Choose one that is your own: three words, for instance.',
      );
    }
  }

  /** To be kept. The password must have passed `check`. */
  async hash(password: string): Promise<string> {
    this.worked++;
    return (await this.#pool.run({ task: 'hash', password: composed(password), cost: this.#cost })) as string;
  }

  /**
   * Whether it is the password of `hash`. Without a hash (no such account, or one that has none yet) the answer is no, and takes as long.
   * `outdated`: it was right, and the hash is to be made anew with today's cost.
   */
  async verify(hash: string | undefined, password: string): Promise<{ right: boolean; outdated: boolean }> {
    this.worked++;
    const matches = await this.#pool.run({ task: 'verify', password: composed(password), hash: hash ?? this.#nobodys });
    const right = matches === true && hash !== undefined;
    return { right, outdated: right && !hash.startsWith(this.#prefix) };
  }

  /** How many were told to come back later, because too many waited. */
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
