import type { Clock } from '../../runtime/clock.js';

export type RemoteAnswer =
  | {
      readonly outcome: 'judged';
      readonly flagged: boolean;
      readonly categories: readonly { readonly category: string; readonly score: number }[];
    }
  /**
   * `busy`: too many requests are unanswered. `open`: the circuit breaker is open after failures.
   * In both cases no request was sent.
   */
  | { readonly outcome: 'failed'; readonly why: 'timeout' | 'error' | 'status' | 'answer' | 'busy' | 'open' };

/** A classifier outside the service. `ask` never rejects. */
export interface RemoteClassifier {
  ask(text: string): Promise<RemoteAnswer>;
}

type Fetch = (
  url: string,
  init: { method: string; headers: Record<string, string>; body: string; signal: AbortSignal; redirect: 'error' },
) => Promise<Response>;

export interface OpenAiClassifierOptions {
  /** The whole address, such as `https://api.example/v1/moderations`. */
  readonly url: string;
  /** Sent as a bearer token. Never part of an answer, an error or a log line. */
  readonly apiKey?: string | undefined;
  readonly model?: string | undefined;
  readonly clock: Clock;
  readonly fetch?: Fetch;
  /** How long an answer may take. Default: 300. */
  readonly timeoutMs?: number;
  /** Failures in a row after which the circuit breaker opens. Default: 5. */
  readonly failures?: number;
  /**
   * How long the circuit breaker stays open. After it a single request decides. Default: 15,000.
   */
  readonly openMs?: number;
  /** Unanswered requests at one time; one more fails at once. Default: 64. */
  readonly concurrent?: number;
}

const MAX_ANSWER_BYTES = 65_536;
const MAX_CATEGORIES = 32;

/**
 * A remote classifier that speaks `POST /v1/moderations` as OpenAI describes it: `{input, model?}`
 * → `{results:[{flagged, categories, category_scores}]}`.
 *
 * Circuit breaker: closed → (`failures` in a row) → open for `openMs` → half open (one request is
 * let through) → closed or open again.
 */
export class OpenAiClassifier implements RemoteClassifier {
  readonly #options: OpenAiClassifierOptions;
  readonly #fetch: Fetch;
  #failedInARow = 0;
  #openUntilMs = Number.NEGATIVE_INFINITY;
  #probing = false;
  #out = 0;

  constructor(options: OpenAiClassifierOptions) {
    this.#options = options;
    this.#fetch = options.fetch ?? ((url, init) => fetch(url, init));
  }

  get state(): 'closed' | 'open' | 'half-open' {
    if (this.#failedInARow < (this.#options.failures ?? 5)) return 'closed';
    return this.#options.clock.monotonicMs() < this.#openUntilMs ? 'open' : 'half-open';
  }

  async ask(text: string): Promise<RemoteAnswer> {
    const state = this.state;
    if (state === 'open' || (state === 'half-open' && this.#probing)) return { outcome: 'failed', why: 'open' };
    if (this.#out >= (this.#options.concurrent ?? 64)) return { outcome: 'failed', why: 'busy' };
    const probe = state === 'half-open';
    if (probe) this.#probing = true;
    this.#out++;
    let answer: RemoteAnswer;
    try {
      answer = await this.#question(text);
    } finally {
      this.#out--;
      if (probe) this.#probing = false;
    }
    if (answer.outcome === 'judged') this.#failedInARow = 0;
    else {
      this.#failedInARow++;
      if (this.#failedInARow >= (this.#options.failures ?? 5))
        this.#openUntilMs = this.#options.clock.monotonicMs() + (this.#options.openMs ?? 15_000);
    }
    return answer;
  }

  async #question(text: string): Promise<RemoteAnswer> {
    const { url, apiKey, model, clock, timeoutMs = 300 } = this.#options;
    const controller = new AbortController();
    let cancel = () => {};
    // The timeout also resolves the race, because a `fetch` that ignores its abort signal must not
    // delay a message.
    const timedOut = new Promise<RemoteAnswer>((resolve) => {
      cancel = clock.after(timeoutMs, () => {
        resolve({ outcome: 'failed', why: 'timeout' });
        controller.abort();
      });
    });
    const asked = this.#fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'application/json', ...(apiKey ? { authorization: `Bearer ${apiKey}` } : {}) },
      body: JSON.stringify({ input: text, ...(model ? { model } : {}) }),
      signal: controller.signal,
      redirect: 'error',
    }).then(async (response): Promise<RemoteAnswer> => {
      if (response.ok) return parseAnswer(await readBounded(response));
      await response.body?.cancel();
      return { outcome: 'failed', why: 'status' };
    });
    try {
      return await Promise.race([asked.catch((): RemoteAnswer => ({ outcome: 'failed', why: 'error' })), timedOut]);
    } finally {
      cancel();
    }
  }
}

async function readBounded(response: Response): Promise<string | undefined> {
  const reader = response.body?.getReader();
  if (!reader) return undefined;
  const chunks: Uint8Array[] = [];
  let length = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return Buffer.concat(chunks).toString('utf8');
    length += value.length;
    if (length > MAX_ANSWER_BYTES) {
      await reader.cancel();
      return undefined;
    }
    chunks.push(value);
  }
}

function parseAnswer(body: string | undefined): RemoteAnswer {
  const failed = { outcome: 'failed', why: 'answer' } as const;
  if (body === undefined) return failed;
  let parsed: unknown;
  try {
    parsed = JSON.parse(body);
  } catch {
    return failed;
  }
  const result = (parsed as { results?: unknown } | null)?.results;
  const first: unknown = Array.isArray(result) ? result[0] : undefined;
  if (typeof first !== 'object' || first === null || typeof (first as { flagged?: unknown }).flagged !== 'boolean') return failed;
  const { flagged, categories, category_scores: scores } = first as { flagged: boolean; categories?: unknown; category_scores?: unknown };
  const named = typeof categories === 'object' && categories !== null ? Object.entries(categories) : [];
  const scoreOf = (name: string): number => {
    const score = typeof scores === 'object' && scores !== null ? (scores as Record<string, unknown>)[name] : undefined;
    return typeof score === 'number' && score >= 0 && score <= 1 ? score : 1;
  };
  return {
    outcome: 'judged',
    flagged,
    categories: named
      .filter(([, value]) => value === true)
      .slice(0, MAX_CATEGORIES)
      .map(([name]) => ({ category: name.slice(0, 64), score: scoreOf(name) })),
  };
}
