import { jwtVerify, SignJWT } from 'jose';
import type { Clock } from '../../runtime/clock.js';
import { type Principal, ROLES, type Role } from '../roles.js';
import { checkedToken, invalidToken, VerifiedTokens } from './jwt.js';
import { ACCESS_TOKEN_MS, SIGNING_ALGORITHM, type SigningKeys } from './signing-keys.js';

/** The `aud` claim of Veza's own tokens. */
const ACCESS_TOKEN_AUDIENCE = 'veza';
/** RFC 9068: the type keeps other tokens signed with the same key from passing as access tokens. */
const TYPE = 'at+jwt';

/** Authentication methods (RFC 8176) that count as a second factor. */
export const SECOND_FACTORS: readonly string[] = ['mfa', 'otp', 'hwk', 'swk', 'sc'];
export const hasSecondFactor = (amr: readonly string[]): boolean => amr.some((method) => SECOND_FACTORS.includes(method));

interface Claims {
  readonly sub: string;
  readonly sid: string;
  readonly name: string;
  readonly role: Role;
  readonly amr: readonly string[];
  readonly exp: number;
}

const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/;

/**
 * Checked by hand: every chat process verifies tokens, and a validation library would add a tenth
 * to its memory.
 */
function isClaims(payload: object): payload is Claims {
  const { sub, sid, name, role, amr, exp } = payload as Record<string, unknown>;
  return (
    typeof sub === 'string' &&
    UUID.test(sub) &&
    typeof sid === 'string' &&
    UUID.test(sid) &&
    typeof name === 'string' &&
    ROLES.some((known) => known === role) &&
    Array.isArray(amr) &&
    amr.every((method) => typeof method === 'string') &&
    Number.isSafeInteger(exp)
  );
}

export interface AccessTokensOptions {
  readonly keys: Pick<SigningKeys, 'signer' | 'publicKey' | 'has'>;
  /** The `iss` claim: `PUBLIC_URL`. */
  readonly issuer: string;
  readonly clock: Clock;
  /** Whether a session has ended. Called for every request. */
  readonly isEnded: (sessionId: string) => boolean;
}

export interface TokenSubject {
  readonly accountId: string;
  readonly sessionId: string;
  readonly name: string;
  readonly role: Role;
  readonly amr: readonly string[];
}

/**
 * Veza's own access tokens: JWTs (EdDSA, `typ` at+jwt) that are good for 15 minutes or until their
 * session ends. Only `EdDSA`, Veza's own keys, issuer and audience are accepted; `jku`, `jwk`,
 * `x5u` and similar header fields are ignored.
 */
export class AccessTokens {
  readonly #keys: AccessTokensOptions['keys'];
  readonly #issuer: string;
  readonly #clock: Clock;
  readonly #isEnded: (sessionId: string) => boolean;
  readonly #verified = new VerifiedTokens<{ untilMs: number; kid: string; sessionId: string; principal: Principal }>();

  constructor({ keys, issuer, clock, isEnded }: AccessTokensOptions) {
    this.#keys = keys;
    this.#issuer = issuer;
    this.#clock = clock;
    this.#isEnded = isEnded;
  }

  /**
   * Signs a token. `expiresIn` is in seconds. Rejects with `unavailable` if there is no signing
   * key.
   */
  async issue({ accountId, sessionId, name, role, amr }: TokenSubject): Promise<{ accessToken: string; expiresIn: number }> {
    const { kid, privateKey } = await this.#keys.signer();
    const nowS = Math.floor(this.#clock.wallMs() / 1000);
    const expiresIn = ACCESS_TOKEN_MS / 1000;
    const accessToken = await new SignJWT({ sid: sessionId, name, role, amr: [...amr] })
      .setProtectedHeader({ alg: SIGNING_ALGORITHM, kid, typ: TYPE })
      .setIssuer(this.#issuer)
      .setAudience(ACCESS_TOKEN_AUDIENCE)
      .setSubject(accountId)
      .setIssuedAt(nowS)
      .setExpirationTime(nowS + expiresIn)
      .sign(privateKey);
    return { accessToken, expiresIn };
  }

  /** Rejects: `unauthorized`, or `unavailable` if the keys could not be read yet. */
  async verify(token: string): Promise<Principal> {
    let known = this.#verified.get(token, this.#clock.wallMs());
    // A cached token counts only while its signing key exists.
    if (!known || !this.#keys.has(known.kid)) {
      known = await this.#check(token);
      this.#verified.put(token, known);
    }
    if (this.#isEnded(known.sessionId)) throw invalidToken();
    return known.principal;
  }

  async #check(token: string) {
    const { payload, protectedHeader } = await checkedToken(() =>
      jwtVerify(
        token,
        async ({ kid }) => {
          const key = typeof kid === 'string' ? await this.#keys.publicKey(kid) : undefined;
          if (!key) throw invalidToken();
          return key;
        },
        {
          algorithms: [SIGNING_ALGORITHM],
          issuer: this.#issuer,
          audience: ACCESS_TOKEN_AUDIENCE,
          typ: TYPE,
          currentDate: new Date(this.#clock.wallMs()),
          requiredClaims: ['sub', 'sid', 'exp', 'iat'],
        },
      ),
    );
    if (!isClaims(payload)) throw invalidToken();
    const { sub, sid, name, role, amr, exp } = payload;
    const principal: Principal = {
      kind: 'account',
      id: `account:${sub}`,
      name,
      role,
      accountId: sub,
      sessionId: sid,
      signedBy: protectedHeader.kid!,
      expiresAtMs: exp * 1000,
      secondFactor: hasSecondFactor(amr),
    };
    return { untilMs: exp * 1000, kid: protectedHeader.kid!, sessionId: sid, principal };
  }
}
