import { z } from 'zod';
import type { HeldRecord } from '../../../chat/moderation/held-message-queue.js';
import { MAX_REASON_CHARS, MAX_TERM_LENGTH, MAX_TERMS, type ModAction } from '../../../chat/moderation/mod-actions.js';
import { SETTING_LIMITS } from '../../../chat/moderation/settings.js';
import { isoOf, type Operation, operation, positionTime } from '../openapi.js';
import { authorSchema, messageParams, midSchema, type RoomOperationsOptions, roomParams, userIdSchema } from './room-access.js';
import { actSchema, actView } from './room-acts.js';
import { line, roomModerating } from './room-moderating.js';

const heldSchema = z
  .strictObject({
    mid: z.string(),
    user: authorSchema,
    body: z.looseObject({ text: z.string() }),
    why: z.string().meta({ description: 'Why automatic moderation held the message.' }),
    at: z.iso.datetime(),
  })
  .meta({ id: 'HeldMessage' });
const heldView = ({ message: { mid, author, body, saidAtMs, reason: why } }: HeldRecord): z.infer<typeof heldSchema> => ({
  mid,
  user: { id: author.id, name: author.name, role: author.role },
  body,
  why,
  at: isoOf(saidAtMs),
});

const termsShape = { blocked: z.array(line(MAX_TERM_LENGTH)).max(MAX_TERMS), allowed: z.array(line(MAX_TERM_LENGTH)).max(MAX_TERMS) };

const modesShape = {
  slowS: z.int().min(SETTING_LIMITS.slowS[0]).max(SETTING_LIMITS.slowS[1]),
  followersMin: z.int().min(SETTING_LIMITS.followersMin[0]).max(SETTING_LIMITS.followersMin[1]),
  unique: z.boolean(),
  emoteOnly: z.boolean(),
  shield: z.boolean(),
};

/**
 * Moderators' operations on a room and its messages, for people and bots. Each act is the same as
 * that of a `mod` frame.
 */
export function roomModerationOperations(options: RoomOperationsOptions): Operation[] {
  const { access, here, channelOf, roomOf, moderatorOf, act, list } = roomModerating(options);

  return [
    operation({
      id: 'setRoomModes',
      method: 'post',
      path: '/rooms/{slug}/modes',
      summary: 'Changes the modes of a room.',
      description: 'Modes that are left out do not change.',
      access,
      channelOf,
      params: roomParams,
      body: z.strictObject(modesShape).partial(),
      status: 200,
      answer: z.strictObject(modesShape).meta({ id: 'RoomModes' }),
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
        const { slowS, followersMin, unique, emoteOnly, shield } = await desk.readSettings(room);
        return { slowS, followersMin, unique, emoteOnly, shield };
      },
    }),
    act({
      id: 'deleteRoomMessage',
      method: 'delete',
      path: '/rooms/{slug}/messages/{mid}',
      summary: 'Deletes a message.',
      description: 'It is deleted in the database, in the log, and on the screens of everybody in the room.',
      params: messageParams,
      errors: ['not_found', 'busy'],
      answers: 'nothing',
      action: ({ mid }) => ({ action: 'delete', mid }),
    }),
    act({
      id: 'pinRoomMessage',
      method: 'put',
      path: '/rooms/{slug}/pin',
      summary: 'Pins a message.',
      description: 'It is shown above the others and replaces a message that was pinned before.',
      params: roomParams,
      body: z.strictObject({ mid: midSchema }),
      errors: ['not_found'],
      answers: 'told',
      action: (_params, { mid }) => ({ action: 'pin', mid }),
    }),
    act({
      id: 'unpinRoomMessage',
      method: 'delete',
      path: '/rooms/{slug}/pin',
      summary: 'Unpins the pinned message.',
      params: roomParams,
      errors: ['not_found'],
      answers: 'nothing',
      action: () => ({ action: 'pin', mid: null }),
    }),
    operation({
      id: 'getRoomTerms',
      method: 'get',
      path: '/rooms/{slug}/terms',
      summary: 'Lists the blocked and allowed terms of a room.',
      description: 'Blocked words and phrases are refused. Automatic moderation does not object to allowed ones.',
      access,
      channelOf,
      params: roomParams,
      status: 200,
      answer: z.strictObject({ blocked: z.array(z.string()), allowed: z.array(z.string()) }).meta({ id: 'RoomTerms' }),
      errors: ['not_found'],
      handle: async (call) => here().desk.readTerms(await roomOf(call.channel)),
    }),
    act({
      id: 'setRoomTerms',
      method: 'put',
      path: '/rooms/{slug}/terms',
      summary: 'Replaces the blocked and allowed terms of a room.',
      description: 'A term contains at least one letter, digit or emoji. All terms of a list together have at most 8,000 characters.',
      params: roomParams,
      body: z.strictObject({ blocked: termsShape.blocked, allowed: termsShape.allowed.default([]) }),
      errors: ['not_found'],
      answers: 'nothing',
      action: (_params, terms) => ({ action: 'terms', ...terms }),
    }),
    list({
      id: 'listHeldMessages',
      path: '/rooms/{slug}/held',
      summary: 'Lists messages that wait for a moderator.',
      description: 'The oldest message comes first.',
      item: heldSchema,
      view: heldView,
      cursor: z.tuple([positionTime, z.string().max(22)]),
      position: ({ message }) => [message.saidAtMs, message.mid],
      read: (roomId, from, limit) => here().desk.held.listWaiting(roomId, from && { createdAtMs: from[0], mid: from[1] }, limit),
    }),
    act({
      id: 'approveHeldMessage',
      method: 'post',
      path: '/rooms/{slug}/held/{mid}/approve',
      summary: 'Publishes a held message.',
      description: 'It keeps its `mid`.',
      params: messageParams,
      errors: ['not_found', 'conflict', 'busy'],
      answers: 'told',
      action: ({ mid }) => ({ action: 'approve', mid }),
    }),
    act({
      id: 'denyHeldMessage',
      method: 'post',
      path: '/rooms/{slug}/held/{mid}/deny',
      summary: 'Denies a held message.',
      description: 'Its author is told.',
      params: messageParams,
      body: z.strictObject({
        reason: line(MAX_REASON_CHARS).optional().meta({ description: 'Shown to the person and to moderators.' }),
      }),
      errors: ['not_found', 'conflict'],
      answers: 'nothing',
      action: ({ mid }, { reason }) => ({ action: 'deny', mid, ...(reason !== undefined && { reason }) }),
    }),
    list({
      id: 'listRoomActs',
      path: '/rooms/{slug}/acts',
      summary: 'Lists the moderation acts in a room.',
      description: 'The newest act comes first. Acts are kept for a year.',
      filter: { user: userIdSchema.optional().meta({ description: 'Only acts about this user.' }) },
      item: actSchema,
      view: actView,
      cursor: z.tuple([z.int()]),
      position: ({ id }) => [id],
      read: (roomId, from, limit, { user }) => here().desk.listActs(roomId, user, from?.[0], limit),
    }),
  ];
}
