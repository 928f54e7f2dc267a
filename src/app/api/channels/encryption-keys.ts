import { z } from 'zod';
import type { Vault } from '../../../access/vault.js';
import { type Operation, operation } from '../openapi.js';

/** The operation that replaces the key with which secrets are encrypted in the database. */
export function encryptionKeyOperations({ vault }: { vault: Pick<Vault, 'rotate'> }): Operation[] {
  return [
    operation({
      id: 'rotateEncryptionKey',
      method: 'post',
      path: '/service/encryption-keys',
      summary: 'Makes a new encryption key for secrets in the database.',
      description: 'All secrets are encrypted again with the new key while the service runs.',
      access: 'service.keys',
      status: 200,
      answer: z
        .strictObject({
          keyId: z.int(),
          reencrypted: z.int().meta({ description: 'Number of values that are now encrypted with the new key.' }),
          unreadable: z.int().meta({
            description: 'Number of values that could not be decrypted; the log names them. Above 0, data is damaged or a key is lost.',
          }),
        })
        .meta({ id: 'RotatedEncryptionKey' }),
      errors: [],
      async handle({ audit }) {
        const rotated = await vault.rotate();
        audit({ target: `encryption-key:${rotated.keyId}`, details: { reencrypted: rotated.reencrypted, unreadable: rotated.unreadable } });
        return rotated;
      },
    }),
  ];
}
