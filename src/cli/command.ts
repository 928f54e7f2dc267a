/** Ends a command with a message on stderr and an exit code. */
export class Failure extends Error {
  /** 1: refused by the server. 2: wrong usage or configuration. 3: no server. */
  readonly exitCode: number;
  constructor(exitCode: number, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** The output of a command: `json` for programs, `text` for people. */
export interface CommandOutput {
  json: unknown;
  text: string;
}

/** Sends a request to the API. Rejects with `Failure`. */
export type CallApi = <T = void>(method: string, path: string, body?: object) => Promise<T>;

/** Reads all pages of a list. */
export async function everything<T>(call: CallApi, path: string): Promise<T[]> {
  const found: T[] = [];
  for (let next: string | null = ''; next !== null; ) {
    const page: { items: T[]; next: string | null } = await call(
      'GET',
      `${path}${path.includes('?') ? '&' : '?'}limit=200${next === '' ? '' : `&cursor=${encodeURIComponent(next)}`}`,
    );
    found.push(...page.items);
    next = page.next;
  }
  return found;
}
