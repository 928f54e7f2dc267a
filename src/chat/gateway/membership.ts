import type { ChannelStanding } from './authorization.js';
import type { ClientConnection } from './connection.js';
import type { LocalRoom } from './local-room.js';

/** A connection's place in a room. Its local room moves the cursor. */
export class Membership {
  /** Its index in `localRoom.members`; -1: it has left. */
  index = -1;
  /** The offset of the last entry that was written to the connection. */
  cursor: number;
  /** The epoch that the client knows. */
  epoch: number;
  /** Monotonic: since when the client has lacked entries; 0: it lacks none. */
  behindSinceMs = 0;
  /** Entries for this member alone are being read. */
  isReading = false;
  standing: ChannelStanding;
  /** The member count that the client was told last. */
  count: number | undefined = undefined;
  /** The playback link that the client joined with. When the link ends, the client has to leave. */
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
