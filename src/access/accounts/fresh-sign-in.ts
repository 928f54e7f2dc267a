import type { Database } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';
import type { Principal } from '../roles.js';

/**
 * For this long after a sign-in or a proof (the password or a code), a session may make credentials
 * that outlive it.
 */
export const FRESH_MS = 10 * 60_000;

/**
 * `proven`: the session has shown the password or a code again. `signed-in`: only its sign-in is
 * recent.
 */
export type Freshness = 'proven' | 'signed-in';

export interface FreshSignInOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly accounts: { checkPassword(accountId: string, password: string): Promise<boolean> };
  /** Consumes the code. */
  readonly twoFactor: { check(accountId: string, code: string): Promise<boolean> };
}

/**
 * Keeps a stolen session from making a credential that outlives it. Operations that make one
 * (`Operation.wantsFreshSignIn`) need a session with a recent sign-in, or with a recent proof: the
 * password or a code, shown again.
 */
export class FreshSignIn {
  readonly #options: FreshSignInOptions;

  constructor(options: FreshSignInOptions) {
    this.#options = options;
  }

  /**
   * Checks the password or the code and marks the session as proven. Rejects:
   * `invalid_credentials`, `unauthorized` (the session has ended), `rate_limited`, `busy`.
   */
  async prove(principal: Principal, given: { readonly password: string } | { readonly code: string }): Promise<void> {
    const { database, clock, accounts, twoFactor } = this.#options;
    const { accountId, sessionId } = signedIn(principal);
    if ('password' in given) {
      if (!(await accounts.checkPassword(accountId, given.password)))
        throw new VezaError('invalid_credentials', 'The password is wrong.', { details: { at: 'body.password' } });
    } else if (!(await twoFactor.check(accountId, given.code)))
      throw new VezaError('invalid_credentials', 'The code is not right, or was used already.', { details: { at: 'body.code' } });
    const { rowCount } = await database.query('update sessions set proven_at = $2 where id = $1 and ended_at is null', [
      sessionId,
      new Date(clock.wallMs()),
    ]);
    if (rowCount === 0) throw new VezaError('unauthorized', 'The session has ended. Sign in again.');
  }

  /** Rejects with `fresh_sign_in_required`, or with `forbidden` if the principal has no session. */
  async check(principal: Principal): Promise<Freshness> {
    const { database, clock } = this.#options;
    const { rows } = await database.query<{ created_at: Date; proven_at: Date | null }>(
      'select created_at, proven_at from sessions where id = $1',
      [signedIn(principal).sessionId],
    );
    const isFresh = (at: Date | null | undefined) => at != null && clock.wallMs() - at.getTime() < FRESH_MS;
    if (isFresh(rows[0]?.proven_at)) return 'proven';
    if (isFresh(rows[0]?.created_at)) return 'signed-in';
    throw new VezaError('fresh_sign_in_required', 'Enter your password again (POST /me/proof), then try again.');
  }
}

function signedIn({ accountId, sessionId }: Principal): { accountId: string; sessionId: string } {
  if (accountId === undefined || sessionId === undefined) throw new VezaError('forbidden', 'This is for a person who is signed in.');
  return { accountId, sessionId };
}
