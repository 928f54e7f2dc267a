import type { TimelineEvent } from './timeline.js';

/**
 * The state of a room in the client.
 *
 * | state     | what it means                                       | may become              |
 * |-----------|-----------------------------------------------------|-------------------------|
 * | `joining` | `join` is sent, now or in the next session          | joined, refused, left   |
 * | `joined`  | the view follows the log                            | joining, left           |
 * | `refused` | the room does not exist or is not allowed           | joining, by `join()`    |
 * | `left`    | the server removed the client: banned, deleted, …   | joining, by `join()`    |
 */
export type RoomState = 'joining' | 'joined' | 'refused' | 'left';

export type RoomEvent =
  | TimelineEvent
  /**
   * The state, settings, members, pin or slow-mode countdown have changed: read them from the room.
   */
  | { readonly type: 'state' }
  /** `outgoing` has changed. */
  | { readonly type: 'outgoing' }
  /**
   * These entries will not be in the view: there are too many to fetch (`history` has them), or the
   * server has deleted them by age.
   */
  | { readonly type: 'missing'; readonly from: number; readonly to: number };
