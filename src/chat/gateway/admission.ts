import type { IncomingMessage } from 'node:http';
import type { Refusal } from '../../runtime/http-problem.js';
import { pathOf } from '../../runtime/request-head.js';
import { CHAT_PATH, SUBPROTOCOL } from '../protocol/protocol.js';

/** RFC 6455 4.2.2: the protocol versions that the server supports. */
const VERSION_HEADERS = ['Upgrade', 'websocket', 'Sec-WebSocket-Version', '13'];

export interface UpgradeAdmissionOptions {
  /** Connections of this process at most. One more is accepted and closed at once (1013). */
  readonly maxConnections: number;
  /** Connections of one address group at most. Default: `maxConnections`. */
  readonly maxPerAddress?: number | undefined;
  /** The group that an address counts towards. Default: the address itself. */
  readonly groupOf: (address: string) => string;
  /**
   * Whether pages of this origin may connect. Not called for clients without an `Origin`, which are
   * not pages.
   */
  readonly isOriginAllowed: (origin: string, host: string | undefined) => boolean;
}

/** Decides which upgrade requests become connections, and counts those that did. */
export class UpgradeAdmission {
  readonly #options: UpgradeAdmissionOptions;
  readonly #perAddress = new Map<string, number>();
  #open = 0;

  constructor(options: UpgradeAdmissionOptions) {
    this.#options = options;
  }

  /** The number of open connections. */
  get open(): number {
    return this.#open;
  }

  /** Why the request cannot become a chat connection; undefined: it can. */
  refusalOf({ method, url = '', headers }: IncomingMessage, isDraining: boolean): Refusal | undefined {
    const { origin, host } = headers;
    if (pathOf(url) !== CHAT_PATH) return { code: 'not_found', detail: `The chat is at ${CHAT_PATH}.` };
    if (method !== 'GET') return { code: 'method_not_allowed', detail: 'A WebSocket is requested with GET.', headers: ['Allow', 'GET'] };
    if (headers['sec-websocket-version'] !== '13')
      return { code: 'upgrade_required', detail: 'This server speaks version 13 of WebSocket.', headers: VERSION_HEADERS };
    if (isDraining) return { code: 'unavailable', detail: 'This process is ending; connect again.' };
    if (origin !== undefined && !this.#options.isOriginAllowed(origin, host))
      return { code: 'forbidden', detail: 'Pages of this origin may not connect (ALLOWED_ORIGINS).' };
    const protocols = headers['sec-websocket-protocol']?.split(',').map((name) => name.trim());
    if (!protocols?.includes(SUBPROTOCOL))
      return { code: 'bad_request', detail: `Ask for the subprotocol ${SUBPROTOCOL} (Sec-WebSocket-Protocol).` };
    return undefined;
  }

  /** Whether the process or the address has its maximum of connections. */
  isFull(address: string): boolean {
    const { maxConnections, maxPerAddress = Number.POSITIVE_INFINITY, groupOf } = this.#options;
    return this.#open >= maxConnections || (this.#perAddress.get(groupOf(address)) ?? 0) >= maxPerAddress;
  }

  /** Counts a new connection. Call `release` once for each call. */
  admit(address: string): void {
    this.#open++;
    if (this.#options.maxPerAddress === undefined) return;
    const group = this.#options.groupOf(address);
    this.#perAddress.set(group, (this.#perAddress.get(group) ?? 0) + 1);
  }

  release(address: string): void {
    this.#open--;
    if (this.#options.maxPerAddress === undefined) return;
    const group = this.#options.groupOf(address);
    const left = (this.#perAddress.get(group) ?? 1) - 1;
    if (left > 0) this.#perAddress.set(group, left);
    else this.#perAddress.delete(group);
  }
}
