/** The members of `/api/v1/channels` that the page uses. */
export interface ChannelJson {
  readonly slug: string;
  readonly title: string;
  readonly state: 'offline' | 'live' | 'holding';
  readonly listeners: number;
  readonly nowPlaying: { readonly title: string; readonly artist?: string | null } | null;
}

export class ApiError extends Error {
  readonly status: number;
  constructor(status: number, path: string) {
    super(`${path}: ${status === 0 ? 'no answer' : status}`);
    this.status = status;
  }
}

const ANSWER_WITHIN_MS = 8_000;

export async function getJson<T>(path: string, headers: Readonly<Record<string, string>> = {}): Promise<T> {
  let response: Response;
  try {
    response = await fetch(path, { headers: { accept: 'application/json', ...headers }, signal: AbortSignal.timeout(ANSWER_WITHIN_MS) });
  } catch {
    throw new ApiError(0, path);
  }
  if (!response.ok) throw new ApiError(response.status, path);
  return (await response.json()) as T;
}

/** Lists the public channels, at most 10 pages of them. */
export async function listChannels(): Promise<ChannelJson[]> {
  const found: ChannelJson[] = [];
  let cursor: string | null = null;
  for (let page = 0; page < 10; page++) {
    const path: string = `/api/v1/channels${cursor ? `?cursor=${encodeURIComponent(cursor)}` : ''}`;
    const answer: { items: ChannelJson[]; next: string | null } = await getJson(path);
    found.push(...answer.items);
    cursor = answer.next;
    if (!cursor) break;
  }
  return found;
}

export const getChannel = (slug: string): Promise<ChannelJson> => getJson(`/api/v1/channels/${encodeURIComponent(slug)}`);

/**
 * Measures the server's clock minus the page's, in milliseconds: the median of three requests,
 * corrected by half the round trip.
 */
export async function measureClockOffset(): Promise<number> {
  const offsets: number[] = [];
  for (let i = 0; i < 3; i++) {
    const askedAt = Date.now();
    const response = await fetch('/time', { cache: 'no-store', signal: AbortSignal.timeout(ANSWER_WITHIN_MS) });
    const answeredAt = Date.now();
    const server = Date.parse((await response.text()).trim());
    if (response.ok && Number.isFinite(server)) offsets.push(server - (askedAt + answeredAt) / 2);
  }
  if (offsets.length === 0) throw new ApiError(0, '/time');
  return offsets.sort((a, b) => a - b)[Math.floor(offsets.length / 2)]!;
}

/**
 * Calls `task` repeatedly; it returns the milliseconds until its next call. The returned function
 * stops it.
 */
export function repeat(task: () => Promise<number>): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let ended = false;
  const turn = async () => {
    const waitMs = await task();
    if (!ended) timer = setTimeout(turn, waitMs);
  };
  void turn();
  return () => {
    ended = true;
    clearTimeout(timer);
  };
}
