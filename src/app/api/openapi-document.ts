import { STATUS_CODES } from 'node:http';
import { z } from 'zod';
import { PERMISSIONS } from '../../access/roles.js';
import { ERROR_CODES, type ErrorCode } from '../../runtime/errors.js';
import { MAX_BODY_BYTES, MAX_JSON_DEPTH } from '../http/request-body.js';
import { isAboutChannel, isPermission, type Operation, problemSchema } from './openapi.js';
import { exampleOf } from './openapi-examples.js';

export type JsonObject = { readonly [name: string]: unknown };

/** Groups of operations by subject; an operation is in the first group that fits. */
const TAGS: readonly (readonly [name: string, description: string, of: (operation: Operation) => boolean])[] = [
  ['Webhooks', 'Requests to other systems when something happens.', ({ path }) => path.includes('/webhooks')],
  ['Sign-in', 'Register, sign in and recover an account; tokens.', ({ path }) => path.startsWith('/auth/')],
  ['My account', 'The caller’s own account: its sessions, second factor, keys and data.', ({ path }) => /^\/me(?:\/|$)/.test(path)],
  ['Accounts', 'Other people’s accounts, for moderators and administrators.', ({ path }) => path.startsWith('/accounts')],
  ['Members', 'The people with a role in a channel.', ({ path }) => path.includes('/channels/{slug}/members')],
  ['Playback', 'Addresses for listening, and playback links.', ({ path }) => /\/(?:links|play)$/.test(path)],
  ['Recordings', 'Broadcasts of a channel and their recordings.', ({ path }) => /^\/assets|\/broadcasts$/.test(path)],
  ['Channels', 'Channels and what is on air.', ({ path }) => path.startsWith('/channels')],
  ['Moderation', 'Moderation of a chat room.', ({ access }) => access === 'channel.moderate'],
  ['Chat', 'Chat rooms, for their members and for bots.', ({ path }) => path.startsWith('/rooms/')],
  ['Audit', 'The audit log: who did what.', ({ path }) => path.startsWith('/audit')],
  ['Service', 'Keys of the service.', ({ path }) => path.startsWith('/service/')],
];

const RESPONSE_TO: Readonly<Record<number, string>> = { 200: 'Done.', 201: 'Created.', 202: 'Accepted.', 204: 'Done; no content.' };
/**
 * Codes that every operation can answer with: from the listener, the limits or an outside system.
 */
const ALWAYS: readonly ErrorCode[] = ['bad_request', 'precondition_failed', 'rate_limited', 'internal', 'unavailable'];
/** Codes with which the listener answers before the operation is known. */
const UNREAD: readonly ErrorCode[] = [
  'request_timeout',
  'uri_too_long',
  'expectation_failed',
  'head_too_large',
  'not_implemented',
  'version_not_supported',
];
const WITH_BODY: readonly ErrorCode[] = ['payload_too_large', 'unsupported_media'];

const HEADERS = {
  'X-Request-Id': {
    description: 'The request’s id: the one that the client sent (1 to 64 of `A-Z a-z 0-9 . _ -`), else a new one.',
    schema: { type: 'string' },
  },
  'RateLimit-Policy': {
    description: 'The limits for this request (draft-ietf-httpapi-ratelimit-headers-11): `"api";q=1000;w=60`.',
    schema: { type: 'string' },
    example: '"api";q=1000;w=60',
  },
  RateLimit: {
    description: 'For each limit, the points that are left and the seconds until all points are back.',
    schema: { type: 'string' },
    example: '"api";r=987;t=42',
  },
  'Retry-After': { description: 'Seconds to wait before trying again.', schema: { type: 'integer', minimum: 1 }, example: 30 },
  'WWW-Authenticate': { description: 'RFC 6750.', schema: { type: 'string' }, example: 'Bearer realm="veza"' },
  Allow: { description: 'The methods that this address allows.', schema: { type: 'string' }, example: 'GET, HEAD, PATCH' },
  Location: {
    description: 'The address of the new resource.',
    required: true,
    schema: { type: 'string', format: 'uri-reference' },
    example: '/api/v1/channels/radio',
  },
} as const;
type HeaderName = keyof typeof HEADERS;

const headers = (...names: HeaderName[]): JsonObject =>
  Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }]));
const ANSWER_HEADERS: readonly HeaderName[] = ['X-Request-Id', 'RateLimit-Policy', 'RateLimit'];

const ABOUT = `Errors are RFC 9457 problem documents (\`application/problem+json\`) with a stable \`code\`; each operation lists its codes.

**Requests.** A body is JSON in UTF-8, at most ${MAX_BODY_BYTES} bytes, nested at most ${MAX_JSON_DEPTH} deep, not compressed. Members and query parameters that are not listed are refused, even where none is listed; so is \`null\` where it is not listed. Every text must be well-formed Unicode without U+0000, and without lone surrogates in any form (also \`\\ud800\` or percent-encoded); anything else is refused with 400 \`bad_request\`. Lengths are counted in characters (code points). Whole numbers in a query are decimal digits without sign, exponent or leading zero.

**Answers.** Members may be added in later versions: ignore members that you do not know. A method that a path does not have gets 405 with \`Allow\`; \`HEAD\` works wherever \`GET\` does.

**Lists** have pages: send \`next\` as \`cursor\` of the next request. On the last page it is null.`;

/** Collects the schemas and responses that are referred to by name. */
class Components {
  readonly schemas: Record<string, JsonObject> = {};
  readonly responses: Record<string, JsonObject> = {};

  add(name: string, schema: JsonObject): JsonObject {
    const known = this.schemas[name];
    if (known && JSON.stringify(known) !== JSON.stringify(schema)) throw new Error(`two schemas are named "${name}"`);
    this.schemas[name] = schema;
    return { $ref: `#/components/schemas/${name}` };
  }

  /** Returns the schema, or a reference if it has a name; the same for the schemas inside it. */
  of(schema: z.ZodType, io: 'input' | 'output'): JsonObject {
    const made = z.toJSONSchema(schema, { io, target: 'draft-2020-12', override: io === 'output' ? lenient : portable });
    const {
      $schema: _,
      $defs = {},
      ...rest
    } = JSON.parse(JSON.stringify(made).replaceAll('#/$defs/', '#/components/schemas/')) as JsonObject & {
      $defs?: Record<string, JsonObject>;
    };
    for (const [name, { id: __, ...definition }] of Object.entries($defs)) this.add(name, definition);
    return rest;
  }

  resolved(schema: JsonObject): JsonObject {
    const name = /^#\/components\/schemas\/(.+)$/.exec(String(schema.$ref ?? ''))?.[1];
    return name === undefined ? schema : this.schemas[name]!;
  }

  /** Returns a reference to the response for these codes, which share one status. */
  problem(status: number, codes: readonly ErrorCode[]): JsonObject {
    const name = [status, ...codes].join('-');
    const more: HeaderName[] = [
      ...(codes.some((code) => UNREAD.includes(code)) ? [] : ANSWER_HEADERS),
      ...(status === 405 ? (['Allow'] as const) : []),
      ...(status === 429 || status === 503 ? (['Retry-After'] as const) : []),
      ...(status === 401 ? (['WWW-Authenticate'] as const) : []),
    ];
    this.responses[name] ??= {
      description: `${codes.map((code) => `\`${code}\``).join(', ')}${status === 405 ? ', for a method that this path does not have' : ''}`,
      headers: headers(...more),
      content: {
        'application/problem+json': {
          schema: {
            allOf: [
              { $ref: '#/components/schemas/Problem' },
              { type: 'object', properties: { status: { const: status }, code: { enum: codes } } },
            ],
          },
          example: { type: 'about:blank', title: STATUS_CODES[status], status, code: codes[0], detail: 'What went wrong, for people.' },
        },
      },
    };
    return { $ref: `#/components/responses/${name}` };
  }
}

type Override = NonNullable<NonNullable<Parameters<typeof z.toJSONSchema>[1]>['override']>;

/**
 * Makes the patterns that zod adds portable, and states the default of a number in a query, which
 * zod leaves out.
 */
const portable: Override = ({ zodSchema, jsonSchema }) => {
  const { def } = zodSchema._zod;
  if (def.type === 'default') jsonSchema.default ??= def.defaultValue as never;
  if (jsonSchema.pattern?.includes('\\d')) jsonSchema.pattern = jsonSchema.pattern.replaceAll('\\d', '[0-9]');
};

/**
 * Schemas of answers: clients must accept members that are added later, and a `format` needs no
 * pattern.
 */
const lenient: Override = (context) => {
  const { jsonSchema } = context;
  if (jsonSchema.additionalProperties === false) delete jsonSchema.additionalProperties;
  if (jsonSchema.format !== undefined) delete jsonSchema.pattern;
  if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
  if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
  portable(context);
};

/** Makes the OpenAPI 3.1 document, whose schemas are JSON Schema 2020-12. */
export function openApiDocument(operations: readonly Operation[], info: { version: string; publicUrl: string }): JsonObject {
  const components = new Components();
  components.of(z.array(problemSchema), 'output');
  const paths: Record<string, Record<string, unknown>> = {};
  for (const operation of operations) {
    paths[operation.path] ??= {};
    paths[operation.path]![operation.method] = described(operation, components);
  }
  return {
    openapi: '3.1.0',
    info: { title: 'Veza', version: info.version, summary: 'Live audio with chat.', description: ABOUT },
    servers: [{ url: `${info.publicUrl}/api/v1` }],
    tags: TAGS.filter(([, , fits]) => operations.some(fits)).map(([name, description]) => ({ name, description })),
    paths,
    components: {
      schemas: sorted(components.schemas),
      responses: sorted(components.responses),
      headers: HEADERS,
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

/**
 * Serialises the document in ASCII, so that no character of a pattern is lost or changed on its
 * way.
 */
export const printed = (document: JsonObject): string =>
  JSON.stringify(document).replace(/[^\x20-\x7e]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);

const sorted = (of: Record<string, JsonObject>) => Object.fromEntries(Object.entries(of).sort(([a], [b]) => (a < b ? -1 : 1)));
const capital = (id: string) => id.charAt(0).toUpperCase() + id.slice(1);

function described(operation: Operation, components: Components): JsonObject {
  const { id, access, status, params, query, body } = operation;
  const responses: Record<string, JsonObject> = {
    [status]: {
      description: RESPONSE_TO[status],
      headers: headers(...ANSWER_HEADERS, ...(status === 201 ? (['Location'] as const) : [])),
      ...contentOf(operation, components),
    },
  };
  for (const [failed, codes] of problemsOf(operation)) responses[failed] = components.problem(failed, codes);
  return {
    operationId: id,
    tags: TAGS.filter(([, , fits]) => fits(operation))
      .slice(0, 1)
      .map(([name]) => name),
    summary: operation.summary,
    description: [operation.description, accessOf(operation), freshSignInOf(operation)].filter(Boolean).join('\n\n'),
    ...(isPermission(access) && { 'x-permission': access, 'x-scope': PERMISSIONS[access].scope }),
    security: access === 'anyone' ? [{}, { token: [] }] : [{ token: [] }],
    parameters: [...parametersOf(params, 'path', components), ...parametersOf(query, 'query', components)],
    ...(body && { requestBody: requestBodyOf(operation, body, components) }),
    responses,
  };
}

function accessOf({ access }: Operation): string {
  if (access === 'anyone') return 'Needs no token; with one, the answer may show more.';
  if (access === 'account') return 'Needs an access token of a signed-in person; API keys are refused.';
  const { scope, text } = PERMISSIONS[access];
  return `Needs the permission \`${access}\` (${text}). An API key also needs the scope \`${scope}\`.`;
}

function freshSignInOf({ wantsFreshSignIn: wants }: Operation): string | undefined {
  if (wants === undefined) return undefined;
  const where = wants === true ? '' : `If ${wants.when}: `;
  return `${where}${where === '' ? 'A' : 'a'} session must have signed in, or shown the password or a code again (\`proveMe\`), within the last ten minutes; otherwise 403 \`fresh_sign_in_required\`.`;
}

/** A body may be left out when an empty object would be valid. */
function requestBodyOf({ id }: Operation, body: z.ZodType, components: Components): JsonObject {
  const schema = components.add(`${capital(id)}Request`, components.of(body, 'input'));
  return {
    required: !body.safeParse({}).success,
    content: { 'application/json': { schema, example: exampleOf(schema, components, 'required') } },
  };
}

function contentOf({ id, answer, contentType }: Operation, components: Components): JsonObject {
  if (!answer) return {};
  const made = components.of(answer, 'output');
  if (contentType) {
    const line = made.$ref === undefined ? components.add(`${capital(id)}Line`, made) : made;
    // JSON Schema cannot describe a sequence of documents: it is a text whose lines have the named
    // schema.
    const schema = {
      type: 'string',
      description: `JSON Lines: each line is a ${nameIn(line)} in JSON.`,
      contentMediaType: contentType,
      contentSchema: { type: 'array', items: line },
    };
    return { content: { [contentType]: { schema, example: `${JSON.stringify(exampleOf(line, components))}\n` } } };
  }
  const { items } = (made.properties ?? {}) as { items?: { items?: JsonObject } };
  const isPage = (made.required as string[] | undefined)?.join() === 'items,next';
  const name = isPage && items?.items?.$ref !== undefined ? `${nameIn(items.items)}Page` : `${capital(id)}Answer`;
  const schema = made.$ref === undefined ? components.add(name, made) : made;
  return { content: { 'application/json': { schema, example: exampleOf(schema, components) } } };
}

const nameIn = ({ $ref }: JsonObject): string => String($ref).split('/').at(-1)!;

/** The codes that an operation can answer with, by status. */
function problemsOf(operation: Operation): Map<number, ErrorCode[]> {
  const { access, method, errors, provenByBody, wantsFreshSignIn } = operation;
  const codes = new Set<ErrorCode>([...ALWAYS, ...UNREAD, 'method_not_allowed', ...errors]);
  // Also where no token is needed: a bad token is never treated as none.
  if (!provenByBody) codes.add('unauthorized');
  if (access !== 'anyone') codes.add('forbidden');
  if (isPermission(access)) codes.add('second_factor_missing');
  if (wantsFreshSignIn) codes.add('fresh_sign_in_required');
  if (method !== 'get') for (const code of WITH_BODY) codes.add(code);
  if (isAboutChannel(access)) codes.add('not_found');
  const byStatus = new Map<number, ErrorCode[]>();
  for (const code of (Object.keys(ERROR_CODES) as ErrorCode[]).filter((code) => codes.has(code)))
    byStatus.set(ERROR_CODES[code], [...(byStatus.get(ERROR_CODES[code]) ?? []), code]);
  return byStatus;
}

function parametersOf(schema: z.ZodType | undefined, where: 'path' | 'query', components: Components): JsonObject[] {
  if (!schema) return [];
  const { properties = {}, required = [] } = components.of(schema, 'input') as {
    properties?: Record<string, { description?: string }>;
    required?: string[];
  };
  return Object.entries(properties).map(([name, { description, ...rest }]) => ({
    name,
    in: where,
    required: required.includes(name),
    ...(description !== undefined && { description }),
    schema: rest,
    ...(required.includes(name) && { example: exampleOf(rest, components, 'all', name) }),
  }));
}
