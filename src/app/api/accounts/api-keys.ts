import { z } from 'zod';
import { outranks, type Principal, type Role, SCOPES, type Scope } from '../../../access/roles.js';
import { type ApiKey, type ApiKeys, MAX_KEY_NAME_CHARS } from '../../../access/tokens/api-keys.js';
import { VezaError } from '../../../runtime/errors.js';
import { isoOf, type Operation, type OperationCall, operation, pageOf } from '../openapi.js';
import { PATTERNS, text } from '../request-schemas.js';

const scopeSchema = z.enum(Object.keys(SCOPES) as [Scope, ...Scope[]]).meta({ id: 'Scope' });
const apiKeySchema = z
  .strictObject({
    id: z.uuid(),
    name: z.string(),
    hint: z.string().meta({ description: 'The first characters of the key.' }),
    scopes: z.array(scopeSchema),
    expiresAt: z.iso.datetime().nullable(),
    lastUsedAt: z.iso.datetime().nullable().meta({ description: 'Exact to the minute.' }),
    createdAt: z.iso.datetime(),
  })
  .meta({ id: 'ApiKey' });
const bodySchema = z.strictObject({
  name: text({ max: MAX_KEY_NAME_CHARS, pattern: PATTERNS.song, trimmed: true }),
  scopes: z
    .array(scopeSchema)
    .min(1)
    .max(Object.keys(SCOPES).length)
    .meta({ description: 'What the key may be used for, within the rights of the account’s role.' }),
  expiresAt: z.iso.datetime({ offset: true }).optional().meta({ description: 'Default: the key does not expire.' }),
});
const createdSchema = z
  .strictObject({ apiKey: apiKeySchema, secret: z.string().meta({ description: 'Shown only once.' }) })
  .meta({ id: 'NewApiKey' });

const shown = (key: ApiKey): z.infer<typeof apiKeySchema> => ({
  id: key.id,
  name: key.name,
  hint: key.hint,
  scopes: [...key.scopes],
  expiresAt: key.expiresAtMs === undefined ? null : isoOf(key.expiresAtMs),
  lastUsedAt: key.lastUsedAtMs === undefined ? null : isoOf(key.lastUsedAtMs),
  createdAt: isoOf(key.createdAtMs),
});

export interface ApiKeyOperationsOptions {
  apiKeys: ApiKeys;
  accounts: { get(id: string): Promise<{ role: Role } | undefined> };
}

/**
 * Operations on API keys: for one's own account; administrators also make keys for other accounts.
 */
export function apiKeyOperations({ apiKeys, accounts }: ApiKeyOperationsOptions): Operation[] {
  const create = async (
    accountId: string,
    { secondFactor, bySessionAlone, byServer }: Pick<Principal, 'secondFactor'> & { bySessionAlone: boolean; byServer?: boolean },
    body: z.infer<typeof bodySchema>,
    { audit, created }: Pick<OperationCall, 'audit' | 'created'>,
    location: (id: string) => string,
  ): Promise<z.infer<typeof createdSchema>> => {
    const { apiKey, secret } = await apiKeys.create(accountId, {
      name: body.name,
      scopes: body.scopes,
      expiresAtMs: body.expiresAt === undefined ? undefined : Date.parse(body.expiresAt),
      secondFactor,
      bySessionAlone,
      byServer,
    });
    audit({ target: `api-key:${apiKey.id}`, details: { account: accountId, name: apiKey.name, scopes: apiKey.scopes } });
    created(location(apiKey.id));
    return { apiKey: shown(apiKey), secret };
  };

  return [
    operation({
      id: 'listApiKeys',
      method: 'get',
      path: '/me/api-keys',
      summary: 'Lists my API keys.',
      description: 'The newest comes first.',
      access: 'account',
      status: 200,
      answer: pageOf(apiKeySchema),
      errors: [],
      handle: async ({ principal }) => ({ items: (await apiKeys.list(principal.accountId!)).map(shown), next: null }),
    }),
    operation({
      id: 'createApiKey',
      method: 'post',
      path: '/me/api-keys',
      summary: 'Makes an API key for a program.',
      description:
        'The key may do what this account may, within its scopes. It may do what needs a second factor only if this session has shown one. If the session has not shown the password again, the key ends with a new password and with `endMySessions`.',
      access: 'account',
      wantsFreshSignIn: true,
      body: bodySchema,
      status: 201,
      answer: createdSchema,
      errors: ['conflict', 'not_found'],
      async handle({ principal, body, freshness, audit, created }) {
        const bySessionAlone = freshness !== 'proven';
        const proven = { secondFactor: principal.secondFactor, bySessionAlone };
        return create(principal.accountId!, proven, body, { audit, created }, (id) => `/me/api-keys/${id}`);
      },
    }),
    operation({
      id: 'deleteApiKey',
      method: 'delete',
      path: '/me/api-keys/{id}',
      summary: 'Deletes an API key.',
      description: 'It stops working within 5 s.',
      access: 'account',
      params: z.strictObject({ id: z.uuid() }),
      status: 204,
      errors: ['not_found'],
      async handle({ principal, params, audit }) {
        audit({ target: `api-key:${params.id}` });
        await apiKeys.delete(principal.accountId!, params.id);
      },
    }),
    operation({
      id: 'createApiKeyFor',
      method: 'post',
      path: '/accounts/{id}/api-keys',
      summary: 'Makes an API key for an account of a lower role.',
      description:
        'For a program that an administrator sets up. The key cannot do what needs a second factor, unless the admin token made it.',
      access: 'accounts.manage',
      wantsFreshSignIn: true,
      params: z.strictObject({ id: z.uuid() }),
      body: bodySchema,
      status: 201,
      answer: createdSchema,
      errors: ['conflict', 'not_found'],
      async handle({ principal, params, body, freshness, audit, created }) {
        // A key could otherwise make one with more scopes or a later expiry.
        if (principal.kind === 'api-key') throw new VezaError('forbidden', 'An API key cannot make keys.');
        if (principal.kind === 'gateway') throw new VezaError('forbidden', 'This needs a signed-in person.');
        const isOwn = principal.accountId === params.id;
        const isServer = principal.kind === 'admin-token';
        const account = await accounts.get(params.id);
        if (!account) throw new VezaError('not_found', 'There is no such account.');
        if (!isOwn && !isServer && !outranks(principal.role, account.role))
          throw new VezaError('forbidden', 'Only for an account of a lower role: a program with the key acts as the account.');
        // The second factor of an administrator is not the second factor of the account.
        const bySessionAlone = !isServer && freshness !== 'proven';
        const proven = { secondFactor: principal.secondFactor && (isOwn || isServer), bySessionAlone, byServer: isServer };
        return create(params.id, proven, body, { audit, created }, () => `/accounts/${params.id}/api-keys`);
      },
    }),
  ];
}
