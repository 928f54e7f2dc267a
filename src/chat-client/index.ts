/**
 * The client of Veza's chat, for browsers and Node: docs/chat-client.md. It imports no part of the
 * server.
 */
export { ChatClient, type ChatClientOptions, type ClientEvent, MOST_ROOMS } from './client.js';
export type { ChatSocket, ClientClock, Environment, SocketConstructor, SocketEvent } from './environment.js';
export { CHAT_ROLES, type ChatBody, ChatProblem, type ChatRole, type ChatUser, type Entry, type Frame, SUBPROTOCOL } from './frames.js';
export { BACK_OFF_MS, type LinkState, type StopReason, type TokenSource } from './link.js';
export { KEEP_TRYING_MS, MOST_OUTGOING, type Outgoing, type OutgoingState } from './outbox.js';
export { ChatRoom, type LinkSource, type RoomOptions } from './room.js';
export type { RoomEvent, RoomState } from './room-state.js';
export { type Item, Timeline, type TimelineEvent } from './timeline.js';
