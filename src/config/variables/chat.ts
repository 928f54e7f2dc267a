import { address, flag, integer, oneOf, text } from '../kinds.js';
import { set, unset } from './variable.js';

/** Rooms, messages and their moderation. */
export const CHAT_VARIABLES = {
  maxConnections: set(
    'MAX_CONNECTIONS',
    'chat',
    integer(1, 10_000_000),
    '100000',
    'Chat connections of all processes together. One process takes 19,000 (`WORKER_THREADS`). Clients above it are told to come back later.',
  ),
  maxMessageBytes: set('MAX_MESSAGE_SIZE', 'chat', integer(1, 8192), '8192', 'The longest text of a message.', { unit: 'bytes' }),
  messageHistoryLimit: set(
    'MESSAGE_HISTORY_LIMIT',
    'chat',
    integer(0, 100_000),
    '1000',
    'The newest entries of each room (messages and everything else in its log) that are kept whatever their age. 0: only the newest one.',
  ),
  chatRetentionDays: set(
    'CHAT_RETENTION_DAYS',
    'chat',
    integer(0, 36_500),
    '30',
    'Entries beyond the newest `MESSAGE_HISTORY_LIMIT` are deleted when they are older than this, except those from the time of a kept recording, and a pinned message. 0: after an hour.',
    { unit: 'days' },
  ),
  moderationEnabled: set('MODERATION_ENABLED', 'chat', flag, 'true', 'Automatic moderation.'),
  moderationUrl: unset(
    'MODERATION_URL',
    'chat',
    address('http', 'https'),
    'A second classifier for the rooms that turn it on: the full address of a service with OpenAI’s `POST /v1/moderations`. It must answer within 300 ms. Unset: none.',
  ),
  moderationApiKey: unset('MODERATION_API_KEY', 'chat', text(), 'The bearer token for `MODERATION_URL`.', { secret: true }),
  moderationModel: unset('MODERATION_MODEL', 'chat', text(200), 'The model that `MODERATION_URL` uses. Unset: its default.'),
  e2eEncryption: set(
    'E2E_ENCRYPTION',
    'chat',
    oneOf('off', 'optional', 'required'),
    'optional',
    'Whether rooms may, or must, be end-to-end encrypted.',
    { planned: true },
  ),
} as const;
