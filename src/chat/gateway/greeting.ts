import { randomUUID } from 'node:crypto';
import type { LineLog } from '../../runtime/bounded-log.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import {
  CLOSE,
  errorFrame,
  FRAMES_BURST,
  FRAMES_PER_S,
  lastsMs,
  MAX_FRAME_BYTES,
  MAX_IN_FLIGHT,
  MAX_REQUESTS,
  MAX_ROOMS,
  PING_MS,
} from '../protocol/protocol.js';
import type { ConnectedAccounts } from './accounts.js';
import type { ChatAuthorization } from './authorization.js';
import type { ClientConnection } from './connection.js';

export interface GreetingOptions {
  readonly authorization: ChatAuthorization;
  readonly accounts: ConnectedAccounts;
  readonly clock: Clock;
  readonly failureLog: LineLog;
  readonly maxTextBytes: number;
  readonly pace?: { readonly perS: number; readonly burst: number } | undefined;
  readonly closeConnection: (connection: ClientConnection, code: number, reason: string) => void;
  readonly receiveText: (connection: ClientConnection, text: string) => void;
  /**
   * Called when a connection is closed because its account has `MAX_ACCOUNT_CONNECTIONS`
   * connections.
   */
  readonly onTurnedAway: () => void;
}

/**
 * Answers `hello`: checks the token, signs the connection in, and sends `welcome`. Frames that
 * arrive before `welcome` are kept.
 */
export class Greeting {
  readonly #options: GreetingOptions;
  readonly #early = new Map<ClientConnection, string[]>();

  constructor(options: GreetingOptions) {
    this.#options = options;
  }

  /**
   * Keeps a message that arrived before `welcome`. Above the limits of requests and bytes the
   * connection is closed.
   */
  keepEarly(connection: ClientConnection, text: string): void {
    const early = this.#early.get(connection) ?? [];
    this.#early.set(connection, early);
    const chars = early.reduce((sum, { length }) => sum + length, text.length);
    if (early.length < MAX_REQUESTS && chars <= MAX_FRAME_BYTES) early.push(text);
    else this.#options.closeConnection(connection, CLOSE.chatProtocol, 'too much before the welcome');
  }

  forget(connection: ClientConnection): void {
    this.#early.delete(connection);
  }

  /**
   * Greets a client. An invalid token closes the connection and does not reject. `token` undefined:
   * a guest.
   */
  async greet(connection: ClientConnection, token: string | undefined): Promise<void> {
    const { authorization, accounts, clock, closeConnection, receiveText, onTurnedAway } = this.#options;
    connection.beginGreeting();
    try {
      const identity = token === undefined ? undefined : await authorization.identify(token);
      if (connection.state !== 'greeting') return;
      if (identity && !accounts.signIn(connection, identity, clock.monotonicMs())) {
        onTurnedAway();
        closeConnection(connection, CLOSE.overloaded, 'this account has too many connections');
        return;
      }
      connection.open();
      connection.sendReply(this.#welcome(connection));
    } catch (error) {
      if (connection.state === 'greeting') this.#refuseToken(connection, error);
      return;
    } finally {
      if (connection.state !== 'open') this.#early.delete(connection);
    }
    const early = this.#early.get(connection);
    this.#early.delete(connection);
    for (const text of early ?? []) receiveText(connection, text);
  }

  #refuseToken(connection: ClientConnection, error: unknown): void {
    const { failureLog, closeConnection } = this.#options;
    const code = error instanceof VezaError ? error.code : 'internal';
    if (code === 'unauthorized') {
      connection.sendReply(errorFrame(undefined, 'unauthorized', messageOf(error)));
      closeConnection(connection, CLOSE.token, 'the token is not good');
    } else if (code === 'forbidden') closeConnection(connection, CLOSE.banned, 'banned');
    else {
      if (code === 'internal') failureLog.error({ event: 'chat.token_check_failed', error: messageOf(error) }, 'could not check a token');
      closeConnection(connection, CLOSE.overloaded, 'the token could not be checked; try again');
    }
  }

  #welcome({ identity, expiresAtMs }: ClientConnection): string {
    const user = identity ? `{"id":${JSON.stringify(identity.id)},"name":${JSON.stringify(identity.name)}}` : 'null';
    const expiresAt = Number.isFinite(expiresAtMs) ? Math.trunc(expiresAtMs) : 'null';
    const { maxTextBytes, pace, clock } = this.#options;
    const pubs = pace ? `,"pubsPerS":${pace.perS},"pubsBurst":${pace.burst}` : '';
    const limits = `{"textBytes":${maxTextBytes},"rooms":${MAX_ROOMS},"pubsInFlight":${MAX_IN_FLIGHT},"framesPerS":${FRAMES_PER_S},"framesBurst":${FRAMES_BURST}${pubs}}`;
    return `{"t":"welcome","session":"${randomUUID()}","user":${user},"expiresAt":${expiresAt},"expiresInMs":${lastsMs(expiresAtMs, clock.wallMs())},"limits":${limits},"pingMs":${PING_MS}}`;
  }
}
