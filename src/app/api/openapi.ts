import { z } from 'zod';
import type { Freshness } from '../../access/accounts/fresh-sign-in.js';
import type { Channel } from '../../access/channels.js';
import { type ChannelRole, PERMISSIONS, type Permission, type Principal } from '../../access/roles.js';
import { ERROR_CODES, type ErrorCode, VezaError } from '../../runtime/errors.js';
import { uncleanTextIn } from '../../runtime/text.js';
import { text, wholeInQuery } from './request-schemas.js';

/**
 * One operation of the API, which is a table of them. The same schemas check requests, describe
 * answers and are printed as `/api/v1/openapi.json` (`openapi-document.ts`), so that the three
 * cannot differ. Schemas of requests are made with `request-schemas.ts`; those of answers name
 * their resource (`.meta({ id: 'Channel' })`).
 */
export interface Operation<P = unknown, Q = unknown, B = unknown> {
  /** camelCase verb and noun; generated clients name their methods after it. */
  readonly id: string;
  readonly method: 'get' | 'post' | 'put' | 'patch' | 'delete';
  /** Path below `/api/v1`, with parameters in braces. */
  readonly path: string;
  /** One short sentence that says what the operation does; at most 82 characters. */
  readonly summary: string;
  /** What else a client must know: conditions, side effects, times. */
  readonly description?: string;
  /**
   * `anyone`: no credential is needed; with one, the answer may show more. `account`: a person who
   * is signed in with a session (no API key). Otherwise the permission that is needed; one about a
   * channel is checked for the channel that `channelOf` names.
   */
  readonly access: 'anyone' | 'account' | Permission;
  /**
   * Whether a session alone is not enough (`FreshSignIn`): the operation makes or gives away a
   * right that outlives the session, or takes an account over. Taking a right away never needs it.
   * When it depends on the body, `of` decides and `when` says so in words. API keys and the admin
   * token have no session and are not asked.
   */
  readonly wantsFreshSignIn?: true | { readonly when: string; of(body: B): boolean };
  /**
   * Finds the channel that the operation is about. Default: the one in the path. `isPrivate`:
   * seeing the channel is not enough to know about the thing. Undefined: it does not exist.
   */
  channelOf?(params: P): Promise<{ readonly slug: string; readonly isPrivate: boolean } | undefined>;
  readonly params?: z.ZodType<P>;
  readonly query?: z.ZodType<Q>;
  readonly body?: z.ZodType<B>;
  readonly status: 200 | 201 | 202 | 204;
  /** Schema of the answer; undefined with 204. */
  readonly answer?: z.ZodType;
  /**
   * Set for an answer that is not JSON: `handle` resolves to an `AsyncIterable<string>`, which is
   * read as fast as the client reads. `answer` is then the schema of one line.
   */
  readonly contentType?: 'application/jsonl';
  /**
   * Codes besides `bad_request`, `rate_limited`, `internal` and `unavailable`, which every
   * operation has, and those that follow from `access`.
   */
  readonly errors: readonly ErrorCode[];
  /**
   * The credential is in the body, and a token in the header is ignored. `or-header`: the header is
   * used when the body has no credential; a bad token there (it may just have expired) counts as
   * none.
   */
  readonly provenByBody?: true | 'or-header';
  /**
   * Not recorded in the audit log, because such routine would bury the other entries; exceptions
   * are recorded where they are found. `unless-noted`: recorded only when `handle` has called
   * `audit`, for requests of anonymous clients that may have no effect.
   */
  readonly unaudited?: true | 'unless-noted';
  handle(request: OperationCall<P, Q, B>): Promise<unknown>;
}

export interface OperationCall<P = unknown, Q = unknown, B = unknown> {
  readonly params: P;
  readonly query: Q;
  readonly body: B;
  readonly principal: Principal;
  /** The channel for which the permission was checked; throws for other operations. */
  readonly channel: Channel;
  /** The principal's role in `channel`. */
  readonly channelRole: ChannelRole | undefined;
  readonly client: RequestOrigin;
  /** Set when the operation needs a fresh sign-in and the principal is a session. */
  readonly freshness: Freshness | undefined;
  /**
   * Sets `Location`, the address of the thing that was made: below `/api/v1`, or a whole address.
   * Each operation with status 201 must call it.
   */
  created(location: string): void;
  /**
   * Adds to the audit entry, which has the operation, the channel and the path already. Never pass
   * a secret.
   */
  audit(more: { target?: string; details?: Readonly<Record<string, unknown>> }): void;
  /**
   * Call it when the body's credential was good: the request then counts for this account, not for
   * its address.
   */
  proven(accountId: string): Promise<void>;
}

/** The client that sent a request. */
export interface RequestOrigin {
  readonly address: string;
  readonly userAgent: string;
  /** Two letters, from a proxy's header or a database. */
  readonly country?: string | undefined;
  readonly requestId: string;
}

export const isPermission = (access: Operation['access']): access is Permission => access in PERMISSIONS;
export const isAboutChannel = (access: Operation['access']): boolean =>
  access.startsWith('channel.') && isPermission(access) && 'channelRoles' in PERMISSIONS[access];

/** Lets a handler know the types of its schemas; does nothing at run time. */
export const operation = <P, Q, B>(given: Operation<P, Q, B>): Operation => given as unknown as Operation;

/** Problem document, RFC 9457. */
export const problemSchema = z
  .strictObject({
    type: z.literal('about:blank'),
    title: z.string(),
    status: z.int().min(400).max(599),
    code: z
      .enum(Object.keys(ERROR_CODES) as [ErrorCode, ...ErrorCode[]])
      .meta({ id: 'ErrorCode', description: 'Stable code for programs to decide by.' }),
    detail: z.string().meta({ description: 'A text for people; it may change.' }),
    requestId: z.string().optional().meta({ description: 'The same as in `X-Request-Id`; the server’s log has it too.' }),
    details: z
      .record(z.string(), z.unknown())
      .optional()
      .meta({ description: '`at`: which value is wrong; `retryAfterS`: seconds to wait before trying again; and others.' }),
  })
  .meta({ id: 'Problem' });

/** Schema of a page of a list. `next` is the `cursor` of the next request; null at the end. */
export const pageOf = (item: z.ZodType) => z.strictObject({ items: z.array(item), next: z.string().nullable() });

export const MAX_PAGE = 200;
export const DEFAULT_PAGE = 50;
export const pageQuery = {
  // A cursor may contain a user's id of up to two kilobytes.
  cursor: text({ max: 4096, pattern: '^[A-Za-z0-9_-]+$' }).optional().meta({ description: '`next` of the previous page; opaque.' }),
  limit: wholeInQuery(1, MAX_PAGE).default(DEFAULT_PAGE).meta({ description: 'Items per page.' }),
};

/** Encodes the position where a list goes on; clients must treat it as opaque. */
const cursorOf = (position: readonly (string | number)[]): string => Buffer.from(JSON.stringify(position)).toString('base64url');

/**
 * Makes a page of a list that was read with one item more than the limit, which tells whether there
 * are more.
 */
export function page<T, V>(found: readonly T[], limit: number, view: (item: T) => V, position: (item: T) => (string | number)[]) {
  const items = found.slice(0, limit);
  return { items: items.map(view), next: found.length > limit ? cursorOf(position(items.at(-1)!)) : null };
}

/** Writes a moment as every answer does: RFC 3339, UTC, milliseconds. */
export const isoOf = (wallMs: number) => new Date(wallMs).toISOString();

/**
 * Wall clock milliseconds in a cursor, at most what a `Date` can hold; PostgreSQL can hold it too.
 */
export const positionTime = z.number().min(0).max(8.64e15);

export function positionOf<T extends z.ZodType>(cursor: string, shape: T): z.infer<T> {
  try {
    const position: unknown = JSON.parse(Buffer.from(cursor, 'base64url').toString());
    if (uncleanTextIn(position)) throw new Error('not clean');
    return shape.parse(position);
  } catch {
    throw new VezaError('bad_request', 'This cursor is not one of ours.');
  }
}

/**
 * Checks a value. Throws `bad_request`, or the code that the schema names, with the member that is
 * wrong.
 */
export function checked<T>(schema: z.ZodType<T> | undefined, given: unknown, where: string): T {
  if (!schema) return undefined as T;
  const unclean = uncleanTextIn(given);
  if (unclean) throw new VezaError('bad_request', `${[where, ...unclean].join('.')}: text must be well-formed and without U+0000`);
  const parsed = schema.safeParse(given);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  const at = [where, ...issue.path].join('.');
  // Set by `TextRules.tooLong`.
  const { code, refusal } = (issue.code === 'custom' ? issue.params : undefined) ?? {};
  throw new VezaError(code ?? 'bad_request', `${at}: ${issue.message}`, { details: { at, ...(refusal && { refusal }) } });
}
