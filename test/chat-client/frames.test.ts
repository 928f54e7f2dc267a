import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MAX_IN_FLIGHT, ROOM_ROLES, SUBPROTOCOL as SERVED } from '../../src/chat/protocol/protocol.js';
import { ENTRY_FRAMES, SERVER_FRAMES } from '../../src/chat/protocol/server-frames.js';
import { CHAT_ROLES, DEFAULT_LIMITS, NO_ENTRIES, SUBPROTOCOL } from '../../src/chat-client/frames.js';

test('the client, which imports nothing, names frames, roles and limits as the server does', () => {
  const answers = Object.keys(SERVER_FRAMES).filter((t) => !(t in ENTRY_FRAMES));
  assert.deepEqual([...NO_ENTRIES].sort(), answers.sort(), 'frames that are no entries');
  assert.deepEqual(CHAT_ROLES, ROOM_ROLES);
  assert.equal(SUBPROTOCOL, SERVED);
  assert.equal(DEFAULT_LIMITS.pubsInFlight, MAX_IN_FLIGHT);
});
