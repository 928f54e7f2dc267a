import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { Audit } from '../access/audit.js';
import type { ChatAccess } from '../access/chat-authorization.js';
import { EndedLinks } from '../access/playback/ended-links.js';
import { PlaybackGrants } from '../access/playback/playback-grants.js';
import { PlaybackKeys } from '../access/playback/playback-keys.js';
import { PlaybackLinks } from '../access/playback/playback-links.js';
import { AccessTokens } from '../access/tokens/access-tokens.js';
import { loadAdminToken } from '../access/tokens/admin-token.js';
import { ApiKeys } from '../access/tokens/api-keys.js';
import { EndedSessions } from '../access/tokens/ended-sessions.js';
import { Identity, type Verifier } from '../access/tokens/identity.js';
import { type IssuersOptions, issuersOf } from '../access/tokens/issuers.js';
import { jwtVerifier } from '../access/tokens/jwt.js';
import { SessionFactors } from '../access/tokens/session-factors.js';
import { SigningKeys } from '../access/tokens/signing-keys.js';
import { openVault, type Vault } from '../access/vault.js';
import type { Database } from '../backing/database/database.js';
import { keptSecret } from '../backing/files/secret-file.js';
import { messageOf } from '../runtime/errors.js';
import { Loop } from '../runtime/loop.js';

export interface ChatAccessOptions extends IssuersOptions {
  readonly database: Database;
  readonly dataDir: string;
  readonly encryptionKey?: Uint8Array | undefined;
  readonly encryptionKeyPrevious?: Uint8Array | undefined;
}

export interface OpenedChatAccess extends ChatAccess {
  readonly vault: Vault;
  readonly audit: Audit;
  start(): Promise<void>;
  stop(): Promise<void>;
}

/**
 * The period at which playback keys and links are read again. A listener must be refused within
 * five seconds after the link's key was deleted, or after its maker lost the right to give links.
 */
const RELOAD_MS = 2000;

/**
 * Opens the part of `access` that checks tokens, and nothing else: a chat process must be small,
 * because there are several.
 */
export async function openChatAccess(options: ChatAccessOptions): Promise<OpenedChatAccess> {
  const { database, dataDir, clock, log } = options;
  const masterKey =
    options.encryptionKey ??
    Buffer.from(await keptSecret(join(dataDir, 'encryption-key'), () => randomBytes(32).toString('base64')), 'base64');
  const vault = await openVault({ database, masterKey, previousMasterKey: options.encryptionKeyPrevious, clock, log });
  const adminToken = await loadAdminToken(dataDir);
  const signingKeys = new SigningKeys({ database, vault, clock, log });
  const ended = new EndedSessions({ database, clock, log });
  const tokens = new AccessTokens({ keys: signingKeys, issuer: options.publicUrl, clock, isEnded: (id) => ended.has(id) });
  const apiKeys = new ApiKeys({ database, clock, log });
  const keys = new PlaybackKeys({ database, vault, clock, log });
  const endedLinks = new EndedLinks(database);
  const grants = new PlaybackGrants({ database, clock, log });
  const playbackLinks = new PlaybackLinks({ database, keys, endedLinks, grants, clock });
  const load = async () => {
    await keys.load();
    await endedLinks.load();
  };
  const verifyAdminToken: Verifier = async (credential) =>
    adminToken.matches(credential)
      ? { kind: 'admin-token', id: 'admin-token', name: 'admin token', role: 'admin', secondFactor: true }
      : undefined;
  const reloads = new Loop({
    clock,
    periodMs: RELOAD_MS,
    task: load,
    onError: (error) =>
      log.debug(
        { event: 'chat.links_unreadable', error: messageOf(error) },
        'could not read the playback links; the last known state stays in force',
      ),
  });
  return {
    database,
    vault,
    ended,
    signingKeys,
    playbackLinks,
    audit: new Audit(database),
    identity: new Identity(
      [verifyAdminToken, apiKeys.verify, jwtVerifier(await issuersOf(options, tokens))],
      new SessionFactors({ database, clock, log }),
    ),
    async start() {
      await signingKeys.start();
      await ended.start();
      await keys.start();
      await endedLinks.load();
      reloads.start();
    },
    async stop() {
      await reloads.stop();
      await ended.stop();
      await signingKeys.stop();
      await vault.stop();
    },
  };
}
