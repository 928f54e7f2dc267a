import { randomBytes } from 'node:crypto';
import type { Vault } from '../vault.js';

/** A replaced secret may sign beside its successor for at most this long. */
export const MAX_OVERLAP_S = 86_400;

interface Secrets {
  secret: string;
  previous?: string;
  previousUntilMs?: number;
}

const purposeOf = (webhookId: string) => `webhook:${webhookId}`;

export const makeSecret = (): string => `whsec_${randomBytes(32).toString('base64url')}`;

export const sealSecret = (vault: Vault, webhookId: string, secrets: Secrets): Buffer =>
  vault.seal(purposeOf(webhookId), JSON.stringify(secrets));

/** The secrets that sign deliveries now, the newest first. */
export async function openSecrets(vault: Vault, webhookId: string, sealed: Uint8Array, nowMs: number): Promise<string[]> {
  const { secret, previous, previousUntilMs = 0 } = JSON.parse((await vault.open(purposeOf(webhookId), sealed)).toString()) as Secrets;
  return previous !== undefined && nowMs < previousUntilMs ? [secret, previous] : [secret];
}
