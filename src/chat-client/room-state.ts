import type { TimelineEvent } from './timeline.js';

/**
 * | state     | what it means                                       | may become              |
 * |-----------|-----------------------------------------------------|-------------------------|
 * | `joining` | asked for, or will be with the next session         | joined, refused, left   |
 * | `joined`  | the view follows the log                            | joining, left           |
 * | `refused` | not there, or not allowed                           | joining, by `join()`    |
 * | `left`    | expelled: banned, deleted, private                  | joining, by `join()`    |
 */
export type RoomState = 'joining' | 'joined' | 'refused' | 'left';

export type RoomEvent =
  | TimelineEvent
  /** State, settings, members, pin or countdown have changed: read them from the room. */
  | { readonly type: 'state' }
  /** `outgoing` has changed. */
  | { readonly type: 'outgoing' }
  /** These entries are not in the view and will not come: there were too many to fetch (`history` has them), or the server let them go. */
  | { readonly type: 'missing'; readonly from: number; readonly to: number };
