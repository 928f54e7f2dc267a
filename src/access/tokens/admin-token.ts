import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { join } from 'node:path';
import { keptSecret } from '../../backing/files/secret-file.js';

/** The file with the token. Everybody who can read it can administer the service. */
export const adminTokenPath = (dataDir: string) => join(dataDir, 'admin-token');

export interface AdminToken {
  /** Compares in constant time. */
  matches(given: string): boolean;
}

/** Reads the token, which is made at the first start from 256 random bits. */
export async function loadAdminToken(dataDir: string): Promise<AdminToken> {
  const token = await keptSecret(adminTokenPath(dataDir), () => randomBytes(32).toString('base64url'));
  const digest = sha256(token);
  return { matches: (given) => timingSafeEqual(sha256(given), digest) };
}

const sha256 = (text: string) => createHash('sha256').update(text).digest();
