import { VezaError } from '../../runtime/errors.js';
import { ANONYMOUS, type Principal } from '../roles.js';
import type { SessionFactors } from './session-factors.js';

/**
 * Verifies one kind of credential. Undefined: the credential is of another kind. Rejects with
 * `unauthorized` if it is of this kind and not good.
 */
export type Verifier = (credential: string) => Promise<Principal | undefined>;

/** RFC 9110 11.4: one space or more. */
const BEARER = /^Bearer +([\w.~+/=-]{1,8192})$/i;

/** Turns an `Authorization` header into a principal. */
export class Identity {
  readonly #verifiers: readonly Verifier[];
  readonly #factors: Pick<SessionFactors, 'asShownNow'> | undefined;

  /** `factors` undefined: the second factor in a token counts until the token expires. */
  constructor(verifiers: readonly Verifier[], factors?: Pick<SessionFactors, 'asShownNow'>) {
    this.#verifiers = verifiers;
    this.#factors = factors;
  }

  /**
   * The principal of a header. An empty header is anonymous. A credential that is not good is an
   * error even if none is needed, because its client expects it to work: rejects with
   * `unauthorized`.
   */
  async ofHeader(authorization: string): Promise<Principal> {
    if (authorization === '') return ANONYMOUS;
    return this.ofCredential(BEARER.exec(authorization)?.[1] ?? '');
  }

  /**
   * The principal of an access token, an API key or the admin token. Rejects with `unauthorized`.
   */
  async ofCredential(credential: string): Promise<Principal> {
    if (credential !== '') {
      for (const verify of this.#verifiers) {
        const principal = await verify(credential);
        if (principal) return this.#factors ? this.#factors.asShownNow(principal) : principal;
      }
    }
    throw new VezaError('unauthorized', 'The token is not valid.');
  }
}
