import type { Clock } from '../../runtime/clock.js';
import type { Log } from '../../runtime/log.js';
import type { AccessTokens } from './access-tokens.js';
import { GATEWAY_ISSUER, gatewayTokens, issuerTokens } from './gateway-tokens.js';
import type { IssuerVerifier } from './jwt.js';

export interface IssuersOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly publicUrl: string;
  /** Of the platform's gateway (`JWT_SECRET`, `JWT_AUDIENCE`); without a secret its tokens are not accepted. */
  readonly jwtSecret?: string | undefined;
  readonly jwtAudience?: string | undefined;
  /** Of another issuer (`AUTH_…`); accepted when address, issuer and audience are given. */
  readonly authJwksUrl?: string | undefined;
  readonly authIssuer?: string | undefined;
  readonly authAudience?: string | undefined;
  readonly authRoleClaim?: string | undefined;
  readonly authPrivilegedRoles?: boolean | undefined;
}

/** Whose signed tokens are accepted, by `iss`. */
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
  // Last, so that nobody's takes the place of our own.
  issuers.set(publicUrl, (token) => tokens.verify(token));
  return issuers;
}
