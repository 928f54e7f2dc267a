import { createHash } from 'node:crypto';
import { errors } from 'jose';
import { VezaError } from '../../runtime/errors.js';
import type { Principal } from '../roles.js';
import type { Verifier } from './identity.js';

/** RFC 7519 in compact form; as long as an `Authorization` header may carry. */
const JWT = /^[\w-]+\.([\w-]+)\.[\w-]*$/;
const MAX_TOKEN_CHARS = 8192;

/** Knows the tokens of one issuer. Rejects with `unauthorized`. */
export type IssuerVerifier = (token: string) => Promise<Principal>;

/**
 * Signed tokens, each by the verifier of the issuer that it names. What it names is not proven yet: it only decides whose keys and
 * algorithms are tried, and those are that issuer's own, so that nothing in a token chooses how it is checked.
 */
export function jwtVerifier(byIssuer: ReadonlyMap<string, IssuerVerifier>): Verifier {
  return async (credential) => {
    if (credential.length > MAX_TOKEN_CHARS) return undefined;
    const payload = JWT.exec(credential)?.[1];
    if (payload === undefined) return undefined;
    const verify = byIssuer.get(issuerIn(payload));
    if (!verify) throw invalidToken();
    return verify(credential);
  };
}

function issuerIn(payload: string): string {
  try {
    const { iss } = JSON.parse(Buffer.from(payload, 'base64url').toString()) as { iss?: unknown };
    return typeof iss === 'string' ? iss : '';
  } catch {
    return '';
  }
}

/** What is wrong with a token is not said, except that it has expired. */
export function invalidToken(cause?: unknown): VezaError {
  const message =
    cause instanceof errors.JWTExpired ? 'The token has expired; get another by POST /api/v1/auth/refresh.' : 'The token is not valid.';
  return new VezaError('unauthorized', message, { cause });
}

/** Runs a check by `jose`; what it finds wrong becomes `unauthorized`, what is wrong on our side comes through. */
export async function checkedToken<T>(check: () => Promise<T>): Promise<T> {
  try {
    return await check();
  } catch (error) {
    throw error instanceof errors.JOSEError ? invalidToken(error) : error;
  }
}

/** Tokens whose signature was checked already. Bounded; the oldest go first. */
export class VerifiedTokens<T extends { readonly untilMs: number }> {
  readonly #limit: number;
  /** By SHA-256: a token must not lie about in memory longer than its request. */
  readonly #known = new Map<string, T>();

  constructor(limit = 10_000) {
    this.#limit = limit;
  }

  get size(): number {
    return this.#known.size;
  }

  get(token: string, nowMs: number): T | undefined {
    const name = nameOf(token);
    const found = this.#known.get(name);
    if (!found || found.untilMs > nowMs) return found;
    this.#known.delete(name);
    return undefined;
  }

  put(token: string, verified: T): void {
    this.#known.set(nameOf(token), verified);
    if (this.#known.size > this.#limit) this.#known.delete(this.#known.keys().next().value!);
  }
}

const nameOf = (token: string) => createHash('sha256').update(token).digest('base64');
