import type { Database } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import type { Principal, Role } from '../roles.js';
import { hasSecondFactor } from './access-tokens.js';
import type { SigningKeys } from './signing-keys.js';

/**
 * The current rights of a principal, for answers that take longer than the five seconds within
 * which a right must end. An access token that has expired meanwhile does not end such an answer:
 * its session is checked instead.
 */
export class StandingPrincipals {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #signingKeys: Pick<SigningKeys, 'has'>;

  constructor({ database, clock, signingKeys }: { database: Database; clock: Clock; signingKeys: Pick<SigningKeys, 'has'> }) {
    this.#database = database;
    this.#clock = clock;
    this.#signingKeys = signingKeys;
  }

  /**
   * The principal with its current role and second factor. Undefined: its session, key or token has
   * ended, or its account is banned or deleted.
   */
  async now(principal: Principal): Promise<Principal | undefined> {
    const { kind, id, sessionId, expiresAtMs } = principal;
    if (isKeyRevoked(principal, this.#signingKeys, this.#clock)) return undefined;
    if (kind === 'account') {
      const { rows } = await this.#database.query<{ role: Role; amr: string[] }>(
        `select a.role, s.amr from sessions s join accounts a on a.id = s.account_id
         where s.id = $1 and s.ended_at is null and a.banned_at is null`,
        [sessionId],
      );
      return rows[0] && { ...principal, role: rows[0].role, secondFactor: hasSecondFactor(rows[0].amr) };
    }
    if (expiresAtMs !== undefined && expiresAtMs <= this.#clock.wallMs()) return undefined;
    if (kind !== 'api-key') return principal;
    const { rows } = await this.#database.query<{ role: Role; second_factor: boolean }>(
      'select a.role, k.second_factor from api_keys k join accounts a on a.id = k.account_id where k.id = $1 and a.banned_at is null',
      [id.slice('api-key:'.length)],
    );
    return rows[0] && { ...principal, role: rows[0].role, secondFactor: rows[0].second_factor };
  }
}

/**
 * Whether the key that signed the principal's access token was revoked: somebody else may have made
 * the token. A key that was retired by rotation exists longer than its tokens, so it never counts
 * as revoked.
 */
export const isKeyRevoked = ({ signedBy, expiresAtMs = 0 }: Principal, signingKeys: Pick<SigningKeys, 'has'>, clock: Clock): boolean =>
  signedBy !== undefined && expiresAtMs > clock.wallMs() && !signingKeys.has(signedBy);
