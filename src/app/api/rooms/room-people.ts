import { z } from 'zod';
import { type BanAppeal, MAX_ANSWER_CHARS } from '../../../chat/moderation/appeals.js';
import { MAX_ADDRESS_BAN_S, MAX_BAN_S, MAX_REASON_CHARS, MAX_TIMEOUT_S, MAX_WARNING_CHARS } from '../../../chat/moderation/mod-actions.js';
import type { RoomBan, RoomTimeout } from '../../../chat/moderation/sanctions.js';
import { isoOf, type Operation, operation, positionTime } from '../openapi.js';
import { PATTERNS, text } from '../request-schemas.js';
import { type RoomOperationsOptions, roomParams, userIdSchema, userParams } from './room-access.js';
import { actSchema, actView } from './room-acts.js';
import { line, personSchema, roomModerating } from './room-moderating.js';

const reason = line(MAX_REASON_CHARS).optional().meta({ description: 'Shown to the person and to moderators.' });
const seconds = (most: number) => z.int().min(1).max(most);

const banSchema = z
  .strictObject({
    user: personSchema,
    shadow: z.boolean().meta({ description: 'The user does not know of the ban, and nobody else sees what they write.' }),
    reason: z.string().nullable(),
    by: personSchema,
    createdAt: z.iso.datetime(),
    until: z.iso.datetime().nullable().meta({ description: 'End of the ban; null: it has no end.' }),
    addressUntil: z.iso.datetime().nullable().meta({ description: 'Until then nobody may write from the user’s address.' }),
  })
  .meta({ id: 'RoomBan' });
const banView = (ban: RoomBan): z.infer<typeof banSchema> => ({
  user: { id: ban.userId, name: ban.userName },
  shadow: ban.isShadow,
  reason: ban.reason ?? null,
  by: { id: ban.byId, name: ban.byName },
  createdAt: isoOf(ban.createdAtMs),
  until: ban.untilMs === undefined ? null : isoOf(ban.untilMs),
  addressUntil: ban.addressUntilMs === undefined ? null : isoOf(ban.addressUntilMs),
});

const timeoutSchema = z
  .strictObject({
    user: personSchema,
    reason: z.string().nullable(),
    by: personSchema,
    createdAt: z.iso.datetime(),
    until: z.iso.datetime(),
  })
  .meta({ id: 'RoomTimeout' });
const timeoutView = (timeout: RoomTimeout): z.infer<typeof timeoutSchema> => ({
  user: { id: timeout.userId, name: timeout.userName },
  reason: timeout.reason ?? null,
  by: { id: timeout.byId, name: timeout.byName },
  createdAt: isoOf(timeout.createdAtMs),
  until: isoOf(timeout.untilMs),
});

const appealSchema = z
  .strictObject({
    id: z.uuid(),
    user: personSchema,
    text: z.string(),
    createdAt: z.iso.datetime(),
    accepted: z.boolean().nullable().meta({ description: 'Null: not answered yet.' }),
    answer: z.string().nullable(),
    answeredBy: z.string().nullable(),
  })
  .meta({ id: 'RoomAppeal' });
const appealView = (appeal: BanAppeal): z.infer<typeof appealSchema> => ({
  id: appeal.id,
  user: { id: appeal.userId, name: appeal.userName },
  text: appeal.text,
  createdAt: isoOf(appeal.createdAtMs),
  accepted: appeal.accepted ?? null,
  answer: appeal.answer ?? null,
  answeredBy: appeal.answeredBy ?? null,
});

const warningSchema = z
  .strictObject({ id: z.uuid(), text: z.string(), by: z.string(), at: z.iso.datetime(), seenAt: z.iso.datetime().nullable() })
  .meta({ id: 'RoomWarning' });
const userStandingSchema = z
  .strictObject({
    ban: banSchema.nullable(),
    timeout: timeoutSchema.nullable(),
    warnings: z.array(warningSchema),
    acts: z.array(actSchema),
  })
  .meta({ id: 'RoomUser' });

const MAX_USER_ACTS = 50;

/**
 * Moderators' operations on people: warnings, timeouts, bans, appeals. Each act is the same as that
 * of a `mod` frame.
 */
export function roomPeopleOperations(options: RoomOperationsOptions): Operation[] {
  const { access, here, channelOf, roomOf, roomIdOf, moderatorOf, act, list } = roomModerating(options);

  return [
    act({
      id: 'deleteRoomUserMessages',
      method: 'delete',
      path: '/rooms/{slug}/users/{userId}/messages',
      summary: 'Deletes all messages of a user in a room.',
      params: userParams,
      errors: ['not_found', 'busy'],
      answers: 'nothing',
      action: ({ userId }) => ({ action: 'purge', user: userId }),
    }),
    operation({
      id: 'getRoomUser',
      method: 'get',
      path: '/rooms/{slug}/users/{userId}',
      summary: 'Shows a user’s sanctions in a room.',
      description: 'The user’s ban, timeout and warnings, and the moderation acts about the user.',
      access,
      channelOf,
      params: userParams,
      status: 200,
      answer: userStandingSchema,
      errors: ['not_found'],
      async handle({ params: { userId }, ...call }) {
        const roomId = await roomIdOf(call);
        const { desk } = here();
        const ban = await desk.sanctions.findBan(roomId, userId);
        const timeout = await desk.sanctions.findTimeout(roomId, userId);
        const warnings = await desk.sanctions.listWarnings(roomId, userId, 100);
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
          acts: (await desk.listActs(roomId, userId, undefined, MAX_USER_ACTS)).map(actView),
        };
      },
    }),
    act({
      id: 'warnRoomUser',
      method: 'post',
      path: '/rooms/{slug}/users/{userId}/warnings',
      summary: 'Warns a user.',
      description: 'Only the user sees the warning, until they mark it as seen.',
      params: userParams,
      body: z.strictObject({ text: line(MAX_WARNING_CHARS) }),
      errors: ['not_found', 'conflict'],
      answers: 'nothing',
      action: ({ userId }, { text }) => ({ action: 'warn', user: userId, text }),
    }),
    list({
      id: 'listRoomBans',
      path: '/rooms/{slug}/bans',
      summary: 'Lists the current bans of a room.',
      description: 'The newest comes first.',
      item: banSchema,
      view: banView,
      cursor: z.tuple([positionTime, z.uuid()]),
      position: ({ createdAtMs, id }) => [createdAtMs, id],
      read: (roomId, from, limit) => here().desk.sanctions.listBans(roomId, from && { createdAtMs: from[0], id: from[1] }, limit),
    }),
    act({
      id: 'banRoomUser',
      method: 'put',
      path: '/rooms/{slug}/bans/{userId}',
      summary: 'Bans a user from a room.',
      description: 'Replaces the user’s current ban. In force in every process within a second.',
      params: userParams,
      body: z.strictObject({
        reason,
        seconds: seconds(MAX_BAN_S).optional().meta({ description: 'Length in seconds. Default: the ban has no end.' }),
        shadow: z.boolean().default(false).meta({ description: 'The user can go on writing, and nobody else sees it.' }),
        addressSeconds: seconds(MAX_ADDRESS_BAN_S).optional().meta({
          description: 'Seconds for which the addresses are banned too from which the user wrote within the last day; not with `shadow`.',
        }),
        deleteMessages: z
          .boolean()
          .default(false)
          .meta({ description: 'Also deletes all messages of the user so far; not with `shadow`.' }),
      }),
      errors: ['not_found', 'conflict', 'busy'],
      answers: 'told',
      action({ userId: user }, { shadow, deleteMessages: purge, addressSeconds, ...given }) {
        const common = { user, ...withoutUndefined(given) };
        if (shadow) return { action: 'shadowBan', ...common };
        return { action: 'ban', ...common, ...withoutUndefined({ addressSeconds }), purge };
      },
    }),
    act({
      id: 'unbanRoomUser',
      method: 'delete',
      path: '/rooms/{slug}/bans/{userId}',
      summary: 'Lifts a user’s ban.',
      description: 'The ban of the user’s address ends too.',
      params: userParams,
      errors: ['not_found'],
      answers: 'nothing',
      action: ({ userId }) => ({ action: 'unban', user: userId }),
    }),
    list({
      id: 'listRoomTimeouts',
      path: '/rooms/{slug}/timeouts',
      summary: 'Lists the current timeouts of a room.',
      description: 'The timeout that ends first comes first.',
      item: timeoutSchema,
      view: timeoutView,
      cursor: z.tuple([positionTime, userIdSchema]),
      position: ({ untilMs, userId }) => [untilMs, userId],
      read: (roomId, from, limit) => here().desk.sanctions.listTimeouts(roomId, from && { untilMs: from[0], userId: from[1] }, limit),
    }),
    act({
      id: 'timeOutRoomUser',
      method: 'put',
      path: '/rooms/{slug}/timeouts/{userId}',
      summary: 'Gives a user a timeout.',
      description: 'The user cannot write until it ends. Replaces the user’s current timeout.',
      params: userParams,
      body: z.strictObject({ seconds: seconds(MAX_TIMEOUT_S), reason }),
      errors: ['not_found', 'conflict'],
      answers: 'told',
      action: ({ userId }, { seconds, reason }) => ({ action: 'timeout', user: userId, seconds, ...withoutUndefined({ reason }) }),
    }),
    act({
      id: 'endRoomTimeout',
      method: 'delete',
      path: '/rooms/{slug}/timeouts/{userId}',
      summary: 'Ends a user’s timeout.',
      params: userParams,
      errors: ['not_found'],
      answers: 'nothing',
      action: ({ userId }) => ({ action: 'untimeout', user: userId }),
    }),
    list({
      id: 'listRoomAppeals',
      path: '/rooms/{slug}/appeals',
      summary: 'Lists appeals against bans.',
      description: 'The newest comes first.',
      filter: {
        open: z
          .enum(['true', 'false'])
          .optional()
          .meta({ description: '`true`: only appeals that wait for an answer; `false`: only answered ones.' }),
      },
      item: appealSchema,
      view: appealView,
      cursor: z.tuple([positionTime, z.uuid()]),
      position: ({ createdAtMs, id }) => [createdAtMs, id],
      read: (roomId, from, limit, { open }) => {
        const isOpen = open === undefined ? undefined : open === 'true';
        return here().desk.appeals.list(roomId, isOpen, from && { createdAtMs: from[0], id: from[1] }, limit);
      },
    }),
    operation({
      id: 'answerRoomAppeal',
      method: 'post',
      path: '/rooms/{slug}/appeals/{id}',
      summary: 'Answers an appeal.',
      description: 'Accepting it lifts the ban.',
      access,
      channelOf,
      params: roomParams.extend({ id: z.uuid() }),
      body: z.strictObject({ accepted: z.boolean(), answer: text({ max: MAX_ANSWER_CHARS, pattern: PATTERNS.lines, trimmed: true }) }),
      status: 200,
      answer: appealSchema,
      errors: ['not_found', 'conflict'],
      unaudited: true,
      async handle({ params, body, channel, ...call }) {
        const { accepted, answer } = body;
        return appealView(await here().desk.answerAppeal(await roomOf(channel), moderatorOf(call), params.id, accepted, answer));
      },
    }),
  ];
}

type Given<T> = { [name in keyof T]?: Exclude<T[name], undefined> };

/** Removes undefined members, which `exactOptionalPropertyTypes` tells from missing ones. */
const withoutUndefined = <T extends object>(given: T): Given<T> =>
  Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as Given<T>;
