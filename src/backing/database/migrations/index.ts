import { channels } from './0001-channels.js';
import { access } from './0002-access.js';
import { chat } from './0003-chat.js';
import { chatModeration } from './0004-chat-moderation.js';
import { nowPlaying } from './0005-now-playing.js';
import { chatRetention } from './0006-chat-retention.js';
import { chatEpochs } from './0007-chat-epochs.js';
import { endedRights } from './0008-ended-rights.js';
import { chatCrossingActs } from './0009-chat-crossing-acts.js';
import { freshSignIn } from './0010-fresh-sign-in.js';
import { endedLinks } from './0011-ended-links.js';
import { moreCrossingActs } from './0012-more-crossing-acts.js';

/**
 * Every migration in order. Each is applied once, all together in one transaction. A released
 * migration is never changed; a later change is a new file. They are modules and not .sql files, so
 * that the build has nothing to copy.
 */
export const MIGRATIONS: readonly { readonly name: string; readonly sql: string }[] = [
  { name: '0001-channels', sql: channels },
  { name: '0002-access', sql: access },
  { name: '0003-chat', sql: chat },
  { name: '0004-chat-moderation', sql: chatModeration },
  { name: '0005-now-playing', sql: nowPlaying },
  { name: '0006-chat-retention', sql: chatRetention },
  { name: '0007-chat-epochs', sql: chatEpochs },
  { name: '0008-ended-rights', sql: endedRights },
  { name: '0009-chat-crossing-acts', sql: chatCrossingActs },
  { name: '0010-fresh-sign-in', sql: freshSignIn },
  { name: '0011-ended-links', sql: endedLinks },
  { name: '0012-more-crossing-acts', sql: moreCrossingActs },
];
