import type { IncomingMessage } from 'node:http';
import { type ParsedUrlQuery, parse } from 'node:querystring';
import type Router from '@koa/router';
import type Koa from 'koa';
import { z } from 'zod';
import type { Access } from '../../access/access.js';
import type { Channel } from '../../access/channels.js';
import { ANONYMOUS } from '../../access/roles.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { conditionOf } from '../http/conditions.js';
import type { ApiLimits } from '../http/limits.js';
import { preconditionFailed } from '../http/reads.js';
import { readJson } from '../http/request-body.js';
import type { Strangers } from '../http/strangers.js';
import { admit } from './admit.js';
import { checked, type Operation, type RequestOrigin } from './openapi.js';
import { streamed, whileAllowed } from './streamed.js';

export interface MountOptions {
  readonly access: Access;
  readonly log: Log;
  readonly clock: Clock;
  readonly countryOf?: ((req: IncomingMessage) => string | undefined) | undefined;
  readonly limits: ApiLimits;
  readonly strangers: Strangers;
}

/**
 * Mounts an operation on the router. A request goes through identity, permission, schema, the
 * operation itself, audit and answer.
 */
export function mountOperation(router: Router, operation: Operation, options: MountOptions): void {
  const { access, log, clock, countryOf, limits, strangers } = options;
  const route = `/api/v1${operation.path}`;
  router[operation.method](
    operation.path.replaceAll(/\{(\w+)\}/g, ':$1'),
    // An operation whose credential is in the body has limits of its own.
    (ctx, next) => (operation.provenByBody !== true && limits.isStranger(ctx) ? strangers.around(ctx, next) : next()),
    async (ctx: Koa.Context & { params: Record<string, string> }) => {
      ctx.state.route = route;
      ctx.set('Cache-Control', 'no-store');
      const client: RequestOrigin = {
        address: ctx.ip,
        userAgent: ctx.get('user-agent').slice(0, 300),
        requestId: ctx.state.requestId as string,
        country: countryOf?.(ctx.req),
      };
      const principal =
        operation.provenByBody === true
          ? ANONYMOUS
          : await access.identity.ofHeader(ctx.get('authorization')).catch((error) => {
              if (error instanceof VezaError && error.code === 'unauthorized') limits.refused(ctx);
              if (operation.provenByBody) return ANONYMOUS;
              throw error;
            });
      await limits.identified(ctx, principal);
      if (principal.kind !== 'anonymous' || operation.method !== 'get') strangers.leave(ctx);
      if (operation.access !== 'anyone' && principal.kind === 'anonymous') throw new VezaError('unauthorized', 'Sign in first.');
      checkEncoding(ctx.path, 'path');
      checkEncoding(ctx.querystring, 'query');
      const params = checked(operation.params, ctx.params, 'path');
      const admitted = await admit(operation, principal, params, access);
      const query = checked(operation.query ?? NO_MEMBERS, membersOf(ctx.querystring), 'query');
      // An unread body would prevent the connection from being used again.
      const given = operation.method === 'get' ? undefined : await readJson(ctx.req);
      const body = checked(operation.body ?? NO_MEMBERS.nullable(), given === undefined ? {} : given, 'body');
      // No resource of the API has a tag, so only `*` can match; a 304 would have no tag to name.
      if (conditionOf(ctx.req, undefined) === 'failed') throw preconditionFailed();
      const asksFresh = principal.kind === 'account' && wantsFreshSignIn(operation, body);
      const freshness = asksFresh ? await access.freshSignIn.check(principal) : undefined;
      let noted: { target?: string; details?: Readonly<Record<string, unknown>> } | undefined;
      const answer = await operation.handle({
        params,
        query,
        body,
        principal,
        client,
        freshness,
        channelRole: admitted?.channelRole,
        get channel(): Channel {
          if (!admitted) throw new Error(`${operation.id} is not about a channel`);
          return admitted.channel;
        },
        created: (location) => ctx.set('Location', location.startsWith('/') ? `/api/v1${location}` : location),
        audit: (more) => {
          noted = { ...noted, ...more };
        },
        proven: (accountId) => limits.proven(ctx, accountId),
      });
      if (operation.method !== 'get' && (!operation.unaudited || (operation.unaudited === 'unless-noted' && noted))) {
        const channel = admitted?.channel.slug;
        const target = noted?.target ?? (channel === undefined ? undefined : `channel:${channel}`);
        const { address, requestId } = client;
        await access.audit
          .record({ principal, action: operation.id, address, requestId, channel, target, details: noted?.details })
          // The operation has been done: an error would tell the client the opposite.
          .catch((error) =>
            log.error(
              { event: 'audit.not_recorded', action: operation.id, actor: principal.id, target, requestId, error: messageOf(error) },
              'an operation was done but not recorded in the audit log',
            ),
          );
      }
      ctx.status = operation.status;
      if (operation.contentType) {
        ctx.type = operation.contentType;
        const check = async () => {
          const now = await access.standing.now(principal);
          if (!now) throw new VezaError('unauthorized', 'You may not read this any more.');
          await admit(operation, now, params, access);
        };
        ctx.body = whileAllowed(await streamed(answer as AsyncIterable<string>), clock, check);
      } else if (operation.answer) ctx.body = answer;
    },
  );
}

const wantsFreshSignIn = ({ wantsFreshSignIn: wants }: Operation, body: unknown): boolean => wants === true || wants?.of(body) === true;

/** For an operation without a schema: members that are not listed are refused everywhere. */
const NO_MEMBERS = z.strictObject({});

/**
 * Parses all parameters: by default `parse` silently ignores everything after the first 1,000. The
 * length of an address bounds the work.
 */
const membersOf = (querystring: string): ParsedUrlQuery => ({ ...parse(querystring, '&', '=', { maxKeys: 0 }) });

/**
 * Rejects text that is not percent-encoded UTF-8: the router would take it as written,
 * `node:querystring` as U+FFFD.
 */
function checkEncoding(written: string, where: string): void {
  try {
    decodeURIComponent(written);
  } catch (error) {
    throw new VezaError('bad_request', `${where}: this is not percent-encoded UTF-8`, { cause: error, details: { at: where } });
  }
}
