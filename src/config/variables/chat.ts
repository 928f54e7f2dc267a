import { address, flag, integer, oneOf, text } from '../kinds.js';
import { set, unset } from './variable.js';

/** Rooms, messages and their moderation. */
export const CHAT_VARIABLES = {
  maxConnections: set(
    'MAX_CONNECTIONS',
    'chat',
    integer(1, 10_000_000),
    '100000',
    'Chat connections, of all processes together. One process holds 19,000 (`WORKER_THREADS`); more are told to come back later.',
  ),
  maxMessageBytes: set('MAX_MESSAGE_SIZE', 'chat', integer(1, 8192), '8192', 'The longest text of a message.', { unit: 'bytes' }),
  messageHistoryLimit: set(
    'MESSAGE_HISTORY_LIMIT',
    'chat',
    integer(0, 100_000),
    '1000',
    'The newest entries of each room (messages and what else has a place in its log) that are kept whatever their age. 0: none but the very newest.',
  ),
  chatRetentionDays: set(
    'CHAT_RETENTION_DAYS',
    'chat',
    integer(0, 36_500),
    '30',
    'Older entries than the newest `MESSAGE_HISTORY_LIMIT` are let go when they are also older than this, save those of the time of a recording that is kept, and a pinned message. 0: after an hour.',
    { unit: 'days' },
  ),
  moderationEnabled: set('MODERATION_ENABLED', 'chat', flag, 'true', 'Automatic moderation.'),
  moderationUrl: unset(
    'MODERATION_URL',
    'chat',
    address('http', 'https'),
    'A second judge of messages for the rooms that want it: the whole address of a service that speaks OpenAI’s `POST /v1/moderations`. It has 300 ms. Unset: nobody is asked.',
  ),
  moderationApiKey: unset('MODERATION_API_KEY', 'chat', text(), 'Sent to it as a bearer token.', { secret: true }),
  moderationModel: unset('MODERATION_MODEL', 'chat', text(200), 'The model that it is to judge with. Unset: its own choice.'),
  e2eEncryption: set(
    'E2E_ENCRYPTION',
    'chat',
    oneOf('off', 'optional', 'required'),
    'optional',
    'Whether rooms may, or must, be end-to-end encrypted.',
    { planned: true },
  ),
} as const;
