import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { Presence } from '../rooms/presence/presence.js';
import type { Room, RoomInfo } from '../rooms/room.js';
import type { ChannelAccess, ChannelStanding, ChatAuthorization } from './authorization.js';
import type { ClientConnection } from './connection.js';
import { type DeliveryCounters, LocalRoom, type LocalRoomHost } from './local-room.js';
import type { Membership } from './membership.js';
import type { GatewayRules } from './moderation.js';

export interface LocalRoomsOptions {
  readonly rooms: { open(roomId: string): Promise<Room> };
  readonly authorization: ChatAuthorization;
  readonly rules: GatewayRules;
  readonly presence: Presence;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * A local room without members is closed after this long. Until then clients that come back find it
 * open.
 */
const IDLE_MS = 10_000;

/**
 * The local rooms of this process. A room is opened for its first member and closed after its last.
 */
export class LocalRooms {
  readonly #options: LocalRoomsOptions;
  readonly #host: Omit<LocalRoomHost, 'counters'>;
  readonly #counters: DeliveryCounters;
  readonly #rooms = new Map<string, LocalRoom>();
  readonly #opening = new Map<string, Promise<LocalRoom>>();
  /**
   * The number of channel changes so far. A caller of `openRoom` notes it before reading the
   * channel's access.
   */
  changes = 0;
  /** Local rooms without a member, and since when (monotonic). */
  readonly #idle = new Map<LocalRoom, number>();

  constructor(options: LocalRoomsOptions, host: Omit<LocalRoomHost, 'counters'>, counters: DeliveryCounters) {
    this.#options = options;
    this.#host = host;
    this.#counters = counters;
  }

  get size(): number {
    return this.#rooms.size;
  }

  roomOf(roomId: string): LocalRoom | undefined {
    return this.#rooms.get(roomId);
  }

  /** The access to the room's channel; undefined: it has to be read. */
  accessOf(roomId: string): ChannelAccess | undefined {
    const localRoom = this.#rooms.get(roomId);
    return localRoom?.isStale === false ? localRoom.access : undefined;
  }

  /**
   * Opens the room unless it is open. Without a member it stays open for `IDLE_MS`. `changesBefore`
   * is the value of `changes` before `access` was read. Rejects as `Rooms.open` does.
   */
  async openRoom(info: RoomInfo, access: ChannelAccess, changesBefore: number): Promise<LocalRoom> {
    const known = this.#rooms.get(info.id);
    if (known) {
      if (this.#idle.has(known)) this.#idle.set(known, this.#host.nowMs());
      return known;
    }
    let opening = this.#opening.get(info.id);
    if (!opening) {
      opening = this.#open(info, access, changesBefore).finally(() => this.#opening.delete(info.id));
      this.#opening.set(info.id, opening);
    }
    return opening;
  }

  async #open(info: RoomInfo, access: ChannelAccess, changesBefore: number): Promise<LocalRoom> {
    const { rooms, rules } = this.#options;
    await rules.openRoom(info.id);
    let room: Room;
    try {
      room = await rooms.open(info.id);
    } catch (error) {
      rules.releaseRoom(info.id);
      throw error;
    }
    const { nowMs, wallMs, scheduleRoom } = this.#host;
    const host = this.#host;
    const localRoom = new LocalRoom(room, access, {
      counters: this.#counters,
      nowMs: nowMs.bind(host),
      wallMs: wallMs.bind(host),
      scheduleRoom: scheduleRoom.bind(host),
    });
    this.#rooms.set(info.id, localRoom);
    this.#idle.set(localRoom, this.#host.nowMs());
    // The channel changed while the local room was being opened, and the change did not reach this
    // room.
    if (changesBefore !== this.changes && info.channelId !== undefined) await this.#reread(localRoom, info.channelId);
    return localRoom;
  }

  addMember(membership: Membership): void {
    const { connection, localRoom } = membership;
    connection.addMembership(membership);
    this.#idle.delete(localRoom);
    this.#options.presence.enterRoom(localRoom.id, connection.identity);
  }

  /**
   * Removes a member. `lost`: the connection broke, and its client may come back within seconds.
   */
  removeMember(connection: ClientConnection, membership: Membership, lost = false): void {
    const { localRoom } = membership;
    if (membership.index < 0) return;
    connection.removeMembership(membership);
    this.#options.presence.leaveRoom(localRoom.id, connection.identity, lost);
    if (localRoom.members.length === 0) this.#idle.set(localRoom, this.#host.nowMs());
  }

  expelMember(connection: ClientConnection, membership: Membership, code: 'banned' | 'deleted' | 'private', untilMs?: number): void {
    this.removeMember(connection, membership);
    const until = untilMs !== undefined && Number.isFinite(untilMs) ? `,"until":${Math.trunc(untilMs)}` : '';
    connection.sendReply(`{"t":"left","room":"${membership.localRoom.id}","code":"${code}"${until}}`);
  }

  /** The room has ended: removes its members and closes it. */
  closeRoom(localRoom: LocalRoom, code: string): void {
    for (const membership of [...localRoom.members])
      this.expelMember(membership.connection, membership, code === 'banned' || code === 'private' ? code : 'deleted');
    this.#letGo(localRoom);
  }

  /** The JSON members of the `you` object, as `joined` and `you` carry them. */
  youFields({ localRoom, standing, connection }: Pick<Membership, 'localRoom' | 'standing' | 'connection'>): string {
    const { identity } = connection;
    const timeoutUntilMs = identity && this.#options.rules.timeoutUntilMs(localRoom.id, identity.id, this.#host.wallMs());
    const timeout = timeoutUntilMs === undefined || !Number.isFinite(timeoutUntilMs) ? 'null' : Math.trunc(timeoutUntilMs);
    const warnings = identity ? this.#options.rules.unseenWarnings(localRoom.id, identity.id) : 0;
    return `"role":"${standing.role}","write":${identity?.mayWrite === true},"moderate":"${standing.moderates}","timeoutUntil":${timeout},"warnings":${warnings}`;
  }

  /** Writes a frame to the members of these channels' rooms, except slow ones. */
  broadcastToChannels(slugs: ReadonlySet<string>, frameOf: (roomId: string, slug: string) => string | undefined): void {
    for (const localRoom of this.#rooms.values()) {
      const { slug } = localRoom.room.info;
      const frame = slug !== undefined && slugs.has(slug) ? frameOf(localRoom.id, slug) : undefined;
      if (frame !== undefined) localRoom.broadcast(frame);
    }
  }

  /**
   * Called every two seconds for each connection that is not slow. Ends memberships whose playback
   * link has ended, and retries failed reads.
   */
  checkMemberships(connection: ClientConnection): void {
    const { memberships } = connection;
    // In descending order, because removing a member removes it from this list.
    for (let index = memberships.length - 1; index >= 0; index--) {
      const membership = memberships[index];
      if (!membership) continue;
      if (membership.link !== undefined && !this.standingOf(membership.localRoom, connection, membership.link)) this.#reviewOne(membership);
      else if (membership.cursor < membership.localRoom.flushed) membership.localRoom.advanceMember(membership);
    }
  }

  /** Closes local rooms that have stayed empty, and retries failed reads. */
  releaseIdle(): void {
    const beforeMs = this.#host.nowMs() - IDLE_MS;
    for (const [localRoom, sinceMs] of this.#idle) if (sinceMs <= beforeMs) this.#letGo(localRoom);
    for (const localRoom of this.#rooms.values()) {
      localRoom.retryReading();
      if (localRoom.isStale && localRoom.room.info.channelId !== undefined) void this.#reread(localRoom, localRoom.room.info.channelId);
    }
  }

  /**
   * The room's rules have changed. Removes members that may no longer be there, and sends `you` to
   * those whose standing has changed.
   */
  reviewRoom(roomId: string): void {
    const localRoom = this.#rooms.get(roomId);
    if (localRoom) for (const membership of [...localRoom.members]) this.#reviewOne(membership);
  }

  /** The sanctions of this member have changed. */
  reviewMember(connection: ClientConnection, roomId: string): void {
    const membership = connection.membershipIn(roomId);
    if (membership) this.#reviewOne(membership, true);
  }

  /** The connection has a new token. Checks its standing in every room. */
  reviewConnection(connection: ClientConnection): void {
    for (const membership of [...connection.memberships]) this.#reviewOne(membership);
  }

  /** Returns undefined when the room does not exist for this connection. */
  standingOf(
    localRoom: { readonly access: ChannelAccess },
    connection: ClientConnection,
    link: string | undefined,
  ): ChannelStanding | undefined {
    const { access } = localRoom;
    const own = access.standingOf(connection.identity);
    if (own) return own;
    const untilMs = link === undefined ? undefined : access.linkValidUntilMs(link, connection);
    return untilMs !== undefined && untilMs > this.#host.wallMs() ? { role: 'viewer', moderates: 'no' } : undefined;
  }

  #reviewOne(membership: Membership, isAboutMember = false): void {
    const { connection, localRoom } = membership;
    const standing = this.standingOf(localRoom, connection, membership.link);
    if (!standing) {
      this.expelMember(connection, membership, 'private');
      return;
    }
    const { identity, address } = connection;
    const nowMs = this.#host.wallMs();
    const refusal = this.#options.rules.readRefusalOf(localRoom.id, identity && { id: identity.id, role: standing.role, address }, nowMs);
    // `busy`: the rules are still being read. `onRoom` is called when they are.
    if (refusal && refusal.code !== 'busy') {
      this.expelMember(connection, membership, refusal.code === 'banned' ? 'banned' : 'private', refusal.untilMs);
      return;
    }
    const hasChanged = standing.role !== membership.standing.role || standing.moderates !== membership.standing.moderates;
    membership.standing = standing;
    if (hasChanged || isAboutMember) connection.sendReply(`{"t":"you","room":"${localRoom.id}",${this.youFields(membership)}}`);
  }

  async rereadChannel(channelId: string): Promise<void> {
    this.changes++;
    for (const localRoom of [...this.#rooms.values()])
      if (localRoom.room.info.channelId === channelId) await this.#reread(localRoom, channelId);
  }

  async rereadEverything(): Promise<void> {
    this.changes++;
    for (const localRoom of [...this.#rooms.values()])
      if (localRoom.room.info.channelId !== undefined) await this.#reread(localRoom, localRoom.room.info.channelId);
  }

  async #reread(localRoom: LocalRoom, channelId: string): Promise<void> {
    try {
      const access = await this.#options.authorization.readAccess(channelId);
      if (!access) {
        this.closeRoom(localRoom, 'deleted');
        return;
      }
      localRoom.access = access;
      localRoom.isStale = false;
      this.reviewRoom(localRoom.id);
    } catch (error) {
      localRoom.isStale = true;
      this.#options.log.warn(
        { event: 'chat.access_unreadable', room: localRoom.id, error: messageOf(error) },
        'could not read the access to a chat room again',
      );
    }
  }

  #letGo(localRoom: LocalRoom): void {
    this.#idle.delete(localRoom);
    if (this.#rooms.get(localRoom.id) !== localRoom) return;
    this.#rooms.delete(localRoom.id);
    localRoom.room.removeListener(localRoom);
    localRoom.room.release();
    this.#options.rules.releaseRoom(localRoom.id);
  }

  stop(): void {
    for (const localRoom of [...this.#rooms.values()]) this.#letGo(localRoom);
  }
}
