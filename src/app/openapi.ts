import { z } from 'zod';
import type { Channel } from '../access/channels.js';
import { type ChannelRole, PERMISSIONS, type Permission, type Principal } from '../access/roles.js';
import { ERROR_CODES, type ErrorCode, VezaError } from '../runtime/errors.js';
import { uncleanTextIn } from '../runtime/text.js';

/**
 * The API as a table of operations. The same schemas check what comes in, describe what goes out and are printed as
 * `/api/v1/openapi.json`, so that none of the three can say something else than the others.
 */
export interface Operation<P = unknown, Q = unknown, B = unknown> {
  /** camelCase verb and noun; generated clients name their methods after it. */
  readonly id: string;
  readonly method: 'get' | 'post' | 'put' | 'patch' | 'delete';
  /** Below `/api/v1`; parameters in braces. */
  readonly path: string;
  readonly summary: string;
  /**
   * `anyone`: who one is may show more. `account`: somebody who is signed in, with a session of his own (no API key). Otherwise what one must be
   * allowed to do; a permission about a channel is judged for the one that `channelOf` names.
   */
  readonly access: 'anyone' | 'account' | Permission;
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
export const problemSchema = z.strictObject({
  type: z.literal('about:blank'),
  title: z.string(),
  status: z.int(),
  code: z.enum(Object.keys(ERROR_CODES) as [ErrorCode, ...ErrorCode[]]).meta({ description: 'Stable; what a program decides by.' }),
  detail: z.string().meta({ description: 'For people; may change.' }),
  requestId: z.string().optional(),
  details: z.record(z.string(), z.unknown()).optional(),
});

/** Every list is paged. `next` goes into `cursor` of the next request; null at the end. */
export const pageOf = (item: z.ZodType) => z.strictObject({ items: z.array(item), next: z.string().nullable() });

export const MAX_PAGE = 200;
export const pageQuery = {
  // A user's id may be in it, of up to two kilobytes.
  cursor: z.string().max(4096).optional().meta({ description: '`next` of the page before.' }),
  limit: z.coerce.number().int().min(1).max(MAX_PAGE).default(50).meta({ description: 'Items a page.' }),
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

/** Rejects with `bad_request` and says which member is wrong. */
export function checked<T>(schema: z.ZodType<T> | undefined, given: unknown, where: string): T {
  if (!schema) return undefined as T;
  const unclean = uncleanTextIn(given);
  if (unclean) throw new VezaError('bad_request', `${[where, ...unclean].join('.')}: text must be well-formed and without U+0000`);
  const parsed = schema.safeParse(given);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  const at = [where, ...issue.path].join('.');
  throw new VezaError('bad_request', `${at}: ${issue.message}`, { details: { at } });
}

const RESPONSE_TO: Readonly<Record<number, string>> = { 200: 'Done.', 201: 'Created.', 202: 'Accepted.', 204: 'Done.' };
const ALWAYS: readonly ErrorCode[] = ['bad_request', 'rate_limited', 'internal', 'unavailable'];

/** The document; OpenAPI 3.1, whose schemas are JSON Schema 2020-12. */
export function openApiDocument(operations: readonly Operation[], info: { version: string; publicUrl: string }): object {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const given of operations) {
    const codes = new Set<ErrorCode>([...ALWAYS, ...given.errors]);
    // Where none is needed, too: a token that is not good never counts as none.
    if (!given.provenByBody) codes.add('unauthorized');
    if (given.access !== 'anyone') codes.add('forbidden');
    if (isPermission(given.access)) codes.add('second_factor_missing');
    if (given.method !== 'get') codes.add('payload_too_large').add('unsupported_media');
    if (isAboutChannel(given.access)) codes.add('not_found');
    const responses: Record<string, unknown> = {
      [given.status]: {
        description: RESPONSE_TO[given.status],
        ...(given.answer && { content: { [given.contentType ?? 'application/json']: { schema: schemaOf(given.answer, 'output') } } }),
      },
    };
    for (const code of codes) {
      const status = ERROR_CODES[code];
      const before = responses[status] as { description: string } | undefined;
      responses[status] = {
        description: before ? `${before.description}, \`${code}\`` : `\`${code}\``,
        content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
      };
    }
    const path = paths[given.path] ?? {};
    paths[given.path] = path;
    path[given.method] = {
      operationId: given.id,
      summary: given.summary,
      ...(isPermission(given.access) && { 'x-permission': given.access, 'x-scope': PERMISSIONS[given.access].scope }),
      security: given.access === 'anyone' ? [{}, { token: [] }] : [{ token: [] }],
      parameters: [...parametersOf(given.params, 'path'), ...parametersOf(given.query, 'query')],
      ...(given.body && { requestBody: { required: true, content: { 'application/json': { schema: schemaOf(given.body, 'input') } } } }),
      responses,
    };
  }
  return {
    openapi: '3.1.0',
    info: { title: 'Veza', version: info.version, description: 'Errors are RFC 9457 problem documents with a stable `code`.' },
    servers: [{ url: `${info.publicUrl}/api/v1` }],
    paths,
    components: {
      schemas: { Problem: schemaOf(problemSchema, 'output') },
      securitySchemes: {
        token: {
          type: 'http',
          scheme: 'bearer',
          description: 'An access token (`POST /auth/login`), an API key, or the token in `DATA_DIR/admin-token`.',
        },
      },
    },
  };
}

function schemaOf(schema: z.ZodType, io: 'input' | 'output'): Record<string, unknown> {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io, target: 'draft-2020-12' });
  return rest;
}

function parametersOf(schema: z.ZodType | undefined, where: 'path' | 'query'): object[] {
  if (!schema) return [];
  const { properties = {}, required = [] } = schemaOf(schema, 'input') as {
    properties?: Record<string, { description?: string }>;
    required?: string[];
  };
  return Object.entries(properties).map(([name, { description, ...rest }]) => ({
    name,
    in: where,
    required: required.includes(name),
    ...(description !== undefined && { description }),
    schema: rest,
  }));
}
