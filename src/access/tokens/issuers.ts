import type { Clock } from '../../runtime/clock.js';
import type { Log } from '../../runtime/log.js';
import type { AccessTokens } from './access-tokens.js';
import { GATEWAY_ISSUER, gatewayTokens, issuerTokens } from './gateway-tokens.js';
import type { IssuerVerifier } from './jwt.js';

export interface IssuersOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly publicUrl: string;
  /** `JWT_SECRET`, shared with the operator's gateway. Undefined: its tokens are not accepted. */
  readonly jwtSecret?: string | undefined;
  /** `JWT_AUDIENCE`. */
  readonly jwtAudience?: string | undefined;
  /**
   * Another issuer (`AUTH_…`). Its tokens are accepted if `authJwksUrl`, `authIssuer` and
   * `authAudience` are set.
   */
  readonly authJwksUrl?: string | undefined;
  readonly authIssuer?: string | undefined;
  readonly authAudience?: string | undefined;
  readonly authRoleClaim?: string | undefined;
  readonly authPrivilegedRoles?: boolean | undefined;
}

/** The verifiers of all accepted token issuers, by `iss`. */
export async function issuersOf(options: IssuersOptions, tokens: AccessTokens): Promise<ReadonlyMap<string, IssuerVerifier>> {
  const { clock, log, publicUrl, jwtSecret, authJwksUrl, authIssuer, authAudience } = options;
  const rules = { clock, privilegedRoles: options.authPrivilegedRoles ?? false };
  const issuers = new Map<string, IssuerVerifier>();
  if (authJwksUrl !== undefined && authIssuer !== undefined && authAudience !== undefined) {
    const { RemoteKeys } = await import('./remote-keys.js');
    const keys = new RemoteKeys({ url: authJwksUrl, clock, log });
    issuers.set(
      authIssuer,
      issuerTokens({ ...rules, keys, issuer: authIssuer, audience: authAudience, roleClaim: options.authRoleClaim ?? 'role' }),
    );
  }
  if (jwtSecret !== undefined)
    issuers.set(GATEWAY_ISSUER, gatewayTokens({ ...rules, secret: jwtSecret, audience: options.jwtAudience ?? 'veza' }));
  // Set last, so that no other issuer can replace Veza's own.
  issuers.set(publicUrl, (token) => tokens.verify(token));
  return issuers;
}
