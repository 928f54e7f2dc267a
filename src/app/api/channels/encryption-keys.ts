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
      summary: 'Makes a new key for secrets in the database.',
      description: 'Everything is encrypted again with it while the service runs.',
      access: 'service.keys',
      status: 200,
      answer: z
        .strictObject({
          keyId: z.int(),
          reencrypted: z.int().meta({ description: 'Values that are encrypted with the new key now.' }),
          unreadable: z.int().meta({ description: 'Values that do not open; the log names them. Not 0 means damage or a lost key.' }),
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
