import { createHmac, createSecretKey, timingSafeEqual } from 'node:crypto';
import {
  decodeProtectedHeader,
  type JWTPayload,
  type JWTVerifyOptions,
  jwtVerify,
  type ProtectedHeaderParameters,
  UnsecuredJWT,
} from 'jose';
import type { Clock } from '../../runtime/clock.js';
import { userIdOf } from '../../runtime/user-id.js';
import { outranks, type Principal, ROLES, type Role } from '../roles.js';
import { hasSecondFactor } from './access-tokens.js';
import { checkedToken, type IssuerVerifier, invalidToken, VerifiedTokens } from './jwt.js';
import type { RemoteKeys } from './remote-keys.js';

/** The `iss` claim of a gateway that shares `JWT_SECRET`. */
export const GATEWAY_ISSUER = 'gateway';
/** How much the clocks of two systems may differ. */
const TOLERANCE_S = 10;
/**
 * A cached token is verified again after this time, because its issuer may have removed its key.
 */
const CHECKED_ANEW_MS = 5 * 60_000;
/** At most this many characters of a name are kept, because other people see it. */
const MAX_NAME_CHARS = 100;
/** At most this many roles or methods of a token are read. */
const MAX_LISTED = 1000;

interface Rules {
  readonly clock: Clock;
  /** Whether the roles `moderator` and `admin` are accepted if the token shows a second factor. */
  readonly privilegedRoles: boolean;
}

/** Tokens of the operator's own gateway: HS256 with a shared secret, `iss` "gateway". */
export function gatewayTokens({ secret, audience, ...rules }: Rules & { secret: string; audience: string }): IssuerVerifier {
  const key = createSecretKey(secret, 'utf8');
  return remembering(rules.clock, async (token) => {
    const { alg, crit } = headerOf(token);
    if (alg !== 'HS256' || crit !== undefined) throw invalidToken();
    const end = token.lastIndexOf('.');
    const signature = Buffer.from(token.slice(end + 1), 'base64url');
    // Verified in this thread: as a WebCrypto job it was an eighth of the work of a chat process
    // for a new connection.
    const expected = createHmac('sha256', key).update(token.slice(0, end)).digest();
    if (signature.length !== expected.length || !timingSafeEqual(signature, expected)) throw invalidToken();
    // The signature is good, and the claims are left to check. `jose` checks claims without a
    // signature only in an unsecured JWT, so the token is rewritten as one.
    const claims = `${NO_SIGNATURE}.${token.slice(token.indexOf('.') + 1, end)}.`;
    const { payload } = UnsecuredJWT.decode(claims, optionsOf(rules, GATEWAY_ISSUER, audience));
    return principalOf(payload, 'gateway', payload.role, rules);
  });
}

/**
 * `jose` throws a TypeError for a malformed header. A malformed token is the client's error, so it
 * becomes `unauthorized`.
 */
function headerOf(token: string): ProtectedHeaderParameters {
  try {
    return decodeProtectedHeader(token);
  } catch (cause) {
    throw invalidToken(cause);
  }
}

/** The header of an unsecured JWT (RFC 7519 6.1). */
const NO_SIGNATURE = Buffer.from('{"alg":"none"}').toString('base64url');

/** Tokens of another issuer, such as an OpenID Connect provider, verified by its published keys. */
export function issuerTokens({
  keys,
  issuer,
  audience,
  roleClaim,
  ...rules
}: Rules & { keys: Pick<RemoteKeys, 'find'>; issuer: string; audience: string; roleClaim: string }): IssuerVerifier {
  // The issuer is encoded, so that different pairs of issuer and subject never make the same id.
  const prefix = `issuer:${encodeURIComponent(issuer)}`;
  return remembering(rules.clock, async (token) => {
    const { kid } = headerOf(token);
    if (kid !== undefined && typeof kid !== 'string') throw invalidToken();
    const found = await keys.find(kid);
    if (!found) throw invalidToken();
    const { payload } = await jwtVerify(token, found.key, { ...optionsOf(rules, issuer, audience), algorithms: [found.algorithm] });
    return principalOf(payload, prefix, claimAt(payload, roleClaim), rules);
  });
}

const optionsOf = ({ clock }: Rules, issuer: string, audience: string): JWTVerifyOptions => ({
  issuer,
  audience,
  currentDate: new Date(clock.wallMs()),
  clockTolerance: TOLERANCE_S,
});

function remembering(clock: Clock, verify: IssuerVerifier): IssuerVerifier {
  const verified = new VerifiedTokens<{ untilMs: number; principal: Principal }>();
  return async (token) => {
    const nowMs = clock.wallMs();
    const known = verified.get(token, nowMs);
    if (known) return known.principal;
    const principal = await checkedToken(() => verify(token));
    verified.put(token, { untilMs: Math.min(principal.expiresAtMs ?? nowMs, nowMs + CHECKED_ANEW_MS), principal });
    return principal;
  };
}

/**
 * The principal of a verified token. `prefix` is the issuer's, and keeps the subjects of different
 * issuers apart.
 */
function principalOf(payload: JWTPayload, prefix: string, claimed: unknown, { privilegedRoles }: Rules): Principal {
  const { sub, exp, amr } = payload;
  const id = userIdOf(prefix, sub);
  if (id === undefined || exp === undefined) throw invalidToken();
  const secondFactor = Array.isArray(amr) && hasSecondFactor(amr.slice(0, MAX_LISTED));
  const role = highestOf(claimed);
  const privileged = outranks(role, 'broadcaster');
  return {
    kind: 'gateway',
    id,
    name: nameOf(payload.name) || nameOf(payload.preferred_username),
    role: privileged && !(privilegedRoles && secondFactor) ? 'broadcaster' : role,
    expiresAtMs: exp * 1000,
    secondFactor,
  };
}

/** The highest role of a claim, which is one role or a list. Unknown roles are ignored. */
function highestOf(claimed: unknown): Role {
  let highest: Role = 'listener';
  for (const given of Array.isArray(claimed) ? claimed.slice(0, MAX_LISTED) : [claimed]) {
    const role = ROLES.find((name) => name === given);
    if (role && outranks(role, highest)) highest = role;
  }
  return highest;
}

/** The claim `path`, or, if its name has dots, the member of a claim: `realm_access.roles`. */
function claimAt(payload: JWTPayload, path: string): unknown {
  if (Object.hasOwn(payload, path)) return payload[path];
  let at: unknown = payload;
  for (const part of path.split('.')) {
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, part)) return undefined;
    at = (at as Record<string, unknown>)[part];
  }
  return at;
}

const nameOf = (claim: unknown): string =>
  typeof claim === 'string' ? [...claim.replace(/[\p{Cc}\p{Cs}]/gu, ' ').trim()].slice(0, MAX_NAME_CHARS).join('') : '';
