import { randomBytes } from 'node:crypto';
import type { Database } from '../../backing/database/database.js';

/** The part of the vault that this file uses. */
export interface Sealer {
  seal(purpose: string, plain: Uint8Array): Buffer;
  open(purpose: string, sealed: Uint8Array): Promise<Buffer>;
}

const NAME = 'address-key';

/** The key that addresses are hashed with: created once, sealed, and the same in every process. */
export async function addressKey(database: Database, vault: Sealer): Promise<Buffer> {
  await database.query('insert into chat_secrets (name, sealed_secret) values ($1, $2) on conflict do nothing', [
    NAME,
    vault.seal(`chat:${NAME}`, randomBytes(32)),
  ]);
  const { rows } = await database.query<{ sealed_secret: Buffer }>('select sealed_secret from chat_secrets where name = $1', [NAME]);
  return vault.open(`chat:${NAME}`, rows[0]!.sealed_secret);
}
