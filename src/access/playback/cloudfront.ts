import { createPrivateKey, createSign, type KeyObject } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { messageOf } from '../../runtime/errors.js';

/** One of a key group's keys, as CloudFront knows it. */
export interface CloudFrontKey {
  readonly keyPairId: string;
  /** RSA, 2048 bits. */
  readonly privateKey: KeyObject;
}

export interface CloudFrontGrant {
  /** An address, with `*` for any letters. */
  readonly resource: string;
  readonly expiresAtMs: number;
  /** An IPv4 address or network; CloudFront knows no others here. */
  readonly address?: string | undefined;
}

export interface CloudFrontCookie {
  readonly name: 'CloudFront-Expires' | 'CloudFront-Policy' | 'CloudFront-Signature' | 'CloudFront-Key-Pair-Id';
  readonly value: string;
}

/**
 * CloudFront's signed cookies. One exact address until a time is a canned policy, which CloudFront writes out for itself from the address that is asked
 * for; anything else (`*`, a client's address) is a custom one, which goes along. RSA with SHA-1 is the one that CloudFront accepts.
 */
export function cloudFrontCookies({ keyPairId, privateKey }: CloudFrontKey, grant: CloudFrontGrant): CloudFrontCookie[] {
  const { resource, address } = grant;
  const epoch = Math.floor(grant.expiresAtMs / 1000);
  const condition = {
    DateLessThan: { 'AWS:EpochTime': epoch },
    ...(address !== undefined && { IpAddress: { 'AWS:SourceIp': address } }),
  };
  // Without white space, and with the members in this order: a canned one is compared letter by letter.
  const policy = JSON.stringify({ Statement: [{ Resource: resource, Condition: condition }] });
  const signature = createSign('RSA-SHA1').update(policy).sign(privateKey);
  const isCanned = address === undefined && !/[*?]/.test(resource);
  return [
    isCanned ? { name: 'CloudFront-Expires', value: String(epoch) } : { name: 'CloudFront-Policy', value: encoded(Buffer.from(policy)) },
    { name: 'CloudFront-Signature', value: encoded(signature) },
    { name: 'CloudFront-Key-Pair-Id', value: keyPairId },
  ];
}

/** Rejects when the file holds no RSA key. */
export async function loadCloudFrontKey(keyPairId: string, file: string): Promise<CloudFrontKey> {
  try {
    const privateKey = createPrivateKey(await readFile(file));
    if (privateKey.asymmetricKeyType !== 'rsa') throw new Error('it is not an RSA key');
    return { keyPairId, privateKey };
  } catch (error) {
    throw new Error(`CLOUDFRONT_PRIVATE_KEY_FILE (${file}) cannot be used: ${messageOf(error)}`);
  }
}

/** CloudFront's own alphabet: base64 in which `+`, `=` and `/` are `-`, `_` and `~`. */
const encoded = (bytes: Buffer) => bytes.toString('base64').replaceAll('+', '-').replaceAll('=', '_').replaceAll('/', '~');
