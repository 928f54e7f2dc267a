import type { LineLog } from '../../runtime/bounded-log.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { publicPart } from '../moderation/settings.js';
import { type EntryFrame, textFor } from '../protocol/frame.js';
import {
  type AuthFrame,
  type ChatErrorCode,
  type ClientFrame,
  ERROR_CODES,
  errorFrame,
  type HistoryFrame,
  type JoinFrame,
  lastsMs,
  MAX_ENTRIES,
  MAX_IN_FLIGHT,
  MAX_PAGE_BYTES,
  MAX_ROOMS,
  type ModFrame,
  type PubFrame,
  type RangeFrame,
  type ReactFrame,
} from '../protocol/protocol.js';
import type { OnAirFrames } from '../rooms/on-air.js';
import { type PageLimits, type PageReader, PagesLimited } from '../rooms/page-limits.js';
import type { Presence } from '../rooms/presence.js';
import { type Author, type PageQuery, type Resumption, type Room, type RoomInfo, TIMED_OUT_REASON } from '../rooms/room.js';
import type { Audiences } from './audiences.js';
import type { ClientConnection } from './connection.js';
import type { ChatAuthorization, GatewayRules, Moderate } from './doors.js';
import { Membership } from './hub.js';

export interface RequestsOptions {
  readonly rooms: { find(idOrSlug: string): Promise<RoomInfo | undefined> };
  readonly doors: ChatAuthorization;
  readonly rules: GatewayRules;
  readonly moderate: Moderate;
  readonly presence: Presence;
  readonly clock: Clock;
  readonly log: Log;
  readonly failureLog: LineLog;
  readonly audiences: Audiences;
  readonly pageLimits: PageLimits;
  readonly groupOf: (address: string) => string;
  readonly onAir: OnAirFrames;
  readonly sessionEnded: (connection: ClientConnection, why: 'banned' | 'ended') => void;
  /** He has a fresh token. */
  readonly renewed: (connection: ClientConnection) => void;
}

/** Who was away for more entries gets the newest, and fetches the rest when he wants it. */
export const MAX_RESUMED = 1000;
/** Nobody's: asked about when there is no such room, so that it takes as long as one that may not be seen. */
const NO_CHANNEL = '00000000-0000-4000-8000-000000000000';
const AGAIN_MS = 1000;

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

/** What clients ask for, and what they are answered. */
export class Requests {
  readonly #options: RequestsOptions;
  /** Joins that are under way. */
  readonly #joins = new WeakMap<ClientConnection, Promise<unknown>>();

  constructor(options: RequestsOptions) {
    this.#options = options;
  }

  /** Resolves as `join`, which a `leave` that comes after it waits for. */
  async #noted(connection: ClientConnection, join: Promise<void>): Promise<void> {
    const all = Promise.allSettled([this.#joins.get(connection), join]);
    this.#joins.set(connection, all);
    try {
      await join;
    } finally {
      if (this.#joins.get(connection) === all) this.#joins.delete(connection);
    }
  }

  /** Never rejects. */
  async answer(connection: ClientConnection, frame: Exclude<ClientFrame, { t: 'hello' | 'pub' }>): Promise<void> {
    try {
      switch (frame.t) {
        case 'join':
          return await this.#noted(connection, this.#join(connection, frame));
        case 'leave':
          // What was asked for before it comes first, or who has left would be in the room.
          await this.#joins.get(connection);
          this.#options.audiences.leave(connection, this.#membership(connection, frame.room));
          return connection.send(ok(frame.id));
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
      connection.send(this.#errorFor(frame.id, error));
    }
  }

  #errorFor(id: string, error: unknown): string {
    if (error instanceof Refused) return errorFrame(id, error.code, error.message, error.retryMs);
    if (error instanceof VezaError) {
      const code = error.code === 'payload_too_large' ? 'too_long' : error.code;
      if (error instanceof PagesLimited) return errorFrame(id, 'rate_limited', error.message, error.retryMs);
      const isAway = code === 'busy' || code === 'unavailable' || code === 'rate_limited';
      if (code in ERROR_CODES) return errorFrame(id, code as ChatErrorCode, error.message, isAway ? AGAIN_MS : undefined);
    }
    this.#options.failureLog.error({ error: messageOf(error), stack: (error as Error)?.stack }, 'a chat request failed');
    return errorFrame(id, 'internal', 'Something went wrong here; it is in the log of the service.');
  }

  #membership(connection: ClientConnection, roomOrSlug: string): Membership {
    for (const membership of connection.memberships)
      if (membership.hub.id === roomOrSlug || membership.hub.room.info.slug === roomOrSlug) return membership;
    throw new Refused('not_joined', 'Join the room first.');
  }

  async #join(connection: ClientConnection, { id, room: idOrSlug, since, link }: JoinFrame): Promise<void> {
    const { rooms, doors, audiences, rules, clock } = this.#options;
    const info = idOrSlug === '' ? undefined : await rooms.find(idOrSlug);
    const { changes } = audiences;
    const access = (info && audiences.access(info.id)) ?? (await doors.channel(info?.channelId ?? NO_CHANNEL));
    if (!info?.channelId || !access) throw notFound();
    if (!audiences.standing({ access }, connection, link)) throw notFound();

    this.#options.pageLimits.takeJoin(connection.serial);
    const hub = await audiences.open(info, access, changes);
    const { room } = hub;
    let resumption: Resumption;
    let frames: readonly EntryFrame[];
    let { recovered } = {} as Partial<Resumption>;
    for (;;) {
      const { generation } = hub;
      resumption = await room.resume(since);
      recovered = resumption.recovered;
      let from = resumption.cursor;
      if (room.head - from > MAX_RESUMED) {
        from = room.head - MAX_ENTRIES;
        if (recovered === 'full') recovered = 'partial';
      }
      const found = await room.after(from, MAX_ENTRIES);
      if (generation !== hub.generation) continue;
      resumption = { ...resumption, cursor: found === undefined ? room.floor : from };
      if (found === undefined && recovered === 'full') recovered = 'partial';
      frames = found ?? [];
      break;
    }

    // From here to the end nothing waits: who is let in now has missed nothing.
    if (connection.phase !== 'open') return;
    const standing = audiences.standing(hub, connection, link);
    if (!standing || hub.closedAs !== undefined || audiences.hub(hub.id) !== hub) throw notFound();
    const { person, address } = connection;
    const refusal = rules.mayRead(hub.id, person && { id: person.id, role: standing.role, address }, clock.wallMs());
    if (refusal) {
      const code = refusal.code in ERROR_CODES ? (refusal.code as ChatErrorCode) : 'forbidden';
      throw new Refused(code, refusal.reason, code === 'busy' ? AGAIN_MS : undefined);
    }
    const before = connection.membership(hub.id);
    if (before) audiences.leave(connection, before);
    else if (connection.memberships.length >= MAX_ROOMS)
      throw new Refused('too_many_rooms', `A connection has at most ${MAX_ROOMS} rooms.`);
    hub.flush();
    const entries: string[] = [];
    let { cursor } = resumption;
    let bytes = 0;
    for (const frame of frames) {
      // What the audience has not got yet comes to all of them at once.
      if (frame.offset > hub.flushed || (entries.length > 0 && bytes + frame.bytes > MAX_PAGE_BYTES)) break;
      bytes += frame.bytes;
      entries.push(textFor(frame, person?.id));
      cursor = frame.offset;
    }
    const membership = new Membership(connection, hub, { cursor, epoch: hub.epoch, standing, link });
    audiences.enter(membership);
    if (resumption.keep !== undefined) connection.send(`{"t":"reset","room":"${hub.id}","epoch":${hub.epoch},"keep":${resumption.keep}}`);
    const members = this.#options.presence.count(hub.id);
    membership.count = members;
    const settings = settingsText(rules.inForce(hub.id), standing.moderates === 'yes');
    const pinned = JSON.stringify(rules.pinned(hub.id) ?? null);
    connection.send(
      `{"t":"joined","id":${JSON.stringify(id)},"room":"${hub.id}","channel":${JSON.stringify(info.slug ?? null)},"epoch":${hub.epoch},"offset":${cursor},"recovered":"${recovered}","entries":[${entries.join(',')}],"members":${members},"settings":${settings},"pinned":${pinned},"you":{${audiences.you(membership)}}}`,
    );
    const onAir = this.#options.onAir.frame(hub.id, info.slug);
    if (onAir !== undefined) connection.send(onAir);
    hub.advance(membership);
    await this.#tellReactions(connection, room, frames);
  }

  /** Counts of those that have any, behind the entries themselves. */
  async #tellReactions(connection: ClientConnection, room: Room, frames: readonly EntryFrame[]): Promise<void> {
    const mids = frames.flatMap(({ type, mid }) => (type === 'msg' && mid !== undefined ? [mid] : []));
    if (mids.length === 0) return;
    try {
      const counts = await room.reactions(mids);
      if (Object.keys(counts).length > 0) connection.send(`{"t":"reacts","room":"${room.id}","counts":${JSON.stringify(counts)}}`);
    } catch (error) {
      // The entries were given; the counts come with the next reaction.
      this.#options.log.debug({ room: room.id, error: messageOf(error) }, 'reactions could not be read');
    }
  }

  async #renew(connection: ClientConnection, { id, token }: AuthFrame): Promise<void> {
    const { person } = connection;
    if (!person) throw new Refused('forbidden', 'This is a guest. Connect again with the token.');
    const fresh = await this.#options.doors.who(token).catch((error) => {
      if (error instanceof VezaError && error.code === 'forbidden') this.#options.sessionEnded(connection, 'banned');
      throw error;
    });
    if (connection.phase !== 'open') return;
    if (fresh.id !== person.id) throw new Refused('forbidden', 'The token is of somebody else. Connect again with it.');
    connection.person = fresh;
    connection.expiresAtMs = fresh.expiresAtMs ?? Number.POSITIVE_INFINITY;
    this.#options.renewed(connection);
    const expiresAt = fresh.expiresAtMs === undefined ? 'null' : Math.trunc(fresh.expiresAtMs);
    connection.send(ok(id, `,"expiresAt":${expiresAt},"expiresInMs":${lastsMs(fresh.expiresAtMs, this.#options.clock.wallMs())}`));
    this.#options.audiences.reviewAll(connection);
  }

  #readerOf({ person, address, serial }: ClientConnection): PageReader {
    return { id: person?.id ?? serial, isGuest: person === undefined, address: this.#options.groupOf(address) };
  }

  async #page(connection: ClientConnection, { id, room: name }: HistoryFrame | RangeFrame, query: PageQuery): Promise<void> {
    const membership = this.#membership(connection, name);
    const { room } = membership.hub;
    const { pageLimits } = this.#options;
    const reader = this.#readerOf(connection);
    pageLimits.takePage(reader);
    const page = await room.page({ ...query, onRead: () => pageLimits.takeRead(reader) });
    // He may have been put out meanwhile.
    if (membership.index < 0) throw new Refused('not_joined', 'Join the room first.');
    const userId = connection.person?.id;
    const entries = page.frames.map((frame) => textFor(frame, userId)).join(',');
    connection.send(
      `{"t":"page","id":${JSON.stringify(id)},"room":"${room.id}","epoch":${page.epoch},"entries":[${entries}],"more":${page.more}}`,
    );
    await this.#tellReactions(connection, room, page.frames);
  }

  async #react(connection: ClientConnection, { id, room, mid, emoji, on }: ReactFrame): Promise<void> {
    const membership = this.#membership(connection, room);
    const { person } = connection;
    if (!person) throw new Refused('unauthorized', 'Sign in to react.');
    if (!person.mayWrite) throw new Refused('forbidden', 'This API key only reads; make one with the scope "moderate".');
    if (this.#options.rules.timeoutOf(membership.hub.id, person.id, this.#options.clock.wallMs()) !== undefined)
      throw new Refused('forbidden', TIMED_OUT_REASON);
    await membership.hub.room.react(person.id, mid, emoji, on);
    connection.send(ok(id));
  }

  async #moderate(connection: ClientConnection, { id, room, action, args }: ModFrame): Promise<void> {
    const { hub, standing } = this.#membership(connection, room);
    const { person, address } = connection;
    if (!person) throw new Refused('unauthorized', 'Sign in to moderate.');
    if (standing.moderates === 'second-factor')
      throw new Refused('second_factor_missing', 'Moderating needs a second factor: sign in with it.');
    if (standing.moderates === 'no') throw new Refused('forbidden', 'Only moderators of this room may do that.');
    const { id: userId, name, actor } = person;
    const moderator = { id: userId, name, role: standing.role, unproven: false, actor, address };
    const result = await this.#options.moderate(hub.room.info, moderator, { ...args, action });
    connection.send(ok(id, `,"result":${JSON.stringify(result)}`));
  }

  /** Never rejects. */
  async publish(connection: ClientConnection, frame: PubFrame): Promise<void> {
    if (connection.inFlight >= MAX_IN_FLIGHT) {
      connection.send(errorFrame(frame.id, 'busy', `${MAX_IN_FLIGHT} messages are not answered yet.`, AGAIN_MS));
      return;
    }
    connection.inFlight++;
    try {
      connection.send(await this.#publish(connection, frame));
    } catch (error) {
      connection.send(this.#errorFor(frame.id, error));
    } finally {
      connection.inFlight--;
    }
  }

  async #publish(connection: ClientConnection, { id, room: name, key, body }: PubFrame): Promise<string> {
    const { hub, standing } = this.#membership(connection, name);
    const { person, account, address } = connection;
    if (!person || !account) throw new Refused('unauthorized', 'Sign in to write.');
    if (!person.mayWrite) throw new Refused('forbidden', 'This API key only reads; make one with the scope "moderate".');
    let author: Author = { id: person.id, name: person.name, role: standing.role, address };
    if (this.#options.rules.inForce(hub.id).followersMin > 0) {
      account.sinceMs ??= this.#options.doors.sinceMs(person).catch((error) => {
        account.sinceMs = undefined;
        throw error;
      });
      const sinceMs = await account.sinceMs;
      if (sinceMs !== undefined) author = { ...author, sinceMs };
    }
    const outcome = await hub.room.publish({ author, key, body });
    const head = `"id":${JSON.stringify(id)}`;
    if (outcome.kind === 'held') return `{"t":"held",${head},"mid":"${outcome.mid}"}`;
    if (outcome.kind === 'refused') {
      if (outcome.retryMs === undefined)
        return `{"t":"refused",${head},"mid":"${outcome.mid}","code":${JSON.stringify(outcome.code)},"reason":${JSON.stringify(outcome.reason)}}`;
      const code = outcome.code in ERROR_CODES ? (outcome.code as ChatErrorCode) : 'busy';
      return errorFrame(id, code, outcome.reason, outcome.retryMs);
    }
    const commit = await outcome.committed;
    if (commit.kind === 'resend') return errorFrame(id, 'resend', 'It was withdrawn by a new epoch: send it again under the same key.', 0);
    return `{"t":"ack",${head},"room":"${hub.id}","mid":"${outcome.mid}","epoch":${commit.epoch},"offset":${commit.offset},"dup":${commit.dup}}`;
  }
}

/** Made once: the settings of a room are another object when they have changed. */
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
