import { call } from '../ui/session';

/** Number of decisions that wait for a moderator of the room. */
export interface ModerationQueueJson {
  readonly held: number;
  readonly appeals: number;
}

const POLL_MS = 10_000;
const watched = new Map<
  string,
  { latest: ModerationQueueJson | undefined; listeners: Set<(waiting: ModerationQueueJson) => void>; ask: () => void }
>();

/**
 * Calls the listener now and after every poll; all listeners of the page share one request. Returns
 * a function that polls at once.
 */
export function watchWaiting(slug: string, listener: (waiting: ModerationQueueJson) => void): () => void {
  let room = watched.get(slug);
  if (!room) {
    const made = {
      latest: undefined as ModerationQueueJson | undefined,
      listeners: new Set<(waiting: ModerationQueueJson) => void>(),
      ask: () => void ask(),
    };
    const ask = async () => {
      const found = await call<{ waiting: ModerationQueueJson | null }>('GET', `/rooms/${encodeURIComponent(slug)}`).catch(() => undefined);
      if (!found?.waiting) return;
      made.latest = found.waiting;
      for (const one of made.listeners) one(found.waiting);
    };
    setInterval(() => {
      if (document.visibilityState === 'visible') void ask();
    }, POLL_MS);
    document.addEventListener('visibilitychange', () => {
      if (document.visibilityState === 'visible') void ask();
    });
    watched.set(slug, made);
    room = made;
    void ask();
  }
  room.listeners.add(listener);
  if (room.latest) listener(room.latest);
  return room.ask;
}
