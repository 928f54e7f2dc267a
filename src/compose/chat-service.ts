import type { IncomingMessage } from 'node:http';
import type { Audit } from '../access/audit.js';
import { type ChatAccess, chatAuthorization, chatUserDirectory } from '../access/chat-authorization.js';

import type { Principal } from '../access/roles.js';
import type { Vault } from '../access/vault.js';
import type { Database } from '../backing/database/database.js';
import { keepSubscribed, openAnyRedis } from '../backing/redis/redis.js';
import { MemoryRoomLog } from '../backing/room-log/memory.js';
import type { RoomLog } from '../backing/room-log/room-log.js';
import { Automod, type JudgeInput, type AutomodVerdict as ModerationVerdict } from '../chat/automod/moderation.js';
import { OpenAiJudge } from '../chat/automod/remote.js';
import { Retractions } from '../chat/automod/retractions.js';
import type { Moderate } from '../chat/gateway/doors.js';
import { Gateway } from '../chat/gateway/gateway.js';
import type { Moderator } from '../chat/moderation/acts.js';
import { ModerationService } from '../chat/moderation/desk.js';
import { Erasures } from '../chat/moderation/erasures.js';
import { parseModAction } from '../chat/moderation/mod-actions.js';
import { rankOf } from '../chat/moderation/settings.js';
import type { ChatChange } from '../chat/protocol/control.js';
import { addressKey } from '../chat/rooms/address-key.js';
import { Presence, type PresenceBus } from '../chat/rooms/presence.js';
import type { Author, MessageJudge, Publish, RoomInfo } from '../chat/rooms/room.js';
import { Rooms } from '../chat/rooms/rooms.js';
import type { Retention } from '../chat/rooms/sweeper.js';
import { addressGroup } from '../runtime/addresses.js';
import type { Clock } from '../runtime/clock.js';
import { messageOf } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';

/** What of the configuration the chat goes by. */
export interface ChatConfig {
  readonly redisUrl?: string | undefined;
  readonly maxMessageBytes: number;
  readonly moderationEnabled: boolean;
  readonly moderationUrl?: string | undefined;
  readonly moderationApiKey?: string | undefined;
  readonly moderationModel?: string | undefined;
}

export interface ChatRoomsOptions {
  readonly config: ChatConfig;
  readonly database: Database;
  readonly vault: Vault;
  readonly audit: Audit;
  readonly clock: Clock;
  readonly log: Log;
  /** Of the one process that lets go what is old. */
  readonly retention?: Retention | undefined;
}

/** The rooms and where they are moderated: of every process that has to do with the chat. */
export interface ChatRooms {
  readonly rooms: Rooms;
  readonly desk: ModerationService;
  readonly moderation: Automod | undefined;
  /** For the metrics: published messages that could not be judged, or not be taken back, for good. */
  readonly retractionsFailed: number;
  start(): Promise<void>;
  /** Waits until what was said is stored, or PostgreSQL is found to be away. Twice is harmless. */
  stop(): Promise<void>;
}

/** Composes them. Rejects with `unavailable` when the database is away. */
export async function openChatRooms({ config, database, vault, audit, clock, log, retention }: ChatRoomsOptions): Promise<ChatRooms> {
  const roomLog = await openRoomLog(config.redisUrl, clock, log);
  let rooms: Rooms | undefined;
  const desk = new ModerationService({
    database,
    clock,
    log,
    people: chatUserDirectory(database),
    audit: { record: ({ principal, ...entry }, connection) => audit.record({ ...entry, principal: principal as Principal }, connection) },
    addressKey: await addressKey(database, vault),
    withRoom: (roomId, work) => rooms!.withRoom(roomId, work),
  });
  const moderation = config.moderationEnabled ? new Automod({ clock, remote: remoteJudge(config, clock) }) : undefined;
  const retractions = moderation && retractionsOf(moderation, desk, clock, log);
  rooms = new Rooms({
    database,
    roomLog,
    clock,
    log,
    rules: desk.rules,
    judge: moderation && retractions ? judgeOf(moderation, desk, retractions) : { judge: () => ({ kind: 'allow' }) },
    held: desk.held,
    maxMessageBytes: config.maxMessageBytes,
    retention,
  });
  const unfollow = desk.control.follow({
    onChanges: (changes) => void refresh(changes),
    onLost: () => undefined,
  });
  /** What a room says of itself is read again. */
  const refresh = async (changes: readonly ChatChange[]) => {
    for (const { kind, roomId } of changes)
      if ((kind === 'rules' || kind === 'channel') && roomId !== undefined)
        await rooms.refresh(roomId).catch((error) => log.warn({ roomId, error: messageOf(error) }, 'a chat room could not be read again'));
  };
  const erasures = new Erasures({
    database,
    clock,
    log,
    async eraseAccount(userId, by) {
      await desk.forgetAccount(userId, await rooms.roomsOf(userId), by);
      await rooms.eraseReactions(userId);
    },
  });
  let stopping: Promise<void> | undefined;
  return {
    rooms,
    desk,
    moderation,
    get retractionsFailed() {
      return retractions?.failed ?? 0;
    },
    async start() {
      await desk.start();
      rooms.start();
      erasures.start();
    },
    stop() {
      stopping ??= (async () => {
        unfollow();
        await erasures.stop();
        await retractions?.stop();
        await rooms.stop();
        await desk.stop();
        await roomLog.stop();
      })();
      return stopping;
    },
  };
}

/** Whoever has no Redis has no use for its client. */
async function openRoomLog(redisUrl: string | undefined, clock: Clock, log: Log): Promise<RoomLog> {
  if (redisUrl === undefined) return new MemoryRoomLog({ clock, log });
  const { openRedisRoomLog } = await import('../backing/room-log/redis.js');
  return openRedisRoomLog({ url: redisUrl, clock, log });
}

function remoteJudge(
  { moderationUrl: url, moderationApiKey: apiKey, moderationModel: model }: ChatConfig,
  clock: Clock,
): OpenAiJudge | undefined {
  return url === undefined ? undefined : new OpenAiJudge({ url, apiKey, model, clock });
}

/** A message that others see, and what it is to be judged by. */
interface Published {
  readonly room: RoomInfo;
  readonly author: Author;
  readonly mid: string;
  readonly body: Publish['body'];
  readonly input: JudgeInput;
}

const retractionsOf = (moderation: Automod, desk: ModerationService, clock: Clock, log: Log) =>
  new Retractions<Published>({
    objection: async ({ input }) => {
      const verdict = await moderation.judgeRemotely(input);
      return verdict.action === 'allow' ? undefined : reasonOf(verdict);
    },
    takeBack: (message, reason) => desk.takeBack(message.room, message, reason),
    clock,
    log,
  });

const reasonOf = (verdict: Exclude<ModerationVerdict, { action: 'allow' }>) => verdict.reasons.map(({ category }) => category).join(', ');

function judgeOf(moderation: Automod, desk: ModerationService, retractions: Retractions<Published>): MessageJudge {
  return {
    async judge({ room, author, mid, body }) {
      const settings = desk.rules.moderation(room.id);
      const privileged = rankOf(author.role) >= rankOf('moderator');
      const input = { roomId: room.id, authorId: author.id, messageId: mid, privileged, text: body.text, settings };
      const own = moderation.judge(input);
      // The own judgement costs microseconds, so what it is against is not sent anywhere.
      const isRemote = (own.action === 'allow' || own.action === 'mask') && moderation.asksRemotely(input);
      const isAfterwards = isRemote && settings.remote === 'retract' && !retractions.isFull;
      const asked = isRemote && !isAfterwards ? await moderation.judgeRemotely(input) : own;
      const verdict = asked.action === 'allow' ? own : asked;
      if (verdict.action === 'allow' || verdict.action === 'mask')
        return {
          kind: 'allow',
          ...(verdict.action === 'mask' && { text: verdict.text }),
          ...(isAfterwards && { published: () => retractions.add({ room, author, mid, body, input }) }),
        };
      const reason = reasonOf(verdict);
      if (verdict.action === 'hold') return { kind: 'hold', reason };
      // Too fast is a matter of time, not of what was said.
      return verdict.reasons[0]?.rule === 'flood'
        ? { kind: 'refuse', code: 'rate_limited', reason: 'Not so fast.', retryMs: Math.ceil(1000 / moderation.pace.perS) }
        : { kind: 'refuse', code: 'moderated', reason: `Not allowed here: ${reason}.` };
    },
  };
}

export interface ChatGatewayOptions extends Pick<ChatRoomsOptions, 'clock' | 'log'> {
  readonly config: ChatConfig & {
    readonly publicUrl: string;
    readonly corsEnabled: boolean;
    readonly allowedOrigins: readonly string[];
  };
  readonly chat: ChatRooms;
  readonly access: ChatAccess;
  readonly maxConnections: number;
  readonly maxPerAddress: number | undefined;
  readonly addressOf: (req: IncomingMessage) => string;
  readonly countryOf: (req: IncomingMessage) => string | undefined;
}

export interface ChatGateway {
  readonly gateway: Gateway;
  readonly presence: Presence;
  /** Twice is harmless. */
  stop(): Promise<void>;
}

/** The door of one process. */
export function openGateway(options: ChatGatewayOptions): ChatGateway {
  const { config, chat, access, clock, log, maxConnections, maxPerAddress, addressOf, countryOf } = options;
  const { rooms, desk } = chat;
  const bus = config.redisUrl === undefined ? undefined : redisBus(config.redisUrl, clock, log);
  const presence = new Presence({ clock, bus: bus?.bus });
  const moderate: Moderate = (room, moderator, frame) => desk.moderate(room, moderator satisfies Moderator, parseModAction(frame));
  const gateway = new Gateway({
    rooms,
    doors: chatAuthorization(access, clock),
    rules: desk.rules,
    moderate,
    presence,
    clock,
    log,
    maxConnections,
    maxPerAddress,
    groupOf: (address) => addressGroup(address),
    maxTextBytes: config.maxMessageBytes,
    pageLimits: rooms.pageLimits,
    pace: chat.moderation?.pace,
    isOriginAllowed: originCheck(config),
    addressOf,
    countryOf,
  });
  const follow = async (changes: readonly ChatChange[]) => {
    for (const { kind, channelId, userId, sessionId } of changes) {
      if (kind === 'session' && sessionId !== undefined) gateway.sessionEnded(sessionId);
      else if (kind === 'account' && userId !== undefined) await gateway.accountChanged(userId);
      else if ((kind === 'channel' || kind === 'member') && channelId !== undefined) await gateway.channelChanged(channelId);
    }
  };
  const notFollowed = (error: unknown) =>
    log.error({ event: 'chat.change_not_followed', error: messageOf(error) }, 'a change of rights did not reach its connections');
  const unfollow = desk.control.follow({
    onChanges: (changes) => void follow(changes).catch(notFollowed),
    onLost: () => void gateway.everythingChanged().catch(notFollowed),
  });
  let stopping: Promise<void> | undefined;
  return {
    gateway,
    presence,
    stop() {
      stopping ??= (async () => {
        unfollow();
        await gateway.stop();
        presence.stop();
        bus?.stop();
      })();
      return stopping;
    },
  };
}

/** Our own pages, and those of `ALLOWED_ORIGINS`. */
export function originCheck(config: Pick<ChatGatewayOptions['config'], 'publicUrl' | 'corsEnabled' | 'allowedOrigins'>) {
  const own = new URL(config.publicUrl);
  const allowed = new Set(config.corsEnabled ? config.allowedOrigins : []);
  return (origin: string, host: string | undefined): boolean => {
    if (allowed.has('*') || allowed.has(origin) || origin === own.origin) return true;
    // A page of the same host, by whatever name it is reached: the port of the chat may be another.
    const nameOf = (value: string) => (URL.canParse(value) ? new URL(value).hostname : undefined);
    const page = nameOf(origin);
    return page !== undefined && host !== undefined && page === nameOf(`http://${host}`);
  };
}

const PRESENCE_CHANNEL = 'veza:chat:presence';

/** Of the texts that are published: with each of these the connection that only listens is asked for a sign of life. */
const TEXTS_A_PING = 5;

/** Presence is said again and again: what is lost while Redis is away is no loss. In a cluster any node will do, and another when that one is lost. */
export function redisBus(url: string, clock: Clock, log: Log): { bus: PresenceBus; stop(): void } {
  const speaks = openAnyRedis({ url, log });
  const hears = openAnyRedis({ url, log });
  let texts = 0;
  const unsubscribe = keepSubscribed(hears.client, PRESENCE_CHANNEL, clock);
  return {
    bus: {
      publish(text) {
        speaks.client.publish(PRESENCE_CHANNEL, text).catch(() => undefined);
        // A node that says nothing any more is not noticed otherwise.
        if (++texts % TEXTS_A_PING === 0) hears.client.ping().catch(() => undefined);
      },
      onText: (listener) => void hears.client.on('message', (_channel: string, text: string) => listener(text)),
    },
    stop() {
      unsubscribe();
      speaks.stop();
      hears.stop();
    },
  };
}
