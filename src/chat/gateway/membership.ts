import type { ChannelStanding } from './authorization.js';
import type { ClientConnection } from './connection.js';
import type { LocalRoom } from './local-room.js';

/** A connection's membership of a room. The local room moves its cursor. */
export class Membership {
  /** The index in `localRoom.members`. -1: the member has left. */
  index = -1;
  /** The offset of the last entry that was written to the connection. */
  cursor: number;
  /** The epoch that the client knows. */
  epoch: number;
  /** Monotonic: since when the client has needed entries. 0: it has them all. */
  behindSinceMs = 0;
  /** Entries for this member alone are being read. */
  isReading = false;
  standing: ChannelStanding;
  /** The member count that the client was sent last. */
  count: number | undefined = undefined;
  /** The playback link that the client joined with. The membership ends with the link. */
  readonly link: string | undefined;

  constructor(
    readonly connection: ClientConnection,
    readonly localRoom: LocalRoom,
    place: { cursor: number; epoch: number; standing: ChannelStanding; link: string | undefined },
  ) {
    this.cursor = place.cursor;
    this.epoch = place.epoch;
    this.standing = place.standing;
    this.link = place.link;
  }

  /** Whether the client has every entry that the local room has written. */
  get isAtHead(): boolean {
    return this.epoch === this.localRoom.epoch && this.cursor === this.localRoom.flushed;
  }
}
