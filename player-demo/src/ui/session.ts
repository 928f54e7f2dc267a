/**
 * The session of this browser, and calls to the API with it.
 *
 * The access token is only in memory. The refresh token is in localStorage, so that a reload and a
 * second tab stay signed in. The service takes no cookies (nothing to forge across sites, and any
 * origin may call the API). The pages' CSP runs no script but our own, nothing here makes markup
 * from text, and a stolen refresh token that is used ends its session at the next refresh.
 */
export interface User {
  readonly name: string;
  readonly email: string;
  readonly role: 'listener' | 'broadcaster' | 'moderator' | 'admin';
}

/** Answer of `GET /me`. */
export interface Me extends User {
  readonly id: string;
  readonly createdAt: string;
  readonly secondFactor: {
    readonly totp: boolean;
    readonly recoveryCodesLeft: number;
    readonly passkeys: number;
    readonly needed: boolean;
  };
  readonly channels: readonly { readonly slug: string; readonly role: 'owner' | 'host' | 'moderator' }[];
}

interface Stored {
  readonly refreshToken: string;
  readonly user: User;
}

interface TokensJson {
  readonly accessToken: string;
  /** Seconds until the token expires. */
  readonly expiresIn: number;
  readonly refreshToken?: string;
}

/** An error as the API reports it (RFC 9457). `status` 0: there was no answer. */
export class Problem extends Error {
  readonly status: number;
  readonly code: string;
  /** The member of the request's body that is wrong: `email`, `newPassword`. */
  readonly at: string | undefined;
  readonly retryAfterS: number | undefined;

  constructor(status: number, code: string, message: string, more: { at?: string | undefined; retryAfterS?: number | undefined } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.at = more.at;
    this.retryAfterS = more.retryAfterS;
  }
}

const KEY = 'veza.session';
const LOCK = 'veza.refresh';
const ANSWER_WITHIN_MS = 20_000;
/** A token with less time left than this is renewed before it is used. */
const SPARE_MS = 20_000;

let access: { token: string; untilMs: number } | undefined;
/** The refresh under way in this tab. */
let refreshing: Promise<void> | undefined;
const listeners = new Set<() => void>();

/** Tabs share a new access token: one refresh is enough for all of them. */
const tabs = 'BroadcastChannel' in window ? new BroadcastChannel('veza.session') : undefined;
tabs?.addEventListener('message', ({ data }: MessageEvent<{ token: string; untilMs: number }>) => {
  access = data;
});
window.addEventListener('storage', (event) => {
  if (event.key !== KEY && event.key !== null) return;
  if (!stored()) access = undefined;
  for (const listener of listeners) listener();
});

/**
 * Calls the listener after a sign-in or sign-out, in this tab or another, and after a change of the
 * name.
 */
export function onSession(listener: () => void): void {
  listeners.add(listener);
}

export const currentUser = (): User | undefined => stored()?.user;

/** Begins a session after a sign-in. */
export function begin(tokens: TokensJson & { refreshToken: string; user: User }): void {
  const { name, email, role } = tokens.user;
  take(tokens);
  store({ refreshToken: tokens.refreshToken, user: { name, email, role } });
}

/** Takes a new token of the same session, such as after a second factor was shown. */
export const take = ({ accessToken, expiresIn }: TokensJson): void => {
  access = { token: accessToken, untilMs: Date.now() + expiresIn * 1000 };
  tabs?.postMessage(access);
};

export function remember(user: User): void {
  const known = stored();
  if (known) store({ ...known, user: { name: user.name, email: user.email, role: user.role } });
}

/** Signs out. The browser forgets the session even when the server cannot be reached. */
export async function signOut(): Promise<void> {
  const known = stored();
  forget();
  if (known) await send('POST', '/auth/logout', { refreshToken: known.refreshToken }).catch(() => undefined);
}

/** Forgets a session that has ended on the server. */
export function forget(): void {
  access = undefined;
  store(undefined);
}

/** Makes a call without a token. Rejects with `Problem`. */
export const callOpenly = <T = void>(method: string, path: string, body?: unknown): Promise<T> =>
  send(method, path, body).then((response) => read<T>(response));

/**
 * Makes a call as the signed-in person. An expired token is renewed once; when that is refused, the
 * session is forgotten and the call rejects with `unauthorized`. Rejects with `Problem`.
 */
export async function call<T = void>(method: string, path: string, body?: unknown): Promise<T> {
  return read<T>(await callRaw(method, path, body));
}

/** `call` for an answer that is not JSON. */
export async function callRaw(method: string, path: string, body?: unknown): Promise<Response> {
  if (!access || access.untilMs - SPARE_MS < Date.now()) await refresh(access?.token);
  const used = access?.token;
  try {
    return await send(method, path, body, used);
  } catch (error) {
    if (!(error instanceof Problem) || error.code !== 'unauthorized') throw error;
    await refresh(used);
    return send(method, path, body, access?.token);
  }
}

/**
 * Returns the access token, for the chat's connection. Undefined: nobody is signed in. Rejects when
 * the server cannot be reached. `fresh` asks for a new one.
 */
export async function accessToken(fresh: boolean): Promise<string | undefined> {
  if (!stored()) return undefined;
  try {
    if (fresh || !access || access.untilMs - SPARE_MS < Date.now()) await refresh(access?.token);
  } catch (error) {
    if (error instanceof Problem && error.status === 401) return undefined;
    throw error;
  }
  return access?.token;
}

function refresh(used: string | undefined): Promise<void> {
  refreshing ??= underLock(() => renew(used)).finally(() => {
    refreshing = undefined;
  });
  return refreshing;
}

/**
 * Without the Web Locks API two tabs may refresh at once: for ten seconds the server gives both the
 * same successor.
 */
const underLock = (task: () => Promise<void>): Promise<void> =>
  'locks' in navigator ? navigator.locks.request(LOCK, task).then(() => undefined) : task();

async function renew(used: string | undefined): Promise<void> {
  // Another tab got a new token while this one waited for the lock.
  if (access && access.token !== used && access.untilMs - SPARE_MS > Date.now()) return;
  const known = stored();
  if (!known) throw new Problem(401, 'unauthorized', 'Sign in first.');
  try {
    const tokens = await callOpenly<TokensJson & { refreshToken: string }>('POST', '/auth/refresh', { refreshToken: known.refreshToken });
    // The person signed out or changed accounts meanwhile: the new tokens must not be used.
    if (stored()?.refreshToken !== known.refreshToken) throw new Problem(401, 'unauthorized', 'Sign in first.');
    take(tokens);
    store({ ...known, refreshToken: tokens.refreshToken }, false);
  } catch (error) {
    if (error instanceof Problem && error.status === 401 && stored()?.refreshToken === known.refreshToken) forget();
    throw error;
  }
}

async function send(method: string, path: string, body?: unknown, token?: string): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(`/api/v1${path}`, {
      method,
      headers: {
        accept: 'application/json',
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      cache: 'no-store',
      credentials: 'omit',
      signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
    });
  } catch {
    const why = navigator.onLine
      ? 'The server does not answer. Try again in a moment.'
      : 'You are offline. Try again when you are connected.';
    throw new Problem(0, 'offline', why);
  }
  if (response.ok) return response;
  const problem = (await response.json().catch(() => ({}))) as { code?: string; detail?: string; details?: { at?: string } };
  const retryAfterS = Number(response.headers.get('retry-after') ?? Number.NaN);
  throw new Problem(
    response.status,
    problem.code ?? 'internal',
    problem.detail ?? `The server answered with status ${response.status}. Try again in a moment.`,
    {
      at: problem.details?.at?.replace(/^body\./, '').split('.')[0],
      retryAfterS: Number.isFinite(retryAfterS) ? retryAfterS : undefined,
    },
  );
}

const read = async <T>(response: Response): Promise<T> => (response.status === 204 ? undefined : await response.json()) as T;

function stored(): Stored | undefined {
  try {
    const value = JSON.parse(localStorage.getItem(KEY) ?? 'null') as Stored | null;
    return typeof value?.refreshToken === 'string' && typeof value.user?.name === 'string' ? value : unkept;
  } catch {
    return unkept;
  }
}

/** The session when the browser forbids storage: it lasts until the page is left. */
let unkept: Stored | undefined;

function store(value: Stored | undefined, tell = true): void {
  unkept = undefined;
  try {
    if (value) localStorage.setItem(KEY, JSON.stringify(value));
    else localStorage.removeItem(KEY);
  } catch {
    unkept = value;
  }
  if (tell) for (const listener of listeners) listener();
}

/** Reads every page of a list, at most 10 pages of 200 items. */
export async function callAll<T>(path: string): Promise<T[]> {
  const found: T[] = [];
  let cursor: string | null = null;
  for (let page = 0; page < 10; page++) {
    const more: string = cursor === null ? '' : `&cursor=${encodeURIComponent(cursor)}`;
    const answer: { items: T[]; next: string | null } = await call('GET', `${path}${path.includes('?') ? '&' : '?'}limit=200${more}`);
    found.push(...answer.items);
    cursor = answer.next;
    if (cursor === null) break;
  }
  return found;
}
