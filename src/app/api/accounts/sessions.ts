import { z } from 'zod';
import type { RateLimits } from '../../../access/limits/rate-limits.js';
import type { Sessions } from '../../../access/tokens/sessions.js';
import type { SigningKeys } from '../../../access/tokens/signing-keys.js';
import { VezaError } from '../../../runtime/errors.js';
import { isoOf, type Operation, operation, pageOf } from '../openapi.js';
import { text } from '../request-schemas.js';

const refreshTokenSchema = text({ max: 512 });

const sessionSchema = z
  .strictObject({
    id: z.uuid(),
    client: z.string().meta({ description: 'The user agent that refreshed the session last.' }),
    address: z.string(),
    createdAt: z.iso.datetime(),
    lastUsedAt: z.iso.datetime().meta({ description: 'When the access token was last refreshed.' }),
    expiresAt: z.iso.datetime().meta({ description: 'When the session ends unless it is refreshed; at most 90 days after the sign-in.' }),
    current: z.boolean().meta({ description: 'Whether it is the session of this request.' }),
  })
  .meta({ id: 'Session' });

export interface SessionOperationsOptions {
  sessions: Sessions;
  signingKeys: SigningKeys;
  limits: Pick<RateLimits, 'attempt'>;
  apiKeys: { endThoseOfSessions(accountId: string): Promise<void> };
}

/**
 * Operations that renew access tokens, list and end sessions, and change the keys that sign access
 * tokens.
 */
export function sessionOperations({ sessions, signingKeys, limits, apiKeys }: SessionOperationsOptions): Operation[] {
  return [
    operation({
      id: 'refreshSession',
      method: 'post',
      path: '/auth/refresh',
      summary: 'Renews an access token.',
      description:
        'The answer has a new refresh token too; use it next time. Within ten seconds the old one gives the same new one again; used later, it ends the session.',
      access: 'anyone',
      provenByBody: true,
      unaudited: true,
      body: z.strictObject({ refreshToken: refreshTokenSchema }),
      status: 200,
      answer: z
        .strictObject({
          accessToken: z.string(),
          expiresIn: z.int().meta({ description: 'Seconds until the access token expires.' }),
          refreshToken: z.string(),
        })
        .meta({ id: 'Tokens' }),
      errors: ['unauthorized', 'rate_limited'],
      async handle({ body, client, proven }) {
        // Only wrong tokens count: a thousand listeners behind one address may refresh.
        const found = await limits.attempt('token', client.address, () => sessions.refresh(body.refreshToken, client));
        const { accessToken, expiresIn, refreshToken, accountId } = found;
        await proven(accountId);
        return { accessToken, expiresIn, refreshToken };
      },
    }),
    operation({
      id: 'logout',
      method: 'post',
      path: '/auth/logout',
      summary: 'Signs out.',
      description:
        'Ends the session of the refresh token, or of the access token if there is none. No error if the session has ended already.',
      access: 'anyone',
      provenByBody: 'or-header',
      unaudited: 'unless-noted',
      body: z.strictObject({ refreshToken: refreshTokenSchema.optional() }),
      status: 204,
      errors: ['unauthorized', 'rate_limited'],
      async handle({ body, principal, client, audit, proven }) {
        const { refreshToken } = body;
        if (refreshToken !== undefined) {
          const isRight = (ended: unknown) => ended !== undefined;
          const found = await limits.attempt('token', client.address, () => sessions.endByToken(refreshToken), isRight);
          if (!found) return;
          await proven(found.accountId);
          audit({ target: `account:${found.accountId}`, details: { sessionId: found.sessionId } });
          return;
        }
        const { sessionId, accountId } = principal;
        if (sessionId === undefined) throw new VezaError('unauthorized', 'Send the refresh token, or a valid access token.');
        await sessions.end(sessionId, accountId);
        audit({ target: `account:${accountId}`, details: { sessionId } });
      },
    }),
    operation({
      id: 'listMySessions',
      method: 'get',
      path: '/me/sessions',
      summary: 'Lists my sessions.',
      description: 'The session used last comes first.',
      access: 'account',
      status: 200,
      answer: pageOf(sessionSchema),
      errors: [],
      async handle({ principal }) {
        // An account has at most a hundred sessions, which fit on one page.
        const items = (await sessions.list(principal.accountId!)).map((session) => ({
          id: session.id,
          client: session.client,
          address: session.address,
          createdAt: isoOf(session.createdAtMs),
          lastUsedAt: isoOf(session.lastUsedAtMs),
          expiresAt: isoOf(session.expiresAtMs),
          current: session.id === principal.sessionId,
        }));
        return { items, next: null };
      },
    }),
    operation({
      id: 'endMySessions',
      method: 'delete',
      path: '/me/sessions',
      summary: 'Signs me out everywhere.',
      description: 'This session ends too, and so do API keys that were made without showing the password again.',
      access: 'account',
      status: 204,
      errors: [],
      async handle({ principal, audit }) {
        const count = await sessions.endAll(principal.accountId!);
        await apiKeys.endThoseOfSessions(principal.accountId!);
        audit({ target: `account:${principal.accountId}`, details: { count } });
      },
    }),
    operation({
      id: 'endMySession',
      method: 'delete',
      path: '/me/sessions/{id}',
      summary: 'Ends one of my sessions.',
      access: 'account',
      params: z.strictObject({ id: z.uuid() }),
      status: 204,
      errors: ['not_found'],
      async handle({ params, principal, audit }) {
        if (!(await sessions.end(params.id, principal.accountId!))) throw new VezaError('not_found', 'You have no such session.');
        audit({ target: `account:${principal.accountId}`, details: { sessionId: params.id } });
      },
    }),
    operation({
      id: 'rotateSigningKey',
      method: 'post',
      path: '/service/signing-keys',
      summary: 'Makes a new key for signing access tokens.',
      description: 'Keys also change every day. The new key is published at once and signs twelve minutes later.',
      access: 'service.keys',
      body: z.strictObject({
        revoke: z.boolean().default(false).meta({
          description:
            'Set it after a leak: the new key signs at once, the others are deleted, and every access token ends within five seconds.',
        }),
      }),
      status: 201,
      answer: z.strictObject({ kid: z.string(), signsFrom: z.iso.datetime(), signsUntil: z.iso.datetime() }).meta({ id: 'SigningKey' }),
      errors: [],
      async handle({ body, audit, created }) {
        const { kid, signsFromMs, signsUntilMs } = await signingKeys.rotate(body);
        audit({ target: `signing-key:${kid}`, details: { revoke: body.revoke } });
        // The key set is outside the API, at the address where other systems expect it.
        created('../../../.well-known/jwks.json');
        return { kid, signsFrom: isoOf(signsFromMs), signsUntil: isoOf(signsUntilMs) };
      },
    }),
  ];
}
