import { randomUUID } from 'node:crypto';
import type { Role } from '../../src/access/roles.js';
import type { TestApp } from './app.js';

export interface Person {
  readonly id: string;
  readonly email: string;
  readonly token: string;
  readonly refreshToken: string;
  readonly sessionId: string;
}

/** In the form of a hash, and of nothing. */
const NO_PASSWORD = `$argon2id$v=19$m=8,t=1,p=1$${'c2FsdHNhbHRzYWx0'}$${'A'.repeat(43)}`;

/** Somebody with an account, signed in; no password was hashed for it. `secondFactor`: as after a sign-in with one. */
export async function personOf(app: TestApp, role: Role, secondFactor: boolean, name = `${role} of the test`): Promise<Person> {
  const id = randomUUID();
  const email = `${id}@example.org`;
  await app.database.query(
    `insert into accounts (id, email, email_key, name, role, confirmed_at, password_hash) values ($1, $2, $2, $3, $4, now(), $5)`,
    [id, email, name, role, NO_PASSWORD],
  );
  return signedIn(app, { id, email }, secondFactor);
}

/** The same account, in another session. */
export async function signedIn(app: TestApp, { id, email }: Pick<Person, 'id' | 'email'>, secondFactor: boolean): Promise<Person> {
  const { accessToken, refreshToken, sessionId } = await app.access.sessions.begin({
    accountId: id,
    amr: secondFactor ? ['pwd', 'otp', 'mfa'] : ['pwd'],
    client: { address: '192.0.2.1', userAgent: 'test' },
  });
  return { id, email, token: accessToken, refreshToken, sessionId };
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: what it is, the test says.
  readonly body: any;
}

/** Calls the API as somebody; `body` undefined: none. */
export async function callAs(app: TestApp, token: string | undefined, method: string, path: string, body?: unknown): Promise<Answer> {
  const response = await fetch(`${app.url}/api/v1${path}`, {
    method: method.toUpperCase(),
    headers: {
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...(body !== undefined && { 'content-type': 'application/json' }),
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  const isJson = /json$/.test(response.headers.get('content-type')?.split(';')[0] ?? '');
  return { status: response.status, headers: response.headers, text, body: isJson && text !== '' ? JSON.parse(text) : undefined };
}
