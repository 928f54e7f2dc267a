import { z } from 'zod';
import { type Appeal, MAX_ANSWER_CHARS } from '../chat/appeals.js';
import type { HeldRecord } from '../chat/held.js';
import {
  LINE,
  MAX_ADDRESS_BAN_S,
  MAX_BAN_S,
  MAX_REASON_CHARS,
  MAX_TERM_LENGTH,
  MAX_TERMS,
  MAX_TIMEOUT_S,
  MAX_WARNING_CHARS,
  MID,
  type ModAction,
} from '../chat/mod-actions.js';
import type { Ban, Timeout } from '../chat/sanctions.js';
import { SETTING_LIMITS } from '../chat/settings.js';
import { type Call, isoOf, type Operation, operation, page, pageOf, pageQuery, positionOf, positionTime } from './openapi.js';
import { messageParams, type RoomOperationsOptions, roomAccess, roomParams, userParams } from './room-access.js';

const line = (maxChars: number) => z.string().trim().min(1).max(maxChars).regex(LINE);
const reason = line(MAX_REASON_CHARS).optional().meta({ description: 'For the person and for those who moderate.' });
const seconds = (most: number) => z.int().min(1).max(most);
const person = z.strictObject({ id: z.string(), name: z.string() });

const banSchema = z.strictObject({
  user: person,
  shadow: z.boolean().meta({ description: 'He does not know, and nobody else sees what he writes.' }),
  reason: z.string().nullable(),
  by: person,
  createdAt: z.iso.datetime(),
  until: z.iso.datetime().nullable().meta({ description: 'Null: for good.' }),
  addressUntil: z.iso.datetime().nullable().meta({ description: 'Until then nobody writes from where he wrote.' }),
});
const banView = (ban: Ban): z.infer<typeof banSchema> => ({
  user: { id: ban.userId, name: ban.userName },
  shadow: ban.isShadow,
  reason: ban.reason ?? null,
  by: { id: ban.byId, name: ban.byName },
  createdAt: isoOf(ban.createdAtMs),
  until: ban.untilMs === undefined ? null : isoOf(ban.untilMs),
  addressUntil: ban.addressUntilMs === undefined ? null : isoOf(ban.addressUntilMs),
});

const timeoutSchema = z.strictObject({
  user: person,
  reason: z.string().nullable(),
  by: person,
  createdAt: z.iso.datetime(),
  until: z.iso.datetime(),
});
const timeoutView = (timeout: Timeout): z.infer<typeof timeoutSchema> => ({
  user: { id: timeout.userId, name: timeout.userName },
  reason: timeout.reason ?? null,
  by: { id: timeout.byId, name: timeout.byName },
  createdAt: isoOf(timeout.createdAtMs),
  until: isoOf(timeout.untilMs),
});

const heldSchema = z.strictObject({
  mid: z.string(),
  user: z.strictObject({ id: z.string(), name: z.string(), role: z.string() }),
  body: z.looseObject({ text: z.string() }),
  why: z.string().meta({ description: 'What the automatic moderation had against it.' }),
  at: z.iso.datetime(),
});
const heldView = ({ message: { mid, author, body, saidAtMs, reason: why } }: HeldRecord): z.infer<typeof heldSchema> => ({
  mid,
  user: { id: author.id, name: author.name, role: author.role },
  body,
  why,
  at: isoOf(saidAtMs),
});

const appealSchema = z.strictObject({
  id: z.uuid(),
  user: person,
  text: z.string(),
  createdAt: z.iso.datetime(),
  accepted: z.boolean().nullable().meta({ description: 'Null: nobody has answered it.' }),
  answer: z.string().nullable(),
  answeredBy: z.string().nullable(),
});
const appealView = (appeal: Appeal): z.infer<typeof appealSchema> => ({
  id: appeal.id,
  user: { id: appeal.userId, name: appeal.userName },
  text: appeal.text,
  createdAt: isoOf(appeal.createdAtMs),
  accepted: appeal.accepted ?? null,
  answer: appeal.answer ?? null,
  answeredBy: appeal.answeredBy ?? null,
});

const actSchema = z.strictObject({
  id: z.int(),
  at: z.iso.datetime(),
  action: z.string(),
  by: person,
  userId: z.string().nullable(),
  userName: z.string().nullable(),
  details: z.record(z.string(), z.unknown()),
});

const termsShape = { blocked: z.array(line(MAX_TERM_LENGTH)).max(MAX_TERMS), allowed: z.array(line(MAX_TERM_LENGTH)).max(MAX_TERMS) };
const toldSchema = z.strictObject({
  offset: z
    .int()
    .nullable()
    .meta({ description: 'Of the entry that tells the room. Null: it is not told, and it is in force all the same.' }),
});

const modesShape = {
  slowS: z.int().min(SETTING_LIMITS.slowS[0]).max(SETTING_LIMITS.slowS[1]),
  followersMin: z.int().min(SETTING_LIMITS.followersMin[0]).max(SETTING_LIMITS.followersMin[1]),
  unique: z.boolean(),
  emoteOnly: z.boolean(),
  shield: z.boolean(),
};

const MAX_USER_ACTS = 50;

/** What moderators do in a room, for people and for bots. Each of these is what a `mod` frame does, too. */
export function roomModerationOperations(options: RoomOperationsOptions): Operation[] {
  const { here, channelOf, roomOf, moderatorOf } = roomAccess(options);
  const access = 'channel.moderate';
  const does = async ({ channel, ...call }: Pick<Call, 'channel' | 'principal' | 'channelRole' | 'client'>, action: ModAction) => {
    const { offset } = await here().desk.moderate(await roomOf(channel), moderatorOf(call), action);
    return { offset: offset ?? null };
  };
  const roomIdOf = async ({ channel }: Pick<Call, 'channel'>) => (await roomOf(channel)).id;

  return [
    operation({
      id: 'setRoomModes',
      method: 'post',
      path: '/rooms/{slug}/modes',
      summary: 'Turns the modes of the room on and off; what is not given stays.',
      access,
      channelOf,
      params: roomParams,
      body: z.strictObject(modesShape).partial(),
      status: 200,
      answer: z.strictObject(modesShape),
      errors: ['not_found'],
      unaudited: true,
      async handle({ body, ...call }) {
        const room = await roomOf(call.channel);
        const actions: ModAction[] = [];
        if (body.slowS !== undefined) actions.push({ action: 'slow', seconds: body.slowS });
        if (body.followersMin !== undefined) actions.push({ action: 'followers', minutes: body.followersMin });
        for (const mode of ['unique', 'emoteOnly', 'shield'] as const)
          if (body[mode] !== undefined) actions.push({ action: mode, on: body[mode] });
        const { desk } = here();
        for (const action of actions) await desk.moderate(room, moderatorOf(call), action);
        const { slowS, followersMin, unique, emoteOnly, shield } = await desk.settings(room);
        return { slowS, followersMin, unique, emoteOnly, shield };
      },
    }),
    operation({
      id: 'deleteRoomMessage',
      method: 'delete',
      path: '/rooms/{slug}/messages/{mid}',
      summary: 'Deletes a message everywhere: in the database, in the log, and on the screens of those who are there.',
      access,
      channelOf,
      params: messageParams,
      status: 204,
      errors: ['not_found', 'busy'],
      unaudited: true,
      async handle({ params, ...call }) {
        await does(call, { action: 'delete', mid: params.mid });
      },
    }),
    operation({
      id: 'deleteRoomUserMessages',
      method: 'delete',
      path: '/rooms/{slug}/users/{userId}/messages',
      summary: 'Deletes everything that a user has said in the room so far.',
      access,
      channelOf,
      params: userParams,
      status: 204,
      errors: ['not_found', 'busy'],
      unaudited: true,
      async handle({ params, ...call }) {
        await does(call, { action: 'purge', user: params.userId });
      },
    }),
    operation({
      id: 'getRoomUser',
      method: 'get',
      path: '/rooms/{slug}/users/{userId}',
      summary: 'How a user stands in the room: a ban, a timeout, warnings, and what was done about him.',
      access,
      channelOf,
      params: userParams,
      status: 200,
      answer: z.strictObject({
        ban: banSchema.nullable(),
        timeout: timeoutSchema.nullable(),
        warnings: z.array(
          z.strictObject({ id: z.uuid(), text: z.string(), by: z.string(), at: z.iso.datetime(), seenAt: z.iso.datetime().nullable() }),
        ),
        acts: z.array(actSchema),
      }),
      errors: ['not_found'],
      async handle({ params: { userId }, ...call }) {
        const roomId = await roomIdOf(call);
        const { desk } = here();
        const ban = await desk.sanctions.banOf(roomId, userId);
        const timeout = await desk.sanctions.timeoutOf(roomId, userId);
        const warnings = await desk.sanctions.warnings(roomId, userId, 100);
        return {
          ban: ban ? banView(ban) : null,
          timeout: timeout ? timeoutView(timeout) : null,
          warnings: warnings.map(({ id, text, byName, createdAtMs, seenAtMs }) => ({
            id,
            text,
            by: byName,
            at: isoOf(createdAtMs),
            seenAt: seenAtMs === undefined ? null : isoOf(seenAtMs),
          })),
          acts: (await desk.acts(roomId, userId, undefined, MAX_USER_ACTS)).map(actView),
        };
      },
    }),
    operation({
      id: 'warnRoomUser',
      method: 'post',
      path: '/rooms/{slug}/users/{userId}/warnings',
      summary: 'Warns a user: he alone is shown it, until he has seen it.',
      access,
      channelOf,
      params: userParams,
      body: z.strictObject({ text: line(MAX_WARNING_CHARS) }),
      status: 204,
      errors: ['not_found', 'conflict'],
      unaudited: true,
      async handle({ params, body, ...call }) {
        await does(call, { action: 'warn', user: params.userId, text: body.text });
      },
    }),
    operation({
      id: 'listRoomBans',
      method: 'get',
      path: '/rooms/{slug}/bans',
      summary: 'Bans in force, newest first.',
      access,
      channelOf,
      params: roomParams,
      query: z.strictObject(pageQuery),
      status: 200,
      answer: pageOf(banSchema),
      errors: ['not_found'],
      async handle({ query, ...call }) {
        const position = query.cursor === undefined ? undefined : positionOf(query.cursor, z.tuple([positionTime, z.uuid()]));
        const before = position && { createdAtMs: position[0], id: position[1] };
        const found = await here().desk.sanctions.bans(await roomIdOf(call), before, query.limit + 1);
        return page(found, query.limit, banView, ({ createdAtMs, id }) => [createdAtMs, id]);
      },
    }),
    operation({
      id: 'banRoomUser',
      method: 'put',
      path: '/rooms/{slug}/bans/{userId}',
      summary: 'Bans a user from the room, in place of a ban that is in force. In every process within a second.',
      access,
      channelOf,
      params: userParams,
      body: z.strictObject({
        reason,
        seconds: seconds(MAX_BAN_S).optional().meta({ description: 'For good unless given.' }),
        shadow: z.boolean().default(false).meta({ description: 'He writes on, and nobody else sees it.' }),
        addressSeconds: seconds(MAX_ADDRESS_BAN_S)
          .optional()
          .meta({ description: 'Bans where he wrote from within the last day as well, for so long; not with `shadow`.' }),
        deleteMessages: z.boolean().default(false).meta({ description: 'Deletes what he has said so far; not with `shadow`.' }),
      }),
      status: 200,
      answer: toldSchema,
      errors: ['not_found', 'conflict', 'busy'],
      unaudited: true,
      async handle({ params, body, ...call }) {
        const user = params.userId;
        const common = {
          user,
          ...(body.seconds !== undefined && { seconds: body.seconds }),
          ...(body.reason !== undefined && { reason: body.reason }),
        };
        if (body.shadow) return does(call, { action: 'shadowBan', ...common });
        return does(call, {
          action: 'ban',
          ...common,
          ...(body.addressSeconds !== undefined && { addressSeconds: body.addressSeconds }),
          purge: body.deleteMessages,
        });
      },
    }),
    operation({
      id: 'unbanRoomUser',
      method: 'delete',
      path: '/rooms/{slug}/bans/{userId}',
      summary: 'Lifts the ban of a user, with that of where he wrote from.',
      access,
      channelOf,
      params: userParams,
      status: 204,
      errors: ['not_found'],
      unaudited: true,
      async handle({ params, ...call }) {
        await does(call, { action: 'unban', user: params.userId });
      },
    }),
    operation({
      id: 'listRoomTimeouts',
      method: 'get',
      path: '/rooms/{slug}/timeouts',
      summary: 'Timeouts that run, the first to end first.',
      access,
      channelOf,
      params: roomParams,
      query: z.strictObject(pageQuery),
      status: 200,
      answer: pageOf(timeoutSchema),
      errors: ['not_found'],
      async handle({ query, ...call }) {
        const position = query.cursor === undefined ? undefined : positionOf(query.cursor, z.tuple([positionTime, z.string().max(300)]));
        const after = position && { untilMs: position[0], userId: position[1] };
        const found = await here().desk.sanctions.timeouts(await roomIdOf(call), after, query.limit + 1);
        return page(found, query.limit, timeoutView, ({ untilMs, userId }) => [untilMs, userId]);
      },
    }),
    operation({
      id: 'timeOutRoomUser',
      method: 'put',
      path: '/rooms/{slug}/timeouts/{userId}',
      summary: 'A user writes nothing for a while; in place of a timeout that runs.',
      access,
      channelOf,
      params: userParams,
      body: z.strictObject({ seconds: seconds(MAX_TIMEOUT_S), reason }),
      status: 200,
      answer: toldSchema,
      errors: ['not_found', 'conflict'],
      unaudited: true,
      handle: ({ params, body, ...call }) =>
        does(call, {
          action: 'timeout',
          user: params.userId,
          seconds: body.seconds,
          ...(body.reason !== undefined && { reason: body.reason }),
        }),
    }),
    operation({
      id: 'endRoomTimeout',
      method: 'delete',
      path: '/rooms/{slug}/timeouts/{userId}',
      summary: 'Ends the timeout of a user.',
      access,
      channelOf,
      params: userParams,
      status: 204,
      errors: ['not_found'],
      unaudited: true,
      async handle({ params, ...call }) {
        await does(call, { action: 'untimeout', user: params.userId });
      },
    }),
    operation({
      id: 'pinRoomMessage',
      method: 'put',
      path: '/rooms/{slug}/pin',
      summary: 'Shows a message above the others, in place of another that is.',
      access,
      channelOf,
      params: roomParams,
      body: z.strictObject({ mid: z.string().regex(MID) }),
      status: 200,
      answer: toldSchema,
      errors: ['not_found'],
      unaudited: true,
      handle: ({ body, ...call }) => does(call, { action: 'pin', mid: body.mid }),
    }),
    operation({
      id: 'unpinRoomMessage',
      method: 'delete',
      path: '/rooms/{slug}/pin',
      summary: 'Nothing is pinned any more.',
      access,
      channelOf,
      params: roomParams,
      status: 204,
      errors: ['not_found'],
      unaudited: true,
      async handle(call) {
        await does(call, { action: 'pin', mid: null });
      },
    }),
    operation({
      id: 'getRoomTerms',
      method: 'get',
      path: '/rooms/{slug}/terms',
      summary: 'Words and phrases that are refused here, and those that are no fault here.',
      access,
      channelOf,
      params: roomParams,
      status: 200,
      answer: z.strictObject({ blocked: z.array(z.string()), allowed: z.array(z.string()) }),
      errors: ['not_found'],
      handle: async (call) => here().desk.terms(await roomOf(call.channel)),
    }),
    operation({
      id: 'setRoomTerms',
      method: 'put',
      path: '/rooms/{slug}/terms',
      summary: 'Replaces both lists.',
      access,
      channelOf,
      params: roomParams,
      body: z.strictObject({ blocked: termsShape.blocked, allowed: termsShape.allowed.default([]) }),
      status: 204,
      errors: ['not_found'],
      unaudited: true,
      async handle({ body, ...call }) {
        await does(call, { action: 'terms', ...body });
      },
    }),
    operation({
      id: 'listHeldMessages',
      method: 'get',
      path: '/rooms/{slug}/held',
      summary: 'Messages that wait for a moderator, oldest first.',
      access,
      channelOf,
      params: roomParams,
      query: z.strictObject(pageQuery),
      status: 200,
      answer: pageOf(heldSchema),
      errors: ['not_found'],
      async handle({ query, ...call }) {
        const position = query.cursor === undefined ? undefined : positionOf(query.cursor, z.tuple([positionTime, z.string().max(22)]));
        const after = position && { createdAtMs: position[0], mid: position[1] };
        const found = await here().desk.held.waiting(await roomIdOf(call), after, query.limit + 1);
        return page(found, query.limit, heldView, ({ message }) => [message.saidAtMs, message.mid]);
      },
    }),
    operation({
      id: 'approveHeldMessage',
      method: 'post',
      path: '/rooms/{slug}/held/{mid}/approve',
      summary: 'Publishes a message that was held, under its own `mid`.',
      access,
      channelOf,
      params: messageParams,
      status: 200,
      answer: toldSchema,
      errors: ['not_found', 'conflict', 'busy'],
      unaudited: true,
      handle: ({ params, ...call }) => does(call, { action: 'approve', mid: params.mid }),
    }),
    operation({
      id: 'denyHeldMessage',
      method: 'post',
      path: '/rooms/{slug}/held/{mid}/deny',
      summary: 'A message that was held is not published; who wrote it is told.',
      access,
      channelOf,
      params: messageParams,
      body: z.strictObject({ reason }),
      status: 204,
      errors: ['not_found', 'conflict'],
      unaudited: true,
      async handle({ params, body, ...call }) {
        await does(call, { action: 'deny', mid: params.mid, ...(body.reason !== undefined && { reason: body.reason }) });
      },
    }),
    operation({
      id: 'listRoomAppeals',
      method: 'get',
      path: '/rooms/{slug}/appeals',
      summary: 'What banned users say to it, newest first.',
      access,
      channelOf,
      params: roomParams,
      query: z.strictObject({
        ...pageQuery,
        open: z.enum(['true', 'false']).optional().meta({ description: 'Those that nobody has answered, or those that somebody has.' }),
      }),
      status: 200,
      answer: pageOf(appealSchema),
      errors: ['not_found'],
      async handle({ query, ...call }) {
        const position = query.cursor === undefined ? undefined : positionOf(query.cursor, z.tuple([positionTime, z.uuid()]));
        const before = position && { createdAtMs: position[0], id: position[1] };
        const isOpen = query.open === undefined ? undefined : query.open === 'true';
        const found = await here().desk.appeals.list(await roomIdOf(call), isOpen, before, query.limit + 1);
        return page(found, query.limit, appealView, ({ createdAtMs, id }) => [createdAtMs, id]);
      },
    }),
    operation({
      id: 'answerRoomAppeal',
      method: 'post',
      path: '/rooms/{slug}/appeals/{id}',
      summary: 'Answers an appeal; accepted, the ban is lifted.',
      access,
      channelOf,
      params: roomParams.extend({ id: z.uuid() }),
      body: z.strictObject({ accepted: z.boolean(), answer: z.string().trim().min(1).max(MAX_ANSWER_CHARS) }),
      status: 200,
      answer: appealSchema,
      errors: ['not_found', 'conflict'],
      unaudited: true,
      async handle({ params, body, channel, ...call }) {
        const { accepted, answer } = body;
        return appealView(await here().desk.answerAppeal(await roomOf(channel), moderatorOf(call), params.id, accepted, answer));
      },
    }),
    operation({
      id: 'listRoomActs',
      method: 'get',
      path: '/rooms/{slug}/acts',
      summary: 'Who did what in the room, newest first; kept for a year.',
      access,
      channelOf,
      params: roomParams,
      query: z.strictObject({ ...pageQuery, user: userParams.shape.userId.optional().meta({ description: 'About whom.' }) }),
      status: 200,
      answer: pageOf(actSchema),
      errors: ['not_found'],
      async handle({ query, ...call }) {
        const before = query.cursor === undefined ? undefined : positionOf(query.cursor, z.tuple([z.int()]))[0];
        const found = await here().desk.acts(await roomIdOf(call), query.user, before, query.limit + 1);
        return page(found, query.limit, actView, ({ id }) => [id]);
      },
    }),
  ];
}

const actView = (act: {
  id: number;
  atMs: number;
  action: string;
  byId: string;
  byName: string;
  userId: string | undefined;
  userName: string | undefined;
  details: Readonly<Record<string, unknown>>;
}) => ({
  id: act.id,
  at: isoOf(act.atMs),
  action: act.action,
  by: { id: act.byId, name: act.byName },
  userId: act.userId ?? null,
  userName: act.userName ?? null,
  details: act.details,
});
