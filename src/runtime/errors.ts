/**
 * Every failure that somebody outside can meet has a stable code. One edge per protocol turns the code into bytes
 * (problem document, RTMP status, HTTP line); nobody else does.
 */
export const ERROR_CODES = {
  bad_request: 400,
  unauthorized: 401,
  /** The e-mail address, the password, a code or a passkey is wrong; between the first two it is not said which. */
  invalid_credentials: 401,
  /** The password is right; send a code of the second factor with it. */
  second_factor_required: 401,
  /** What a moderator or administrator may wants a second factor: set one up, or sign in with it. */
  second_factor_missing: 403,
  /** It makes something that outlives a session: show the password once more, then try again. */
  fresh_sign_in_required: 403,
  forbidden: 403,
  /** The channel has country rules, and the listener is not where it may be heard, or where he is is not known. */
  country_blocked: 451,
  not_found: 404,
  /** `Allow` says which methods the address takes. */
  method_not_allowed: 405,
  /** The head or the body did not come in time. */
  request_timeout: 408,
  conflict: 409,
  /** The account has as many as it may have. */
  quota_exceeded: 409,
  /** `If-Match` or `If-None-Match` does not hold. */
  precondition_failed: 412,
  payload_too_large: 413,
  uri_too_long: 414,
  unsupported_media: 415,
  range_not_satisfiable: 416,
  expectation_failed: 417,
  /** The address is spoken to by WebSocket. */
  upgrade_required: 426,
  rate_limited: 429,
  head_too_large: 431,
  internal: 500,
  /** A method or a transfer coding that no address of the service takes. */
  not_implemented: 501,
  unavailable: 503,
  /** Another encoder with the same key is on air and sending; this one was displaced by it a moment ago. */
  displaced: 409,
  /** The limit of streams (`MAX_STREAMS`) or of connections is reached. */
  busy: 503,
  version_not_supported: 505,
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

export class VezaError extends Error {
  readonly code: ErrorCode;
  /** HTTP status that goes with the code. */
  readonly status: number;
  /** Extra members of the problem document; never a secret. */
  readonly details: Readonly<Record<string, unknown>> | undefined;

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; details?: Record<string, unknown> } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'VezaError';
    this.code = code;
    this.status = ERROR_CODES[code];
    this.details = options.details;
  }
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
