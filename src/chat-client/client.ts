import { type Environment, environmentOf, randomKey } from './environment.js';
import { type ChatUser, type Frame, isRecord, textOf } from './frames.js';
import { type LinkState, SessionLink, type TokenSource } from './link.js';
import { ChatRoom, type RoomOptions } from './room.js';

export interface ChatClientOptions extends Partial<Environment>, RoomOptions {
  /** `wss://host/chat`; a function is asked before each attempt. */
  readonly url: string | (() => string);
  /** Who is here; asked before each session and before the token ends. Without, or with undefined: a guest, who reads. */
  readonly token?: TokenSource;
  /** Up to 64 characters that say in the server's log what this is. */
  readonly client?: string;
}

export type ClientEvent =
  | { readonly type: 'state'; readonly state: LinkState }
  /** Known with each session. */
  | { readonly type: 'user'; readonly user: ChatUser | undefined };

/** The server's own limit. */
export const MOST_ROOMS = 20;

/**
 * A connection to Veza's chat that keeps itself: it comes back by itself, resumes every room where it was, and sends again what was not
 * acknowledged. See docs/chat-client.md.
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

  /** Undefined: a guest, or not known yet. */
  get user(): ChatUser | undefined {
    return this.#link.user;
  }

  /** Of UTF-8. */
  get mostTextBytes(): number {
    return this.#link.limits.textBytes;
  }

  /** Returns what ends it. */
  listen(listener: (event: ClientEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Connects, and stays so. Again is harmless. */
  start(): void {
    this.#link.start();
  }

  /** For good, unless it is started again. Rooms and what is unsent stay. */
  stop(): void {
    this.#link.stop();
  }

  /** The network is back, or the page is looked at again: do not wait any longer. */
  wake(): void {
    this.#link.wake();
  }

  /** Somebody else is signed in, or nobody: a session with the token of now. */
  restart(): void {
    this.#link.restart();
  }

  /** The room by this name, joined as long as there is a session. The same name is the same room. Throws when there are `MOST_ROOMS`. */
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
