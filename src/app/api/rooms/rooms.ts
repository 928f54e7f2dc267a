import { z } from 'zod';
import type { Audit } from '../../../access/audit.js';
import { MAX_APPEAL_CHARS } from '../../../chat/moderation/appeals.js';
import type { SanctionsOfUser } from '../../../chat/moderation/service.js';
import { CHOICES, PUBLIC_SETTINGS, SETTING_LIMITS } from '../../../chat/moderation/settings.js';
import { textFor } from '../../../chat/protocol/entry-frame.js';
import { ROOM_ROLES } from '../../../chat/protocol/protocol.js';
import type { PublishOutcome } from '../../../chat/rooms/room.js';
import { addressGroup } from '../../../runtime/addresses.js';
import { VezaError } from '../../../runtime/errors.js';
import { lines } from '../../http/lines.js';
import { isoOf, type Operation, operation, pageOf } from '../openapi.js';
import { PATTERNS, text, wholeInQuery } from '../request-schemas.js';
import { chatRoleSchema } from '../role-schemas.js';
import { authorSchema, mayWrite, midSchema, type RoomOperationsOptions, roomAccess, roomParams, signedIn } from './room-access.js';
import { personSchema } from './room-moderating.js';

/** Host names in the form that automod takes. */
const HOST_PATTERN = '^([*][.])?([A-Za-z0-9-]{1,63}[.])+[A-Za-z0-9-]{2,63}[.]?$';

const whole = ([least, most]: readonly [number, number]) => z.int().min(least).max(most);
const settingsShape = {
  slowS: whole(SETTING_LIMITS.slowS).meta({ description: 'Slow mode: seconds between two messages of one person; 0: off.' }),
  slowExempt: z.array(chatRoleSchema).max(ROOM_ROLES.length).meta({ description: 'Roles without slow mode.' }),
  followersMin: whole(SETTING_LIMITS.followersMin).meta({ description: 'Least age of an account, in minutes, for writing; 0: off.' }),
  unique: z.boolean().meta({ description: 'Refuses a text that was posted in the room within the last hour.' }),
  emoteOnly: z.boolean().meta({ description: 'Only emoji.' }),
  shield: z.boolean().meta({ description: 'Against a raid: makes all modes stricter while it is on.' }),
  guests: z.enum(CHOICES.guests).meta({ description: 'Whether people who are not signed in may read.' }),
  perS: whole(SETTING_LIMITS.perS).meta({ description: 'Messages per second of one person.' }),
  burst: whole(SETTING_LIMITS.burst).meta({ description: 'Messages that one person may send at once.' }),
  roomPerS: whole(SETTING_LIMITS.roomPerS).meta({ description: 'Messages per second of all people together.' }),
  moderated: z.boolean().meta({ description: 'Whether automatic moderation is on.' }),
  links: z.enum(CHOICES.links),
  allowedHosts: z
    .array(text({ min: 4, max: 253, pattern: HOST_PATTERN }))
    .max(100)
    .meta({ description: 'Hosts to which links are always allowed: names in ASCII, each with its subdomains.' }),
  profanity: z.enum(CHOICES.profanity),
  spam: z.enum(CHOICES.spam),
  remote: z.enum(CHOICES.remote).meta({ description: 'Use of the remote classifier, if the service has one.' }),
  remoteFails: z.enum(CHOICES.remoteFails).meta({ description: 'What happens when the remote classifier does not answer.' }),
};
const settingsSchema = z.strictObject(settingsShape).meta({ id: 'RoomSettings' });

const roomSchema = z
  .strictObject({
    id: z.uuid(),
    slug: z.string(),
    epoch: z.int(),
    offset: z.int().meta({ description: 'Offset of the newest entry.' }),
    members: z.int().min(0),
    settings: z
      .strictObject(settingsShape)
      .partial()
      .meta({ id: 'ShownRoomSettings', description: 'Moderators get all settings, others only some.' }),
    pinned: z
      .strictObject({ mid: z.string(), offset: z.int(), user: authorSchema, body: z.looseObject({}), at: z.iso.datetime() })
      .meta({ id: 'PinnedMessage' })
      .nullable(),
    you: z.strictObject({ id: z.string(), role: chatRoleSchema, mayWrite: z.boolean() }).nullable(),
    waiting: z
      .strictObject({ held: z.int().min(0), appeals: z.int().min(0) })
      .nullable()
      .meta({ description: 'For moderators: held messages and appeals that wait for a decision.' }),
  })
  .meta({ id: 'Room' });

const entrySchema = z
  .looseObject({ t: z.string(), room: z.uuid(), epoch: z.int(), offset: z.int(), at: z.number() })
  .meta({ id: 'RoomEntry', description: 'An entry as in the frames of the protocol: `msg`, `del`, `act`, `pin`, `now`, `gone`.' });

const standingSchema = z
  .strictObject({
    id: z.string(),
    role: chatRoleSchema,
    ban: z.strictObject({ reason: z.string().nullable(), until: z.iso.datetime().nullable(), createdAt: z.iso.datetime() }).nullable(),
    timeout: z.strictObject({ reason: z.string().nullable(), until: z.iso.datetime() }).nullable(),
    warnings: z
      .array(z.strictObject({ id: z.uuid(), text: z.string(), at: z.iso.datetime() }))
      .meta({ description: 'Warnings that were not marked as seen.' }),
    appeal: z.strictObject({ id: z.uuid(), text: z.string(), accepted: z.boolean().nullable(), answer: z.string().nullable() }).nullable(),
    held: z.array(
      z.strictObject({
        mid: z.string(),
        text: z.string(),
        state: z.enum(['waiting', 'approved', 'denied']),
        reason: z.string().nullable(),
        at: z.iso.datetime(),
      }),
    ),
  })
  .meta({ id: 'OwnRoomStanding' });

/** A person's own view of their sanctions and held messages. */
const standingView = ({ ban, timeout, warnings, appeal, held }: SanctionsOfUser) => ({
  ban: ban
    ? { reason: ban.reason ?? null, until: ban.untilMs === undefined ? null : isoOf(ban.untilMs), createdAt: isoOf(ban.createdAtMs) }
    : null,
  timeout: timeout ? { reason: timeout.reason ?? null, until: isoOf(timeout.untilMs) } : null,
  warnings: warnings.map(({ id, text, createdAtMs }) => ({ id, text, at: isoOf(createdAtMs) })),
  appeal: appeal ? { id: appeal.id, text: appeal.text, accepted: appeal.accepted ?? null, answer: appeal.answer ?? null } : null,
  held: held.map(({ message, decision, denialReason }) => ({
    mid: message.mid,
    text: message.body.text,
    state: decision ?? ('waiting' as const),
    reason: denialReason ?? null,
    at: isoOf(message.saidAtMs),
  })),
});

/** Most entries per answer. */
const MAX_ENTRIES = 100;
const COMMIT_MS = 10_000;
const EXPORT_CHUNK_CHARS = 64 * 1024;

/**
 * Operations on rooms for their members and bots. Moderators' operations are in
 * `room-moderation.ts`.
 */
export function roomOperations(options: RoomOperationsOptions & { audit: Pick<Audit, 'record'>; maxTextBytes: number }): Operation[] {
  const { clock, audit, maxTextBytes } = options;
  const { here, channelOf, roomOf, moderatorOf, enter, within } = roomAccess(options);

  /** Throws when the author may not be in the room. */
  const mustRead = (roomId: string, author: Parameters<ReturnType<typeof here>['desk']['rules']['readRefusalOf']>[1]) => {
    const refusal = here().desk.rules.readRefusalOf(roomId, author, clock.wallMs());
    if (!refusal) return;
    const { untilMs } = refusal;
    throw new VezaError(refusal.code === 'unauthorized' ? 'unauthorized' : 'forbidden', refusal.reason, {
      details: { refusal: refusal.code, ...(untilMs !== undefined && { until: isoOf(untilMs) }) },
    });
  };

  return [
    operation({
      id: 'getRoom',
      method: 'get',
      path: '/rooms/{slug}',
      summary: 'Shows the chat room of a channel.',
      description: 'Its settings, the pinned message, and the caller’s role in it.',
      access: 'anyone',
      params: roomParams,
      status: 200,
      answer: roomSchema,
      errors: ['not_found', 'forbidden'],
      async handle({ params, principal, client }) {
        const { room, person, author } = await enter(principal, params.slug, client);
        return within(room, async ({ epoch, head }) => {
          const { desk, presence } = here();
          mustRead(room.id, author);
          const settings = desk.rules.settingsInForce(room.id);
          const pinned = desk.rules.pinnedMessage(room.id);
          return {
            id: room.id,
            slug: room.slug!,
            epoch,
            offset: head,
            members: presence.count(room.id),
            settings: person?.moderates === 'yes' ? settings : Object.fromEntries(PUBLIC_SETTINGS.map((name) => [name, settings[name]])),
            pinned: pinned ? { mid: pinned.mid, offset: pinned.offset, user: pinned.user, body: pinned.body, at: isoOf(pinned.at) } : null,
            you: person ? { id: person.id, role: person.role, mayWrite: person.mayWrite } : null,
            waiting: person?.moderates === 'yes' ? await desk.countWaiting(room.id) : null,
          };
        });
      },
    }),
    operation({
      id: 'updateRoom',
      method: 'patch',
      path: '/rooms/{slug}',
      summary: 'Changes the settings of a room.',
      description: 'Settings that are left out do not change. Moderators change the room’s modes with `setRoomModes`.',
      access: 'channel.chat-settings',
      channelOf,
      params: roomParams,
      body: z.strictObject(settingsShape).partial(),
      status: 200,
      answer: settingsSchema,
      errors: ['not_found'],
      unaudited: true,
      handle: async ({ body, channel, ...call }) => here().desk.changeSettings(await roomOf(channel), moderatorOf(call), body),
    }),
    operation({
      id: 'listRoomMessages',
      method: 'get',
      path: '/rooms/{slug}/messages',
      summary: 'Lists the entries of a room.',
      description: 'A page of entries, the oldest first. Send `next` as `before` to get the entries before it.',
      access: 'anyone',
      params: roomParams,
      query: z.strictObject({
        before: wholeInQuery(1, Number.MAX_SAFE_INTEGER, 'An offset, exclusive.').optional(),
        limit: wholeInQuery(1, MAX_ENTRIES, 'Entries per page; fewer when they are long.').default(50),
      }),
      status: 200,
      answer: pageOf(entrySchema),
      errors: ['not_found', 'forbidden'],
      async handle({ params, query, principal, client }) {
        const { room, person, author } = await enter(principal, params.slug, client);
        return within(room, async (opened) => {
          mustRead(room.id, author);
          const { pageLimits } = here();
          const address = addressGroup(client.address);
          const reader = { id: person?.id, isGuest: person === undefined, address };
          pageLimits.takePage(reader);
          const { frames, more } = await opened.readPage({
            onRead: () => pageLimits.takeRead(reader),
            limit: query.limit,
            kept: true,
            ...(query.before !== undefined && { before: query.before }),
          });
          return {
            items: frames.map((frame) => JSON.parse(textFor(frame, person?.id))),
            next: more && frames[0] ? String(frames[0].offset) : null,
          };
        });
      },
    }),
    operation({
      id: 'postRoomMessage',
      method: 'post',
      path: '/rooms/{slug}/messages',
      summary: 'Posts a message.',
      description: 'Without an answer, send the message again with the same key: within 5 minutes it is the same message.',
      access: 'anyone',
      params: roomParams,
      body: z.strictObject({
        text: text({
          max: maxTextBytes,
          maxBytes: maxTextBytes,
          tooLong: { code: 'payload_too_large', refusal: 'too_long' },
          pattern: PATTERNS.filled,
          description: `At most ${maxTextBytes} bytes in UTF-8; a longer text is refused with 413.`,
        }),
        key: text({ max: 64, pattern: PATTERNS.noControls, description: 'Chosen by the client, different for each message.' }),
        reply: midSchema.optional(),
      }),
      status: 201,
      answer: z
        .strictObject({
          state: z.enum(['published', 'held']).meta({ description: '`held`: the message waits for a moderator.' }),
          mid: z.string(),
          epoch: z.int().nullable(),
          offset: z.int().nullable(),
          dup: z.boolean(),
        })
        .meta({ id: 'PostedMessage' }),
      errors: ['not_found', 'forbidden', 'conflict', 'busy'],
      unaudited: true,
      async handle({ params, body, principal, client, created }) {
        const { room, person, author } = await enter(principal, params.slug, client);
        mayWrite(person);
        return within(room, async (opened) => {
          const sinceMs = principal.accountId === undefined ? undefined : await here().sinceMs(principal.accountId);
          const outcome = await opened.publishMessage({
            author: { ...author!, ...(sinceMs !== undefined && { sinceMs }) },
            key: body.key,
            body: { text: body.text, ...(body.reply !== undefined && { reply: body.reply }) },
          });
          if (outcome.kind === 'refused') throw refused(outcome);
          created(`/rooms/${params.slug}/messages/${outcome.mid}`);
          if (outcome.kind === 'held') return { state: 'held', mid: outcome.mid, epoch: null, offset: null, dup: false };
          const commit = await new Promise<Awaited<typeof outcome.committed> | undefined>((resolve) => {
            const cancel = clock.after(COMMIT_MS, () => resolve(undefined));
            void outcome.committed.then((decided) => {
              cancel();
              resolve(decided);
            });
          });
          if (!commit) throw new VezaError('unavailable', 'The message is not stored yet. Send it again with the same key.');
          if (commit.kind === 'resend') throw new VezaError('busy', 'The message was withdrawn. Send it again with the same key.');
          return { state: 'published', mid: outcome.mid, epoch: commit.epoch, offset: commit.offset, dup: commit.dup };
        });
      },
    }),
    operation({
      id: 'listRoomMembers',
      method: 'get',
      path: '/rooms/{slug}/members',
      summary: 'Counts the people in a room, and lists the first of them.',
      description: 'Counts over all processes. Only signed-in people are listed.',
      access: 'anyone',
      params: roomParams,
      query: z.strictObject({ limit: wholeInQuery(1, 500).default(100) }),
      status: 200,
      answer: z.strictObject({ count: z.int(), items: z.array(personSchema), next: z.null() }).meta({ id: 'RoomMembers' }),
      errors: ['not_found', 'forbidden'],
      async handle({ params, query, principal, client }) {
        const { room, person, author } = await enter(principal, params.slug, client);
        signedIn(person);
        return within(room, async () => {
          mustRead(room.id, author);
          const { presence } = here();
          const people = await presence.people(room.id, query.limit);
          return { count: presence.count(room.id), items: people.map(({ id, name }) => ({ id, name })), next: null };
        });
      },
    }),
    operation({
      id: 'exportRoom',
      method: 'get',
      path: '/rooms/{slug}/export',
      summary: 'Exports all entries of a room.',
      description: 'JSON Lines, in order. The export is recorded in the audit log.',
      access: 'channel.chat-settings',
      channelOf,
      params: roomParams,
      status: 200,
      answer: z.looseObject({ offset: z.int(), type: z.string(), at: z.iso.datetime() }).meta({ id: 'ExportedRoomEntry' }),
      contentType: 'application/jsonl',
      errors: ['not_found'],
      async handle({ channel, principal, client }) {
        const room = await roomOf(channel);
        const { address, requestId } = client;
        await audit.record({ principal, action: 'chat.export', address, requestId, channel: channel.slug, target: `room:${room.id}` });
        return lines(here().history.export(room.id), EXPORT_CHUNK_CHARS);
      },
    }),
    operation({
      id: 'getMyRoomStanding',
      method: 'get',
      path: '/rooms/{slug}/me',
      summary: 'Shows the caller’s sanctions in a room.',
      description: 'The caller’s ban, timeout and unseen warnings, and the decisions about their held messages.',
      access: 'anyone',
      params: roomParams,
      status: 200,
      answer: standingSchema,
      errors: ['not_found', 'forbidden'],
      async handle({ params, principal, client }) {
        const { room, person } = await enter(principal, params.slug, client);
        const { id, role } = signedIn(person);
        return { id, role, ...standingView(await here().desk.sanctionsOf(room.id, id)) };
      },
    }),
    operation({
      id: 'seeRoomWarning',
      method: 'post',
      path: '/rooms/{slug}/me/warnings/{id}',
      summary: 'Marks a warning as seen.',
      access: 'anyone',
      params: roomParams.extend({ id: z.uuid() }),
      status: 204,
      errors: ['not_found', 'forbidden'],
      unaudited: true,
      async handle({ params, principal, client }) {
        const { room, person } = await enter(principal, params.slug, client);
        await here().desk.sanctions.markWarningSeen(room.id, signedIn(person).id, params.id);
      },
    }),
    operation({
      id: 'appealRoomBan',
      method: 'post',
      path: '/rooms/{slug}/appeals',
      summary: 'Appeals against the caller’s ban.',
      description: 'Once per ban. `getMyRoomStanding` has the answer.',
      access: 'anyone',
      params: roomParams,
      body: z.strictObject({ text: text({ max: MAX_APPEAL_CHARS, pattern: PATTERNS.lines, trimmed: true }) }),
      status: 201,
      answer: z.strictObject({ id: z.uuid() }),
      errors: ['not_found', 'forbidden', 'conflict'],
      unaudited: true,
      async handle({ params, body, principal, client, created }) {
        const { room, person, channelRole } = await enter(principal, params.slug, client);
        mayWrite(person);
        const { id } = await here().desk.fileAppeal(room, moderatorOf({ principal, channelRole, client }), body.text);
        created(`/rooms/${params.slug}/me`);
        return { id };
      },
    }),
  ];
}

function refused({ code, reason, retryMs }: Extract<PublishOutcome, { kind: 'refused' }>): VezaError {
  const retryAfterS = retryMs === undefined ? undefined : Math.max(1, Math.ceil(retryMs / 1000));
  const details = { refusal: code, ...(retryAfterS !== undefined && { retryAfterS }) };
  if (code === 'rate_limited' || code === 'slow_mode') return new VezaError('rate_limited', reason, { details });
  if (code === 'too_long') return new VezaError('payload_too_large', reason, { details });
  if (code === 'bad_request' || code === 'not_found') return new VezaError(code, reason, { details });
  // The text was posted within the last hour, or the message with this key was deleted.
  if (code === 'not_unique' || code === 'deleted') return new VezaError('conflict', reason, { details });
  return new VezaError(retryAfterS === undefined ? 'forbidden' : 'busy', reason, { details });
}
