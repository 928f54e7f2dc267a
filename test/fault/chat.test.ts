import { test } from 'node:test';
import { checkChatUnderFaults } from '../support/chat-faults.js';

// `test/long` has PostgreSQL away for a minute.
test('every message once, in one order, acked means kept, deleted means gone: while everything that can be killed is killed', (t) =>
  checkChatUnderFaults(t, 8));
