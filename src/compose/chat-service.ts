import type { IncomingMessage } from 'node:http';
import type { Audit } from '../access/audit.js';
import { type ChatAccess, chatAuthorization, chatUserDirectory } from '../access/chat-authorization.js';

import type { Principal } from '../access/roles.js';
import type { Vault } from '../access/vault.js';
import type { Database } from '../backing/database/database.js';
import { MemoryRoomLog } from '../backing/room-log/memory.js';
import type { RoomLog } from '../backing/room-log/room-log.js';
import { Classifier } from '../chat/automod/classifier.js';
import { OpenAiClassifier } from '../chat/automod/remote-classifier.js';
import { Gateway } from '../chat/gateway/gateway.js';
import type { Moderate } from '../chat/gateway/moderation.js';
import { originCheck } from '../chat/gateway/origin.js';
import type { Moderator } from '../chat/moderation/acts.js';
import { ALLOW_ALL, AutomaticReviewer } from '../chat/moderation/automatic-reviewer.js';
import { Erasures } from '../chat/moderation/erasures.js';
import { parseModAction } from '../chat/moderation/mod-actions.js';
import { ModerationService } from '../chat/moderation/service.js';
import type { ChatChange } from '../chat/protocol/control.js';
import { addressKey } from '../chat/rooms/address-key.js';
import { Presence } from '../chat/rooms/presence/presence.js';
import { redisPresenceBus } from '../chat/rooms/presence/presence-bus.js';
import { Rooms } from '../chat/rooms/rooms.js';
import type { Retention } from '../chat/rooms/sweeper.js';
import { addressGroup } from '../runtime/addresses.js';
import type { Clock } from '../runtime/clock.js';
import { messageOf } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';

/** The part of the configuration that the chat uses. */
interface ChatConfig {
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
  /** Set only in the one process that deletes old entries. */
  readonly retention?: Retention | undefined;
}

/** The rooms and their moderation, as every process with a part of the chat has them. */
export interface ChatRooms {
  readonly rooms: Rooms;
  readonly desk: ModerationService;
  readonly moderation: Classifier | undefined;
  /**
   * For the metrics: published messages that could not be classified afterwards, or could not be
   * retracted, for good.
   */
  readonly retractionsFailed: number;
  start(): Promise<void>;
  /**
   * Waits until all messages are stored, or PostgreSQL is found to be unavailable. Calling it twice
   * is harmless.
   */
  stop(): Promise<void>;
}

/** Composes rooms and moderation. Rejects with `unavailable` when the database is unavailable. */
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
  const moderation = config.moderationEnabled ? new Classifier({ clock, remote: remoteClassifier(config, clock) }) : undefined;
  const reviewer = moderation && new AutomaticReviewer({ automod: moderation, moderation: desk, clock, log });
  rooms = new Rooms({
    database,
    roomLog,
    clock,
    log,
    rules: desk.rules,
    reviewer: reviewer ?? ALLOW_ALL,
    held: desk.held,
    maxMessageBytes: config.maxMessageBytes,
    retention,
  });
  const unfollow = desk.control.follow({
    onChanges: (changes) => void refresh(changes),
    onLost: () => undefined,
  });
  /** Reloads the settings of the rooms that have changed. */
  const refresh = async (changes: readonly ChatChange[]) => {
    for (const { kind, roomId } of changes)
      if ((kind === 'rules' || kind === 'channel') && roomId !== undefined)
        await rooms
          .rereadRoom(roomId)
          .catch((error) =>
            log.warn({ event: 'chat.room_reload_failed', roomId, error: messageOf(error) }, 'could not reload a chat room'),
          );
  };
  const erasures = new Erasures({
    database,
    clock,
    log,
    async eraseAccount(userId, by) {
      await desk.eraseAccount(userId, await rooms.roomsOf(userId), by);
      await rooms.eraseReactions(userId);
    },
  });
  let stopping: Promise<void> | undefined;
  return {
    rooms,
    desk,
    moderation,
    get retractionsFailed() {
      return reviewer?.retractionsFailed ?? 0;
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
        await reviewer?.stop();
        await rooms.stop();
        await desk.stop();
        await roomLog.stop();
      })();
      return stopping;
    },
  };
}

/** Without Redis its client is not loaded. */
async function openRoomLog(redisUrl: string | undefined, clock: Clock, log: Log): Promise<RoomLog> {
  if (redisUrl === undefined) return new MemoryRoomLog({ clock, log });
  const { openRedisRoomLog } = await import('../backing/room-log/redis.js');
  return openRedisRoomLog({ url: redisUrl, clock, log });
}

function remoteClassifier(
  { moderationUrl: url, moderationApiKey: apiKey, moderationModel: model }: ChatConfig,
  clock: Clock,
): OpenAiClassifier | undefined {
  return url === undefined ? undefined : new OpenAiClassifier({ url, apiKey, model, clock });
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
  /** Calling it twice is harmless. */
  stop(): Promise<void>;
}

/** Composes the gateway of one process. */
export function openGateway(options: ChatGatewayOptions): ChatGateway {
  const { config, chat, access, clock, log, maxConnections, maxPerAddress, addressOf, countryOf } = options;
  const { rooms, desk } = chat;
  const bus = config.redisUrl === undefined ? undefined : redisPresenceBus(config.redisUrl, clock, log);
  const presence = new Presence({ clock, bus: bus?.bus });
  const moderate: Moderate = (room, moderator, frame) => desk.moderate(room, moderator satisfies Moderator, parseModAction(frame));
  const gateway = new Gateway({
    rooms,
    authorization: chatAuthorization(access, clock),
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
      if (kind === 'session' && sessionId !== undefined) gateway.endSession(sessionId);
      else if (kind === 'account' && userId !== undefined) await gateway.recheckAccount(userId);
      else if ((kind === 'channel' || kind === 'member') && channelId !== undefined) await gateway.recheckChannel(channelId);
    }
  };
  const logFailedFollow = (error: unknown) =>
    log.error({ event: 'chat.change_not_followed', error: messageOf(error) }, 'a change of rights did not reach the open connections');
  const unfollow = desk.control.follow({
    onChanges: (changes) => void follow(changes).catch(logFailedFollow),
    onLost: () => void gateway.recheckEverything().catch(logFailedFollow),
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
