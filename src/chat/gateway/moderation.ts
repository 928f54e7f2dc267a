import type { RoomRole } from '../protocol/protocol.js';
import type { Author, RoomInfo } from '../rooms/room.js';

/** The rules of rooms as far as the gateway needs them. `RoomRules` implements it. */
export interface GatewayRules {
  /** Resolves when the room's rules are loaded. Call `releaseRoom` once for each call. */
  openRoom(roomId: string): Promise<void>;
  releaseRoom(roomId: string): void;
  /**
   * Why the author may not be in the room; undefined: the author may. `author` undefined: a guest.
   */
  readRefusalOf(
    roomId: string,
    author: Pick<Author, 'id' | 'role' | 'address'> | undefined,
    nowMs: number,
  ): { readonly code: string; readonly reason: string; readonly untilMs?: number } | undefined;
  /** When the user's timeout ends; undefined: the user has none. */
  timeoutUntilMs(roomId: string, userId: string, nowMs: number): number | undefined;
  /** The number of warnings that the user has not seen. */
  unseenWarnings(roomId: string, userId: string): number;
  /** The settings as `joined` shows them. */
  settingsInForce(roomId: string): { readonly followersMin: number };
  pinnedMessage(roomId: string): unknown;
  listen(listener: { onPeople(roomId: string, userIds: readonly string[]): void; onRoom(roomId: string): void }): () => void;
}

/** The sender of a `mod` frame. */
interface FrameModerator {
  readonly id: string;
  readonly name: string;
  readonly role: RoomRole;
  /** True: with a second factor the sender would have a higher role. */
  readonly unproven: boolean;
  readonly actor: string;
  readonly address: string;
}

/**
 * Carries out a `mod` frame. Resolves to the `result` of the answer. Rejects with a `VezaError`.
 */
export type Moderate = (room: RoomInfo, moderator: FrameModerator, frame: Readonly<Record<string, unknown>>) => Promise<object>;
