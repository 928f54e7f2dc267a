/**
 * Every failure that a client can meet has a stable code. Each protocol has one place that turns
 * the code into bytes (problem document, RTMP status, HTTP line); no other code does that.
 */
export const ERROR_CODES = {
  bad_request: 400,
  unauthorized: 401,
  /**
   * The e-mail address, the password, a code or a passkey is wrong. The answer does not say whether
   * the e-mail address or the password was wrong.
   */
  invalid_credentials: 401,
  /** The password is right. The client sends it again together with a code of the second factor. */
  second_factor_required: 401,
  /**
   * The permission needs a second factor: the account sets one up, or signs in with the one it has.
   */
  second_factor_missing: 403,
  /**
   * The request makes something that outlives a session. The person enters the password once more
   * and tries again.
   */
  fresh_sign_in_required: 403,
  forbidden: 403,
  /** The channel is restricted by country, and the listener's country is not allowed or unknown. */
  country_blocked: 451,
  not_found: 404,
  /** The address does not take this method; the header field `Allow` lists the methods it takes. */
  method_not_allowed: 405,
  /** The head or the body of the request did not arrive in time. */
  request_timeout: 408,
  conflict: 409,
  /** The account already has as many of these as it may have. */
  quota_exceeded: 409,
  /** The condition of `If-Match` or `If-None-Match` is not true. */
  precondition_failed: 412,
  payload_too_large: 413,
  uri_too_long: 414,
  unsupported_media: 415,
  range_not_satisfiable: 416,
  expectation_failed: 417,
  /** The address takes WebSockets only. */
  upgrade_required: 426,
  rate_limited: 429,
  head_too_large: 431,
  internal: 500,
  /** No address of the service takes this method or this transfer coding. */
  not_implemented: 501,
  unavailable: 503,
  /**
   * Another encoder with the same stream key is on air and sending. It displaced this one a moment
   * ago.
   */
  displaced: 409,
  /** The limit of broadcasts (`MAX_STREAMS`) or of connections is reached. */
  busy: 503,
  version_not_supported: 505,
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

export class VezaError extends Error {
  readonly code: ErrorCode;
  /** The HTTP status of the code. */
  readonly status: number;
  /** Additional members of the problem document; never a secret. */
  readonly details: Readonly<Record<string, unknown>> | undefined;

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; details?: Record<string, unknown> } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'VezaError';
    this.code = code;
    this.status = ERROR_CODES[code];
    this.details = options.details;
  }
}

/** The message of any thrown value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
