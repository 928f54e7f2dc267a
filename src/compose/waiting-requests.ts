import type { RequestListener } from 'node:http';
import { sendRefusal } from '../runtime/http-problem.js';

/**
 * Keeps requests that arrive before the service is ready, at most `maxWaiting` of them. A request
 * whose client has gone is dropped. Requests above the maximum and health checks are answered with
 * 503.
 */
export class WaitingRequests {
  readonly #maxWaiting: number;
  #handler: RequestListener | undefined;
  readonly #waiting = new Map<
    Parameters<RequestListener>[1],
    { readonly req: Parameters<RequestListener>[0]; readonly open: () => void }
  >();

  constructor(maxWaiting: number) {
    this.#maxWaiting = maxWaiting;
  }

  /**
   * Resolves with the handler's answer, so that an error of the handler is answered for a request
   * that has waited as for any other.
   */
  readonly handle = (...[req, res]: Parameters<RequestListener>): Promise<unknown> | unknown => {
    if (this.#handler) return this.#handler(req, res);
    if (req.url?.startsWith('/health/') || this.#waiting.size >= this.#maxWaiting)
      return sendRefusal(res, { code: 'unavailable', detail: 'the service is starting' });
    return new Promise<void>((open) => {
      this.#waiting.set(res, { req, open });
      res.once('close', () => this.#waiting.delete(res));
    }).then(() => res.destroyed || this.#handler?.(req, res));
  };

  /** Gives every waiting request, and every later one, to `handler`. */
  answerWith(handler: RequestListener): void {
    this.#handler = handler;
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const request of waiting) request.open();
  }

  /** Closes the connections of all waiting requests, because the service cannot start. */
  dropAll(): void {
    for (const { req } of this.#waiting.values()) req.destroy();
    this.#waiting.clear();
  }
}
