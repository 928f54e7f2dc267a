import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { join } from 'node:path';
import { keptSecret } from '../../backing/files/secret-file.js';

/** Where the token is: whoever can read this file administers the service. */
export const adminTokenPath = (dataDir: string) => join(dataDir, 'admin-token');

export interface AdminToken {
  /** In a time that does not depend on how much of it is right. */
  matches(given: string): boolean;
}

/** Makes the token at the first start. 256 random bits. */
export async function loadAdminToken(dataDir: string): Promise<AdminToken> {
  const token = await keptSecret(adminTokenPath(dataDir), () => randomBytes(32).toString('base64url'));
  const digest = sha256(token);
  return { matches: (given) => timingSafeEqual(sha256(given), digest) };
}

const sha256 = (text: string) => createHash('sha256').update(text).digest();
