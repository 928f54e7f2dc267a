import { type Environment, environmentOf, randomKey } from './environment.js';
import { type ChatUser, type Frame, isRecord, textOf } from './frames.js';
import { type LinkState, SessionLink, type TokenSource } from './link.js';
import { ChatRoom, type RoomOptions } from './room.js';

export interface ChatClientOptions extends Partial<Environment>, RoomOptions {
  /** `wss://host/chat`. A function is called before each attempt to connect. */
  readonly url: string | (() => string);
  /**
   * Returns the user's token. Called before each session and before the token ends. Without it, or
   * when it returns undefined, the user is a guest, who only reads.
   */
  readonly token?: TokenSource;
  /** Up to 64 characters that name this program in the server's log. */
  readonly client?: string;
}

export type ClientEvent =
  | { readonly type: 'state'; readonly state: LinkState }
  /** The user of a new session; undefined: a guest. */
  | { readonly type: 'user'; readonly user: ChatUser | undefined };

/** Rooms that may be joined at a time. The server has the same limit. */
export const MOST_ROOMS = 20;

/**
 * A connection to Veza's chat that maintains itself: it reconnects, resumes every room at its
 * position, and sends unacknowledged messages again. See docs/chat-client.md.
 */
export class ChatClient {
  readonly #environment: Environment;
  readonly #options: RoomOptions;
  readonly #link: SessionLink;
  readonly #rooms = new Map<string, ChatRoom>();
  readonly #listeners = new Set<(event: ClientEvent) => void>();
  #userId: string | undefined;
  #hadSession = false;

  constructor(options: ChatClientOptions) {
    this.#environment = environmentOf(options);
    this.#options = options;
    this.#link = new SessionLink(
      { ...this.#environment, url: options.url, token: options.token, client: options.client },
      {
        onState: (state) => {
          if (state.state !== 'online') for (const room of this.#rooms.values()) room.offline();
          this.#emit({ type: 'state', state });
        },
        onWelcome: (user) => this.#welcome(user),
        onFrame: (frame) => this.#receive(frame),
      },
    );
  }

  get state(): LinkState {
    return this.#link.state;
  }

  /** Undefined: a guest, or the server has not said yet. */
  get user(): ChatUser | undefined {
    return this.#link.user;
  }

  /** The longest text of a message, in bytes of UTF-8. */
  get mostTextBytes(): number {
    return this.#link.limits.textBytes;
  }

  /** Adds a listener. Returns a function that removes it. */
  listen(listener: (event: ClientEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Connects, and reconnects from then on. A second call does nothing. */
  start(): void {
    this.#link.start();
  }

  /** Disconnects until the next `start`. Rooms and unsent messages are kept. */
  stop(): void {
    this.#link.stop();
  }

  /**
   * Reconnects at once instead of after the back-off. Call it when the network is back or the page
   * becomes visible.
   */
  wake(): void {
    this.#link.wake();
  }

  /** Begins a new session with a new token. Call it after somebody has signed in or out. */
  restart(): void {
    this.#link.restart();
  }

  /**
   * Returns the room with this name, which is joined in every session. The same name gives the same
   * room. Throws when there are `MOST_ROOMS` rooms.
   */
  join(name: string, options: RoomOptions = {}): ChatRoom {
    const known = this.#rooms.get(name);
    if (known) return known;
    if (this.#rooms.size >= MOST_ROOMS) throw new RangeError(`A connection has at most ${MOST_ROOMS} rooms.`);
    const link = this.#link;
    const { clock, random } = this.#environment;
    const room = new ChatRoom(
      name,
      {
        get isOnline() {
          return link.isOnline;
        },
        get pubsInFlight() {
          return link.limits.pubsInFlight;
        },
        get pace() {
          return link.limits.pace;
        },
        get textBytes() {
          return link.limits.textBytes;
        },
        get isGuest() {
          return link.user === undefined;
        },
        send: (frame) => link.send(frame),
        request: (frame, answer, failed, withinMs) => link.request(frame, answer, failed, withinMs),
      },
      clock,
      () => randomKey(random),
      { ...this.#options, ...options },
    );
    this.#rooms.set(name, room);
    if (link.isOnline) room.online();
    return room;
  }

  leave(room: ChatRoom): void {
    room.stop();
    this.#rooms.delete(room.name);
  }

  #emit(event: ClientEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  #welcome(user: ChatUser | undefined): void {
    if (this.#hadSession && user?.id !== this.#userId) for (const room of this.#rooms.values()) room.forget();
    this.#hadSession = true;
    this.#userId = user?.id;
    this.#emit({ type: 'user', user });
    for (const room of this.#rooms.values()) room.online();
  }

  #receive(frame: Frame): void {
    if (frame.t === 'heads') {
      if (!isRecord(frame.rooms)) return;
      for (const room of this.#rooms.values()) {
        const head = room.id === undefined ? undefined : frame.rooms[room.id];
        if (Array.isArray(head)) room.head(head[0], head[1]);
      }
      return;
    }
    const id = textOf(frame.room);
    if (id === undefined) return;
    for (const room of this.#rooms.values()) if (room.id === id) room.receive(frame);
  }
}
