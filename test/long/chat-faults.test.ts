import { test } from 'node:test';
import { checkChatUnderFaults } from '../support/chat-faults.js';

test('every message once, acked means kept, deleted means gone: while everything is killed, PostgreSQL for a minute', (t) =>
  checkChatUnderFaults(t, 60));
