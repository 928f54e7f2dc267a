import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { Presence } from '../rooms/presence.js';
import type { Room, RoomInfo } from '../rooms/room.js';
import type { ClientConnection } from './connection.js';
import type { ChannelAccess, ChannelStanding, ChatAuthorization, GatewayRules } from './doors.js';
import { type AudienceHost, type DeliveryCounters, type Membership, RoomAudience } from './hub.js';

export interface AudiencesOptions {
  readonly rooms: { open(roomId: string): Promise<Room> };
  readonly doors: ChatAuthorization;
  readonly rules: GatewayRules;
  readonly presence: Presence;
  readonly clock: Clock;
  readonly log: Log;
}

/** A room that nobody is in any more is let go after that: people come back. */
const IDLE_MS = 10_000;

/** Who is in which room, in this process: rooms are opened with their first member and let go after their last. */
export class Audiences {
  readonly #options: AudiencesOptions;
  readonly #host: Omit<AudienceHost, 'counters'>;
  readonly #counters: DeliveryCounters;
  readonly #hubs = new Map<string, RoomAudience>();
  readonly #opening = new Map<string, Promise<RoomAudience>>();
  /** Changes of channels that were told here; who asks what a channel is like notes it before. */
  changes = 0;
  /** Without a member, since when. */
  readonly #idle = new Map<RoomAudience, number>();

  constructor(options: AudiencesOptions, host: Omit<AudienceHost, 'counters'>, counters: DeliveryCounters) {
    this.#options = options;
    this.#host = host;
    this.#counters = counters;
  }

  get size(): number {
    return this.#hubs.size;
  }

  hub(roomId: string): RoomAudience | undefined {
    return this.#hubs.get(roomId);
  }

  /** Who may what in the room's channel; undefined: it has to be asked. */
  access(roomId: string): ChannelAccess | undefined {
    const hub = this.#hubs.get(roomId);
    return hub?.isStale === false ? hub.access : undefined;
  }

  /**
   * Opens the room if nobody has; `asked` is `changes` as it was before `access` was read. Rejects as `Rooms.open` does. It stays open for a while
   * though nobody enters.
   */
  async open(info: RoomInfo, access: ChannelAccess, asked: number): Promise<RoomAudience> {
    const known = this.#hubs.get(info.id);
    if (known) {
      if (this.#idle.has(known)) this.#idle.set(known, this.#host.nowMs());
      return known;
    }
    let opening = this.#opening.get(info.id);
    if (!opening) {
      opening = this.#open(info, access, asked).finally(() => this.#opening.delete(info.id));
      this.#opening.set(info.id, opening);
    }
    return opening;
  }

  async #open(info: RoomInfo, access: ChannelAccess, asked: number): Promise<RoomAudience> {
    const { rooms, rules } = this.#options;
    await rules.open(info.id);
    let room: Room;
    try {
      room = await rooms.open(info.id);
    } catch (error) {
      rules.release(info.id);
      throw error;
    }
    const { nowMs, wallMs, flushSoon } = this.#host;
    const host = this.#host;
    const hub = new RoomAudience(room, access, {
      counters: this.#counters,
      nowMs: nowMs.bind(host),
      wallMs: wallMs.bind(host),
      flushSoon: flushSoon.bind(host),
    });
    this.#hubs.set(info.id, hub);
    this.#idle.set(hub, this.#host.nowMs());
    // A change that was told meanwhile was told to nobody.
    if (asked !== this.changes && info.channelId !== undefined) await this.#reread(hub, info.channelId);
    return hub;
  }

  enter(membership: Membership): void {
    const { connection, hub } = membership;
    connection.enter(membership);
    this.#idle.delete(hub);
    this.#options.presence.enter(hub.id, connection.person);
  }

  /** `lost`: the connection is gone, and may come back in a moment. */
  leave(connection: ClientConnection, membership: Membership, lost = false): void {
    const { hub } = membership;
    if (membership.index < 0) return;
    connection.leave(membership);
    this.#options.presence.leave(hub.id, connection.person, lost);
    if (hub.members.length === 0) this.#idle.set(hub, this.#host.nowMs());
  }

  putOut(connection: ClientConnection, membership: Membership, code: 'banned' | 'deleted' | 'private', untilMs?: number): void {
    this.leave(connection, membership);
    const until = untilMs !== undefined && Number.isFinite(untilMs) ? `,"until":${Math.trunc(untilMs)}` : '';
    connection.send(`{"t":"left","room":"${membership.hub.id}","code":"${code}"${until}}`);
  }

  /** The room is no more. */
  ended(hub: RoomAudience, code: string): void {
    for (const membership of [...hub.members])
      this.putOut(membership.connection, membership, code === 'banned' || code === 'private' ? code : 'deleted');
    this.#letGo(hub);
  }

  /** What he is in a room, as `joined` and `you` say it. */
  you({ hub, standing, connection }: Pick<Membership, 'hub' | 'standing' | 'connection'>): string {
    const { person } = connection;
    const timeoutUntilMs = person && this.#options.rules.timeoutOf(hub.id, person.id, this.#host.wallMs());
    const timeout = timeoutUntilMs === undefined || !Number.isFinite(timeoutUntilMs) ? 'null' : Math.trunc(timeoutUntilMs);
    const warnings = person ? this.#options.rules.warningsOf(hub.id, person.id) : 0;
    return `"role":"${standing.role}","write":${person?.mayWrite === true},"moderate":"${standing.moderates}","timeoutUntil":${timeout},"warnings":${warnings}`;
  }

  /** Something about these channels is told to all who are in their rooms; who cannot take it now goes without. */
  tellChannels(slugs: ReadonlySet<string>, frameOf: (roomId: string, slug: string) => string | undefined): void {
    for (const hub of this.#hubs.values()) {
      const { slug } = hub.room.info;
      const frame = slug !== undefined && slugs.has(slug) ? frameOf(hub.id, slug) : undefined;
      if (frame !== undefined) hub.broadcast(frame);
    }
  }

  /** Every two seconds, of a connection that reads. */
  check(connection: ClientConnection): void {
    const { memberships } = connection;
    // From the end: whoever is put out is taken from among them.
    for (let index = memberships.length - 1; index >= 0; index--) {
      const membership = memberships[index];
      if (!membership) continue;
      // It may have ended, or its key was thrown away.
      if (membership.link !== undefined && !this.standing(membership.hub, connection, membership.link)) this.#reviewOne(membership);
      else if (membership.cursor < membership.hub.flushed) membership.hub.advance(membership);
    }
  }

  /** Asks again for what could not be read, and lets go of what nobody has come back to. */
  tidy(): void {
    const beforeMs = this.#host.nowMs() - IDLE_MS;
    for (const [hub, sinceMs] of this.#idle) if (sinceMs <= beforeMs) this.#letGo(hub);
    for (const hub of this.#hubs.values()) {
      hub.retry();
      if (hub.isStale && hub.room.info.channelId !== undefined) void this.#reread(hub, hub.room.info.channelId);
    }
  }

  /** Bans, timeouts and modes of the room are others now: whoever may not be here goes, the others are told what they are. */
  review(roomId: string): void {
    const hub = this.#hubs.get(roomId);
    if (hub) for (const membership of [...hub.members]) this.#reviewOne(membership);
  }

  reviewIn(connection: ClientConnection, roomId: string): void {
    const membership = connection.membership(roomId);
    if (membership) this.#reviewOne(membership, true);
  }

  /** Of a new token: everywhere he is. */
  reviewAll(connection: ClientConnection): void {
    for (const membership of [...connection.memberships]) this.#reviewOne(membership);
  }

  /** Undefined: the room is not there for him. */
  standing(hub: { readonly access: ChannelAccess }, connection: ClientConnection, link: string | undefined): ChannelStanding | undefined {
    const { access } = hub;
    const own = access.standing(connection.person);
    if (own) return own;
    const untilMs = link === undefined ? undefined : access.linkUntilMs(link, connection);
    return untilMs !== undefined && untilMs > this.#host.wallMs() ? { role: 'viewer', moderates: 'no' } : undefined;
  }

  #reviewOne(membership: Membership, isAboutHim = false): void {
    const { connection, hub } = membership;
    const standing = this.standing(hub, connection, membership.link);
    if (!standing) {
      this.putOut(connection, membership, 'private');
      return;
    }
    const { person, address } = connection;
    const nowMs = this.#host.wallMs();
    const refusal = this.#options.rules.mayRead(hub.id, person && { id: person.id, role: standing.role, address }, nowMs);
    // What is not known yet is looked at when it is.
    if (refusal && refusal.code !== 'busy') {
      this.putOut(connection, membership, refusal.code === 'banned' ? 'banned' : 'private', refusal.untilMs);
      return;
    }
    const isOther = standing.role !== membership.standing.role || standing.moderates !== membership.standing.moderates;
    membership.standing = standing;
    if (isOther || isAboutHim) connection.send(`{"t":"you","room":"${hub.id}",${this.you(membership)}}`);
  }

  async channelChanged(channelId: string): Promise<void> {
    this.changes++;
    for (const hub of [...this.#hubs.values()]) if (hub.room.info.channelId === channelId) await this.#reread(hub, channelId);
  }

  async everythingChanged(): Promise<void> {
    this.changes++;
    for (const hub of [...this.#hubs.values()]) if (hub.room.info.channelId !== undefined) await this.#reread(hub, hub.room.info.channelId);
  }

  async #reread(hub: RoomAudience, channelId: string): Promise<void> {
    try {
      const access = await this.#options.doors.channel(channelId);
      if (!access) {
        this.ended(hub, 'deleted');
        return;
      }
      hub.access = access;
      hub.isStale = false;
      this.review(hub.id);
    } catch (error) {
      hub.isStale = true;
      this.#options.log.warn({ room: hub.id, error: messageOf(error) }, 'who may be in a chat room could not be read again');
    }
  }

  #letGo(hub: RoomAudience): void {
    this.#idle.delete(hub);
    if (this.#hubs.get(hub.id) !== hub) return;
    this.#hubs.delete(hub.id);
    hub.room.remove(hub);
    hub.room.release();
    this.#options.rules.release(hub.id);
  }

  stop(): void {
    for (const hub of [...this.#hubs.values()]) this.#letGo(hub);
  }
}
