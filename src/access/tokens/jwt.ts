import { createHash } from 'node:crypto';
import { errors } from 'jose';
import { VezaError } from '../../runtime/errors.js';
import type { Principal } from '../roles.js';
import type { Verifier } from './identity.js';

/** A compact JWT (RFC 7519). */
const JWT = /^[\w-]+\.([\w-]+)\.[\w-]*$/;
/** The longest credential that an `Authorization` header may carry. */
const MAX_TOKEN_CHARS = 8192;

/** Verifies the tokens of one issuer. Rejects with `unauthorized`. */
export type IssuerVerifier = (token: string) => Promise<Principal>;

/**
 * Verifies signed tokens by the issuer that they name. The name is not proven yet. It only selects
 * the issuer whose keys and algorithms are used, so nothing in a token decides how it is verified.
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

/** The error for a token that is not good. It has no reason, except that the token has expired. */
export function invalidToken(cause?: unknown): VezaError {
  const message =
    cause instanceof errors.JWTExpired ? 'The token has expired. Get a new one with POST /api/v1/auth/refresh.' : 'The token is not valid.';
  return new VezaError('unauthorized', message, { cause });
}

/**
 * Runs a check by `jose`. An error about the token becomes `unauthorized`; other errors stay as
 * they are.
 */
export async function checkedToken<T>(check: () => Promise<T>): Promise<T> {
  try {
    return await check();
  } catch (error) {
    throw error instanceof errors.JOSEError ? invalidToken(error) : error;
  }
}

/** A bounded cache of tokens whose signature was verified. The oldest are dropped first. */
export class VerifiedTokens<T extends { readonly untilMs: number }> {
  readonly #limit: number;
  /** Keyed by SHA-256, so that tokens stay in memory no longer than their request. */
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
