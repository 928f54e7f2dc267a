import { z } from 'zod';
import type { Freshness } from '../../access/accounts/fresh-sign-in.js';
import type { Channel } from '../../access/channels.js';
import { type ChannelRole, PERMISSIONS, type Permission, type Principal } from '../../access/roles.js';
import { ERROR_CODES, type ErrorCode, VezaError } from '../../runtime/errors.js';
import { uncleanTextIn } from '../../runtime/text.js';
import { text, wholeInQuery } from './request-schemas.js';

/**
 * The API as a table of operations. The same schemas check what comes in, describe what goes out and are printed as
 * `/api/v1/openapi.json` (`openapi-document.ts`), so that none of the three can say something else than the others. Schemas of what
 * comes in are made with `request-schemas.ts`; those of what goes out name what they are of (`.meta({ id: 'Channel' })`).
 */
export interface Operation<P = unknown, Q = unknown, B = unknown> {
  /** camelCase verb and noun; generated clients name their methods after it. */
  readonly id: string;
  readonly method: 'get' | 'post' | 'put' | 'patch' | 'delete';
  /** Below `/api/v1`; parameters in braces. */
  readonly path: string;
  /** A few words on what it does; at most `MAX_SUMMARY_CHARS`. */
  readonly summary: string;
  /** What a client has to know beside that: conditions, what else happens, when. */
  readonly description?: string;
  /**
   * `anyone`: who one is may show more. `account`: somebody who is signed in, with a session of his own (no API key). Otherwise what one must be
   * allowed to do; a permission about a channel is judged for the one that `channelOf` names.
   */
  readonly access: 'anyone' | 'account' | Permission;
  /**
   * It makes a right that outlives the session, gives somebody one, or takes an account over: a session alone is not enough (`FreshSignIn`). Taking a
   * right away is never held up. With a body that decides: `of`, and `when` in words. API keys and the admin token are not asked, having no session.
   */
  readonly wantsFreshSignIn?: true | { readonly when: string; of(body: B): boolean };
  /**
   * The channel that it is about; that of the path unless given. `isPrivate`: what it is about is not to be known of by those who see the channel
   * alone. Undefined: there is no such thing.
   */
  channelOf?(params: P): Promise<{ readonly slug: string; readonly isPrivate: boolean } | undefined>;
  readonly params?: z.ZodType<P>;
  readonly query?: z.ZodType<Q>;
  readonly body?: z.ZodType<B>;
  readonly status: 200 | 201 | 202 | 204;
  /** What is answered; undefined with 204. */
  readonly answer?: z.ZodType;
  /** Of an answer that is not JSON: `handle` resolves to an `AsyncIterable<string>`, read as fast as the client reads. `answer` is a line of it. */
  readonly contentType?: 'application/jsonl';
  /** Beyond `bad_request`, `rate_limited`, `internal` and `unavailable`, which every operation may meet, and those that follow from `access`. */
  readonly errors: readonly ErrorCode[];
  /**
   * What proves the caller is in the body: a token in the header is not looked at. `or-header`: it is, where the body has none; one that is not
   * good (it may have expired just now) counts as none.
   */
  readonly provenByBody?: true | 'or-header';
  /**
   * Routine that would bury the rest of the audit log; what is not routine in it is recorded where it is found. `unless-noted`: in the log
   * only when `handle` has called `audit`, for what strangers may ask for without anything coming of it.
   */
  readonly unaudited?: true | 'unless-noted';
  handle(request: Call<P, Q, B>): Promise<unknown>;
}

export interface Call<P = unknown, Q = unknown, B = unknown> {
  readonly params: P;
  readonly query: Q;
  readonly body: B;
  readonly principal: Principal;
  /** What a permission about a channel was judged for; with other operations it throws. */
  readonly channel: Channel;
  /** Of the principal, in `channel`. */
  readonly channelRole: ChannelRole | undefined;
  readonly client: Client;
  /** Where the operation wants a fresh sign-in, and a session asks. */
  readonly freshness: Freshness | undefined;
  /** Where what was made is found (`Location`): an address below `/api/v1`, or a whole one. With status 201 each operation says so. */
  created(location: string): void;
  /** What the audit log says beside the operation, the channel and the path; never a secret. */
  audit(more: { target?: string; details?: Readonly<Record<string, unknown>> }): void;
  /** What came with the body was good, and is this account's: the request counts for it, and not for its address. */
  proven(accountId: string): Promise<void>;
}

/** Where a request came from. */
export interface Client {
  readonly address: string;
  readonly userAgent: string;
  /** Two letters, where a proxy or a database says so. */
  readonly country?: string | undefined;
  readonly requestId: string;
}

export const isPermission = (access: Operation['access']): access is Permission => access in PERMISSIONS;
export const isAboutChannel = (access: Operation['access']): boolean =>
  access.startsWith('channel.') && isPermission(access) && 'channelRoles' in PERMISSIONS[access];

/** For the types only: an operation's handler knows its schemas. */
export const operation = <P, Q, B>(given: Operation<P, Q, B>): Operation => given as unknown as Operation;

/** RFC 9457. */
export const problemSchema = z
  .strictObject({
    type: z.literal('about:blank'),
    title: z.string(),
    status: z.int().min(400).max(599),
    code: z
      .enum(Object.keys(ERROR_CODES) as [ErrorCode, ...ErrorCode[]])
      .meta({ id: 'ErrorCode', description: 'Stable; what a program decides by.' }),
    detail: z.string().meta({ description: 'For people; may change.' }),
    requestId: z.string().optional().meta({ description: 'As in `X-Request-Id`; the log knows the request by it.' }),
    details: z
      .record(z.string(), z.unknown())
      .optional()
      .meta({ description: '`at`: which value is wrong; `retryAfterS`: seconds until it is worth another try; and others.' }),
  })
  .meta({ id: 'Problem' });

/** Every list is paged. `next` goes into `cursor` of the next request; null at the end. */
export const pageOf = (item: z.ZodType) => z.strictObject({ items: z.array(item), next: z.string().nullable() });

export const MAX_PAGE = 200;
export const DEFAULT_PAGE = 50;
export const pageQuery = {
  // A user's id may be in it, of up to two kilobytes.
  cursor: text({ max: 4096, pattern: '^[A-Za-z0-9_-]+$' }).optional().meta({ description: '`next` of the page before; opaque.' }),
  limit: wholeInQuery(1, MAX_PAGE).default(DEFAULT_PAGE).meta({ description: 'Items a page.' }),
};

/** A cursor is where a list goes on, and nobody else's business. */
const cursorOf = (position: readonly (string | number)[]): string => Buffer.from(JSON.stringify(position)).toString('base64url');

/** An answer to a list that was read with one more than the limit, which tells whether there are more. */
export function page<T, V>(found: readonly T[], limit: number, view: (item: T) => V, position: (item: T) => (string | number)[]) {
  const items = found.slice(0, limit);
  return { items: items.map(view), next: found.length > limit ? cursorOf(position(items.at(-1)!)) : null };
}

/** How every answer writes a moment: RFC 3339, UTC, milliseconds. */
export const isoOf = (wallMs: number) => new Date(wallMs).toISOString();

/** Wall clock milliseconds in a cursor: no more than a `Date` and PostgreSQL can hold. */
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

/** Rejects with `bad_request` (or what the schema says instead) and says which member is wrong. */
export function checked<T>(schema: z.ZodType<T> | undefined, given: unknown, where: string): T {
  if (!schema) return undefined as T;
  const unclean = uncleanTextIn(given);
  if (unclean) throw new VezaError('bad_request', `${[where, ...unclean].join('.')}: text must be well-formed and without U+0000`);
  const parsed = schema.safeParse(given);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  const at = [where, ...issue.path].join('.');
  // `TextRules.tooLong`
  const { code, refusal } = (issue.code === 'custom' ? issue.params : undefined) ?? {};
  throw new VezaError(code ?? 'bad_request', `${at}: ${issue.message}`, { details: { at, ...(refusal && { refusal }) } });
}
