import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import type { WebSocket } from 'ws';
import { ClientConnection, type ConnectionState } from '../../src/chat/gateway/connection.js';

/** A connection that is brought to a state by the methods that lead there, on a socket that takes everything. */
function connectionIn(state: ConnectionState): ClientConnection {
  const ws = { close() {}, pause() {}, resume() {}, terminate() {} } as unknown as WebSocket;
  const socket = { bytesRead: 0, writable: true, writableLength: 0, write: () => true } as unknown as Socket;
  const host = { scheduleConnection() {}, onDrained() {}, nowMs: () => 0 };
  const connection = new ClientConnection(host, ws, socket, '192.0.2.1', undefined, 5000);
  if (state === 'greeting' || state === 'open') connection.beginGreeting();
  if (state === 'open') connection.open();
  if (state === 'closing') connection.close(1012, 'restart', 1000);
  if (state === 'closed') connection.markClosed();
  return connection;
}

const STATES: readonly ConnectionState[] = ['hello', 'greeting', 'open', 'closing', 'closed'];
const identity = {
  id: 'u',
  name: 'u',
  actor: 'u',
  expiresAtMs: 1,
  sessionId: undefined,
  keyId: undefined,
  mayWrite: true,
  proof: undefined,
};

test('a connection changes its state along the lines of its table and no others', () => {
  const steps = [
    { to: 'greeting', from: ['hello'], go: (connection: ClientConnection) => connection.beginGreeting() },
    { to: 'open', from: ['greeting'], go: (connection: ClientConnection) => connection.open() },
    { to: 'closing', from: ['hello', 'greeting', 'open'], go: (connection: ClientConnection) => connection.close(1012, 'restart', 0) },
    { to: 'closed', from: ['hello', 'greeting', 'open', 'closing'], go: (connection: ClientConnection) => connection.markClosed() },
  ] as const;
  for (const { to, from, go } of steps) {
    for (const state of STATES) {
      const connection = connectionIn(state);
      assert.equal(connection.state, state);
      if ((from as readonly ConnectionState[]).includes(state)) {
        go(connection);
        assert.equal(connection.state, to, `${state} becomes ${to}`);
      } else if (to === 'closing' || to === 'closed') {
        go(connection);
        assert.equal(connection.state, state, `${state} stays when it is to become ${to}: twice is harmless`);
      } else assert.throws(() => go(connection), /cannot go from/, `${state} never becomes ${to}`);
    }
  }
});

test('a connection signs in while it is greeted, and renews its own identity while it is open', () => {
  const account = { connections: [], budget: undefined as never, createdAtMs: async () => undefined };
  for (const state of STATES)
    if (state !== 'greeting') assert.throws(() => connectionIn(state).signIn(identity, account), /cannot sign in/);
  const connection = connectionIn('greeting');
  connection.signIn(identity, account);
  assert.throws(() => connection.renewIdentity(identity), /only an open connection/);
  connection.open();
  assert.throws(() => connection.renewIdentity({ ...identity, id: 'another' }), /only an open connection/);
  connection.renewIdentity({ ...identity, expiresAtMs: 2 });
  assert.equal(connection.expiresAtMs, 2);
});
