import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { FRAMES_BURST, FRAMES_PER_S } from '../protocol/protocol.js';
import type { ChatAuthorization, ChatIdentity } from './authorization.js';
import type { ClientConnection } from './connection.js';
import { FrameBudget } from './frame-budget.js';

/** Connections that one account may have to one process. */
export const MAX_ACCOUNT_CONNECTIONS = 200;

/** An account with at least one connection to this process. */
export interface ConnectedAccount {
  readonly connections: readonly ClientConnection[];
  readonly budget: FrameBudget;
  /**
   * When the account was created, ms since 1970; undefined: the identity has no account here. Read
   * once per connected account, for rooms with a minimum age.
   */
  createdAtMs(identity: ChatIdentity): Promise<number | undefined>;
}

class AccountEntry implements ConnectedAccount {
  readonly connections: ClientConnection[] = [];
  readonly budget: FrameBudget;
  readonly #authorization: ChatAuthorization;
  #createdAtMs: Promise<number | undefined> | undefined;

  constructor(authorization: ChatAuthorization, nowMs: number) {
    this.#authorization = authorization;
    this.budget = new FrameBudget(FRAMES_PER_S, FRAMES_BURST, nowMs);
  }

  createdAtMs(identity: ChatIdentity): Promise<number | undefined> {
    this.#createdAtMs ??= this.#authorization.accountCreatedAtMs(identity).catch((error) => {
      this.#createdAtMs = undefined;
      throw error;
    });
    return this.#createdAtMs;
  }
}

export interface ConnectedAccountsOptions {
  readonly authorization: ChatAuthorization;
  readonly log: Log;
  readonly endSession: (connection: ClientConnection, why: 'banned' | 'ended') => void;
}

/**
 * The accounts with connections to this process. Checks that their sessions and keys are not
 * revoked.
 */
export class ConnectedAccounts {
  readonly #options: ConnectedAccountsOptions;
  readonly #accounts = new Map<string, AccountEntry>();
  /** Connections whose account has changed and could not be read. The next check includes them. */
  readonly #unchecked = new Set<ClientConnection>();
  /**
   * Connections that signed in with an API key. No event tells that a key was deleted, so every
   * check includes them.
   */
  readonly #withKeys = new Set<ClientConnection>();
  #checking: Promise<void> | undefined;

  constructor(options: ConnectedAccountsOptions) {
    this.#options = options;
  }

  /** The number of accounts that are connected. */
  get size(): number {
    return this.#accounts.size;
  }

  /** Returns false when the account already has `MAX_ACCOUNT_CONNECTIONS` connections. */
  signIn(connection: ClientConnection, identity: ChatIdentity, nowMs: number): boolean {
    let account = this.#accounts.get(identity.id);
    if (!account) {
      account = new AccountEntry(this.#options.authorization, nowMs);
      this.#accounts.set(identity.id, account);
    }
    if (account.connections.length >= MAX_ACCOUNT_CONNECTIONS) return false;
    account.connections.push(connection);
    connection.signIn(identity, account);
    this.noteKey(connection);
    return true;
  }

  /** Called after the connection has signed in or has sent a new token. */
  noteKey(connection: ClientConnection): void {
    if (connection.identity?.keyId !== undefined) this.#withKeys.add(connection);
    else this.#withKeys.delete(connection);
  }

  remove(connection: ClientConnection): void {
    this.#unchecked.delete(connection);
    this.#withKeys.delete(connection);
    const { identity } = connection;
    const account = identity && this.#accounts.get(identity.id);
    if (!account) return;
    const at = account.connections.indexOf(connection);
    if (at >= 0) account.connections.splice(at, 1);
    if (account.connections.length === 0) this.#accounts.delete(identity.id);
  }

  connectionsOf(userId: string): ClientConnection[] {
    return [...(this.#accounts.get(userId)?.connections ?? [])];
  }

  all(): ClientConnection[] {
    return [...this.#accounts.values()].flatMap(({ connections }) => connections);
  }

  /**
   * Starts a check of connections with API keys and of those that an earlier check could not read.
   * One check runs at a time.
   */
  checkDue(): void {
    this.#checking ??= this.endInvalid([...new Set([...this.#withKeys, ...this.#unchecked])]).finally(() => {
      this.#checking = undefined;
    });
  }

  /** Resolves when the running check has ended. */
  async stop(): Promise<void> {
    await this.#checking;
  }

  /** Ends the sessions of connections whose account, session or key is revoked. Never rejects. */
  async endInvalid(connections: readonly ClientConnection[]): Promise<void> {
    if (connections.length === 0) return;
    const { authorization, log, endSession } = this.#options;
    const identities = connections.flatMap(({ identity }) => identity ?? []);
    try {
      const ended = await authorization.findEnded(identities);
      for (const connection of connections) {
        const why = connection.identity && ended.get(connection.identity);
        if (why && connection.state === 'open') endSession(connection, why);
        this.#unchecked.delete(connection);
      }
    } catch (error) {
      // While the database is unavailable, the last known state stays in force.
      for (const connection of connections) if (connection.state !== 'closed') this.#unchecked.add(connection);
      log.debug({ event: 'chat.session_check_failed', error: messageOf(error) }, 'could not check for revoked sessions');
    }
  }
}
