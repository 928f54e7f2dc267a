import type { LineLog } from '../../runtime/bounded-log.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { publicPart } from '../moderation/settings.js';
import type {
  AuthFrame,
  ClientFrame,
  HistoryFrame,
  JoinFrame,
  ModFrame,
  PubFrame,
  RangeFrame,
  ReactFrame,
} from '../protocol/client-frames.js';
import { type EntryFrame, textFor } from '../protocol/entry-frame.js';
import {
  type ChatErrorCode,
  ERROR_CODES,
  errorFrame,
  lastsMs,
  MAX_ENTRIES,
  MAX_IN_FLIGHT,
  MAX_PAGE_BYTES,
  MAX_ROOMS,
} from '../protocol/protocol.js';
import type { OnAirFrames } from '../rooms/on-air.js';
import { type PageLimits, type PageReader, PagesLimited } from '../rooms/page-limits.js';
import type { Presence } from '../rooms/presence/presence.js';
import { type Author, type EntryPageQuery, type Resumption, type Room, type RoomInfo, TIMED_OUT_REASON } from '../rooms/room.js';
import type { ChatAuthorization } from './authorization.js';
import type { ClientConnection } from './connection.js';
import type { LocalRooms } from './local-rooms.js';
import { Membership } from './membership.js';
import type { GatewayRules, Moderate } from './moderation.js';

export interface RequestsOptions {
  readonly rooms: { find(idOrSlug: string): Promise<RoomInfo | undefined> };
  readonly authorization: ChatAuthorization;
  readonly rules: GatewayRules;
  readonly moderate: Moderate;
  readonly presence: Presence;
  readonly clock: Clock;
  readonly log: Log;
  /** For log lines that a single client could cause at any rate. */
  readonly failureLog: LineLog;
  readonly localRooms: LocalRooms;
  readonly pageLimits: PageLimits;
  readonly groupOf: (address: string) => string;
  readonly onAir: OnAirFrames;
  readonly endSession: (connection: ClientConnection, why: 'banned' | 'ended') => void;
  /** Called when the connection has sent a new token. */
  readonly onRenewed: (connection: ClientConnection) => void;
}

/**
 * A client that missed more entries than this gets the newest `MAX_ENTRIES` and fetches the others
 * with `range`.
 */
const MAX_RESUMED = 1000;
/**
 * An id that no channel has. Its access is read when a room does not exist, so that the answer
 * takes as long as for a forbidden room.
 */
const NO_CHANNEL = '00000000-0000-4000-8000-000000000000';
/** `retryMs` of an answer when the log or the database is unavailable. */
const RETRY_MS = 1000;

class Refused extends Error {
  constructor(
    readonly code: ChatErrorCode,
    message: string,
    readonly retryMs?: number,
  ) {
    super(message);
  }
}

const notFound = () => new Refused('not_found', 'There is no such room.');

/** Answers the requests of clients. */
export class Requests {
  readonly #options: RequestsOptions;
  /** Unfinished joins by connection. A `leave` waits for the joins before it. */
  readonly #joins = new WeakMap<ClientConnection, Promise<unknown>>();

  constructor(options: RequestsOptions) {
    this.#options = options;
  }

  /** Settles as `join` does. A `leave` waits for it. */
  async #trackJoin(connection: ClientConnection, join: Promise<void>): Promise<void> {
    const all = Promise.allSettled([this.#joins.get(connection), join]);
    this.#joins.set(connection, all);
    try {
      await join;
    } finally {
      if (this.#joins.get(connection) === all) this.#joins.delete(connection);
    }
  }

  /** Answers one frame. Never rejects. */
  async answer(connection: ClientConnection, frame: Exclude<ClientFrame, { t: 'hello' | 'pub' }>): Promise<void> {
    try {
      switch (frame.t) {
        case 'join':
          return await this.#trackJoin(connection, this.#join(connection, frame));
        case 'leave':
          // Joins that were sent before the `leave` are finished first. Otherwise the client would
          // be in the room after it has left.
          await this.#joins.get(connection);
          this.#options.localRooms.removeMember(connection, this.#membership(connection, frame.room));
          return connection.sendReply(ok(frame.id));
        case 'auth':
          return await this.#renew(connection, frame);
        case 'history':
          return await this.#page(connection, frame, { limit: frame.limit, ...(frame.before !== undefined && { before: frame.before }) });
        case 'range':
          return await this.#page(connection, frame, { from: frame.from, to: frame.to, limit: 100 });
        case 'react':
          return await this.#react(connection, frame);
        case 'mod':
          return await this.#moderate(connection, frame);
      }
    } catch (error) {
      connection.sendReply(this.#errorFor(frame.id, error));
    }
  }

  #errorFor(id: string, error: unknown): string {
    if (error instanceof Refused) return errorFrame(id, error.code, error.message, error.retryMs);
    if (error instanceof VezaError) {
      const code = error.code === 'payload_too_large' ? 'too_long' : error.code;
      if (error instanceof PagesLimited) return errorFrame(id, 'rate_limited', error.message, error.retryMs);
      const isAway = code === 'busy' || code === 'unavailable' || code === 'rate_limited';
      if (code in ERROR_CODES) return errorFrame(id, code as ChatErrorCode, error.message, isAway ? RETRY_MS : undefined);
    }
    this.#options.failureLog.error(
      { event: 'chat.request_failed', error: messageOf(error), stack: (error as Error)?.stack },
      'a chat request failed',
    );
    return errorFrame(id, 'internal', 'Something went wrong here; it is in the log of the service.');
  }

  #membership(connection: ClientConnection, roomOrSlug: string): Membership {
    for (const membership of connection.memberships)
      if (membership.localRoom.id === roomOrSlug || membership.localRoom.room.info.slug === roomOrSlug) return membership;
    throw new Refused('not_joined', 'Join the room first.');
  }

  async #join(connection: ClientConnection, { id, room: idOrSlug, since, link }: JoinFrame): Promise<void> {
    const { rooms, authorization, localRooms, rules, clock } = this.#options;
    const info = idOrSlug === '' ? undefined : await rooms.find(idOrSlug);
    const { changes } = localRooms;
    const access = (info && localRooms.accessOf(info.id)) ?? (await authorization.readAccess(info?.channelId ?? NO_CHANNEL));
    if (!info?.channelId || !access) throw notFound();
    if (!localRooms.standingOf({ access }, connection, link)) throw notFound();

    this.#options.pageLimits.takeJoin(connection.serial);
    const localRoom = await localRooms.openRoom(info, access, changes);
    const { room } = localRoom;
    let resumption: Resumption;
    let frames: readonly EntryFrame[];
    let { recovered } = {} as Partial<Resumption>;
    for (;;) {
      const { generation } = localRoom;
      resumption = await room.resumeFrom(since);
      recovered = resumption.recovered;
      let from = resumption.cursor;
      if (room.head - from > MAX_RESUMED) {
        from = room.head - MAX_ENTRIES;
        if (recovered === 'full') recovered = 'partial';
      }
      const found = await room.framesAfter(from, MAX_ENTRIES);
      if (generation !== localRoom.generation) continue;
      resumption = { ...resumption, cursor: found === undefined ? room.floor : from };
      if (found === undefined && recovered === 'full') recovered = 'partial';
      frames = found ?? [];
      break;
    }

    // From here to the end nothing is awaited, so the member misses no entry.
    if (connection.state !== 'open') return;
    const standing = localRooms.standingOf(localRoom, connection, link);
    if (!standing || localRoom.closedAs !== undefined || localRooms.roomOf(localRoom.id) !== localRoom) throw notFound();
    const { identity, address } = connection;
    const refusal = rules.readRefusalOf(localRoom.id, identity && { id: identity.id, role: standing.role, address }, clock.wallMs());
    if (refusal) {
      const code = refusal.code in ERROR_CODES ? (refusal.code as ChatErrorCode) : 'forbidden';
      throw new Refused(code, refusal.reason, code === 'busy' ? RETRY_MS : undefined);
    }
    const before = connection.membershipIn(localRoom.id);
    if (before) localRooms.removeMember(connection, before);
    else if (connection.memberships.length >= MAX_ROOMS)
      throw new Refused('too_many_rooms', `A connection has at most ${MAX_ROOMS} rooms.`);
    localRoom.flushEntries();
    const entries: string[] = [];
    let { cursor } = resumption;
    let bytes = 0;
    for (const frame of frames) {
      // Entries that the local room has not written yet are written to all its members together.
      if (frame.offset > localRoom.flushed || (entries.length > 0 && bytes + frame.bytes > MAX_PAGE_BYTES)) break;
      bytes += frame.bytes;
      entries.push(textFor(frame, identity?.id));
      cursor = frame.offset;
    }
    const membership = new Membership(connection, localRoom, { cursor, epoch: localRoom.epoch, standing, link });
    localRooms.addMember(membership);
    if (resumption.keep !== undefined)
      connection.sendReply(`{"t":"reset","room":"${localRoom.id}","epoch":${localRoom.epoch},"keep":${resumption.keep}}`);
    const members = this.#options.presence.count(localRoom.id);
    membership.count = members;
    const settings = settingsText(rules.settingsInForce(localRoom.id), standing.moderates === 'yes');
    const pinned = JSON.stringify(rules.pinnedMessage(localRoom.id) ?? null);
    connection.sendReply(
      `{"t":"joined","id":${JSON.stringify(id)},"room":"${localRoom.id}","channel":${JSON.stringify(info.slug ?? null)},"epoch":${localRoom.epoch},"offset":${cursor},"recovered":"${recovered}","entries":[${entries.join(',')}],"members":${members},"settings":${settings},"pinned":${pinned},"you":{${localRooms.youFields(membership)}}}`,
    );
    const onAir = this.#options.onAir.frameFor(localRoom.id, info.slug);
    if (onAir !== undefined) connection.sendReply(onAir);
    localRoom.advanceMember(membership);
    await this.#sendReactions(connection, room, frames);
  }

  /** Sends the reaction counts of these entries. Called after the entries were sent. */
  async #sendReactions(connection: ClientConnection, room: Room, frames: readonly EntryFrame[]): Promise<void> {
    const mids = frames.flatMap(({ type, mid }) => (type === 'msg' && mid !== undefined ? [mid] : []));
    if (mids.length === 0) return;
    try {
      const counts = await room.reactionCounts(mids);
      if (Object.keys(counts).length > 0) connection.sendReply(`{"t":"reacts","room":"${room.id}","counts":${JSON.stringify(counts)}}`);
    } catch (error) {
      // The client has the entries. It gets the counts with the next reaction.
      this.#options.log.debug({ event: 'chat.reactions_unreadable', room: room.id, error: messageOf(error) }, 'could not read reactions');
    }
  }

  async #renew(connection: ClientConnection, { id, token }: AuthFrame): Promise<void> {
    const { identity } = connection;
    if (!identity) throw new Refused('forbidden', 'This is a guest. Connect again with the token.');
    const fresh = await this.#options.authorization.identify(token).catch((error) => {
      if (error instanceof VezaError && error.code === 'forbidden') this.#options.endSession(connection, 'banned');
      throw error;
    });
    if (connection.state !== 'open') return;
    if (fresh.id !== identity.id) throw new Refused('forbidden', 'The token belongs to another account. Connect again to use it.');
    connection.renewIdentity(fresh);
    this.#options.onRenewed(connection);
    const expiresAt = fresh.expiresAtMs === undefined ? 'null' : Math.trunc(fresh.expiresAtMs);
    connection.sendReply(ok(id, `,"expiresAt":${expiresAt},"expiresInMs":${lastsMs(fresh.expiresAtMs, this.#options.clock.wallMs())}`));
    this.#options.localRooms.reviewConnection(connection);
  }

  #readerOf({ identity, address, serial }: ClientConnection): PageReader {
    return { id: identity?.id ?? serial, isGuest: identity === undefined, address: this.#options.groupOf(address) };
  }

  async #page(connection: ClientConnection, { id, room: name }: HistoryFrame | RangeFrame, query: EntryPageQuery): Promise<void> {
    const membership = this.#membership(connection, name);
    const { room } = membership.localRoom;
    const { pageLimits } = this.#options;
    const reader = this.#readerOf(connection);
    pageLimits.takePage(reader);
    const page = await room.readPage({ ...query, onRead: () => pageLimits.takeRead(reader) });
    // The member may have been removed during the wait.
    if (membership.index < 0) throw new Refused('not_joined', 'Join the room first.');
    const userId = connection.identity?.id;
    const entries = page.frames.map((frame) => textFor(frame, userId)).join(',');
    connection.sendReply(
      `{"t":"page","id":${JSON.stringify(id)},"room":"${room.id}","epoch":${page.epoch},"entries":[${entries}],"more":${page.more}}`,
    );
    await this.#sendReactions(connection, room, page.frames);
  }

  async #react(connection: ClientConnection, { id, room, mid, emoji, on }: ReactFrame): Promise<void> {
    const membership = this.#membership(connection, room);
    const { identity } = connection;
    if (!identity) throw new Refused('unauthorized', 'Sign in to react.');
    if (!identity.mayWrite) throw new Refused('forbidden', 'This API key only reads; make one with the scope "moderate".');
    if (this.#options.rules.timeoutUntilMs(membership.localRoom.id, identity.id, this.#options.clock.wallMs()) !== undefined)
      throw new Refused('forbidden', TIMED_OUT_REASON);
    await membership.localRoom.room.setReaction(identity.id, mid, emoji, on);
    connection.sendReply(ok(id));
  }

  async #moderate(connection: ClientConnection, { id, room, action, args }: ModFrame): Promise<void> {
    const { localRoom, standing } = this.#membership(connection, room);
    const { identity, address } = connection;
    if (!identity) throw new Refused('unauthorized', 'Sign in to moderate.');
    if (standing.moderates === 'second-factor')
      throw new Refused('second_factor_missing', 'Moderating needs a second factor: sign in with it.');
    if (standing.moderates === 'no') throw new Refused('forbidden', 'Only moderators of this room may do that.');
    const { id: userId, name, actor } = identity;
    const moderator = { id: userId, name, role: standing.role, unproven: false, actor, address };
    const result = await this.#options.moderate(localRoom.room.info, moderator, { ...args, action });
    connection.sendReply(ok(id, `,"result":${JSON.stringify(result)}`));
  }

  /** Publishes a message and answers the client. Never rejects. */
  async publishMessage(connection: ClientConnection, frame: PubFrame): Promise<void> {
    if (!connection.beginPublish()) {
      connection.sendReply(errorFrame(frame.id, 'busy', `${MAX_IN_FLIGHT} messages are not answered yet.`, RETRY_MS));
      return;
    }
    try {
      connection.sendReply(await this.#publish(connection, frame));
    } catch (error) {
      connection.sendReply(this.#errorFor(frame.id, error));
    } finally {
      connection.endPublish();
    }
  }

  async #publish(connection: ClientConnection, { id, room: name, key, body }: PubFrame): Promise<string> {
    const { localRoom, standing } = this.#membership(connection, name);
    const { identity, account, address } = connection;
    if (!identity || !account) throw new Refused('unauthorized', 'Sign in to write.');
    if (!identity.mayWrite) throw new Refused('forbidden', 'This API key only reads; make one with the scope "moderate".');
    let author: Author = { id: identity.id, name: identity.name, role: standing.role, address };
    if (this.#options.rules.settingsInForce(localRoom.id).followersMin > 0) {
      const sinceMs = await account.createdAtMs(identity);
      if (sinceMs !== undefined) author = { ...author, sinceMs };
    }
    const outcome = await localRoom.room.publishMessage({ author, key, body });
    const head = `"id":${JSON.stringify(id)}`;
    if (outcome.kind === 'held') return `{"t":"held",${head},"mid":"${outcome.mid}"}`;
    if (outcome.kind === 'refused') {
      if (outcome.retryMs === undefined)
        return `{"t":"refused",${head},"mid":"${outcome.mid}","code":${JSON.stringify(outcome.code)},"reason":${JSON.stringify(outcome.reason)}}`;
      const code = outcome.code in ERROR_CODES ? (outcome.code as ChatErrorCode) : 'busy';
      return errorFrame(id, code, outcome.reason, outcome.retryMs);
    }
    const commit = await outcome.committed;
    if (commit.kind === 'resend')
      return errorFrame(id, 'resend', 'A new epoch has withdrawn the message: send it again under the same key.', 0);
    return `{"t":"ack",${head},"room":"${localRoom.id}","mid":"${outcome.mid}","epoch":${commit.epoch},"offset":${commit.offset},"dup":${commit.dup}}`;
  }
}

/**
 * The public settings as JSON, encoded once per settings object. A room whose settings change gets
 * a new object.
 */
const settingsTexts = [new WeakMap<object, string>(), new WeakMap<object, string>()] as const;

function settingsText(settings: object, isForModerators: boolean): string {
  const texts = settingsTexts[isForModerators ? 1 : 0];
  let text = texts.get(settings);
  if (text === undefined) {
    text = JSON.stringify(isForModerators ? settings : publicPart(settings));
    texts.set(settings, text);
  }
  return text;
}

const ok = (id: string, more = '') => `{"t":"ok","id":${JSON.stringify(id)}${more}}`;
