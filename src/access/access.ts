import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { Database } from '../backing/database.js';
import { keptSecret } from '../backing/secret-file.js';
import type { Clock } from '../runtime/clock.js';
import type { Log } from '../runtime/log.js';
import { loadAdminToken } from './admin-token.js';
import { Audit } from './audit.js';
import { Channels } from './channels.js';
import { Identity, type Verifier } from './identity.js';
import { Members } from './members.js';
import { openVault, type Vault } from './vault.js';

export interface AccessOptions {
  readonly database: Database;
  readonly dataDir: string;
  readonly clock: Clock;
  readonly log: Log;
  /** `ENCRYPTION_KEY`; undefined: one that is made once and kept in `dataDir`. */
  readonly encryptionKey?: Uint8Array | undefined;
  readonly previousEncryptionKey?: Uint8Array | undefined;
}

/** The room, composed: who is who, and who may do what. */
export interface Access {
  readonly channels: Channels;
  readonly members: Members;
  readonly identity: Identity;
  readonly audit: Audit;
  readonly vault: Vault;
  /** Reads what has to be known before the first request. */
  start(): Promise<void>;
  /** Twice is harmless. */
  stop(): Promise<void>;
}

export async function openAccess(options: AccessOptions): Promise<Access> {
  const { database, dataDir, clock, log } = options;
  const masterKey =
    options.encryptionKey ??
    Buffer.from(await keptSecret(join(dataDir, 'encryption-key'), () => randomBytes(32).toString('base64')), 'base64');
  const vault = await openVault({ database, masterKey, previousMasterKey: options.previousEncryptionKey, clock, log });
  const adminToken = await loadAdminToken(dataDir);
  const channels = new Channels(database);
  const members = new Members(database, channels);
  const audit = new Audit(database);

  const verifyAdminToken: Verifier = async (credential) =>
    adminToken.matches(credential)
      ? { kind: 'admin-token', id: 'admin-token', name: 'admin token', role: 'admin', secondFactor: true }
      : undefined;
  const identity = new Identity([verifyAdminToken]);

  return {
    channels,
    members,
    identity,
    audit,
    vault,
    start: () => channels.start(),
    async stop() {
      vault.stop();
    },
  };
}
