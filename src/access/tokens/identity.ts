import { VezaError } from '../../runtime/errors.js';
import { ANONYMOUS, type Principal } from '../roles.js';
import type { SessionFactors } from './session-factors.js';

/** Knows one kind of credential. Undefined: it is not of this kind, ask the next. Rejects with `unauthorized` when it is, and is not good. */
export type Verifier = (credential: string) => Promise<Principal | undefined>;

/** RFC 9110 11.4: one space or several. */
const BEARER = /^Bearer +([\w.~+/=-]{1,8192})$/i;

/** Who asks: what an `Authorization` header is worth. */
export class Identity {
  readonly #verifiers: readonly Verifier[];
  readonly #factors: Pick<SessionFactors, 'asShownNow'> | undefined;

  /** `factors` undefined: a token's word is taken for its second factor. */
  constructor(verifiers: readonly Verifier[], factors?: Pick<SessionFactors, 'asShownNow'>) {
    this.#verifiers = verifiers;
    this.#factors = factors;
  }

  /**
   * Nothing given is nobody. What is given and not good is an error even where none is needed, because whoever sends it believes that it
   * works: rejects with `unauthorized`.
   */
  async ofHeader(authorization: string): Promise<Principal> {
    if (authorization === '') return ANONYMOUS;
    return this.ofCredential(BEARER.exec(authorization)?.[1] ?? '');
  }

  /** An access token, an API key or the admin token. Rejects with `unauthorized`. */
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
