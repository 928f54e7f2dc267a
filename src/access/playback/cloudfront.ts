import { createPrivateKey, createSign, type KeyObject } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { messageOf } from '../../runtime/errors.js';

/** One key of a CloudFront key group. */
export interface CloudFrontKey {
  readonly keyPairId: string;
  /** RSA, 2048 bits. */
  readonly privateKey: KeyObject;
}

export interface CloudFrontGrant {
  /** An address, in which `*` stands for any characters. */
  readonly resource: string;
  readonly expiresAtMs: number;
  /** An IPv4 address or network. CloudFront's policies accept no other address. */
  readonly address?: string | undefined;
}

export interface CloudFrontCookie {
  readonly name: 'CloudFront-Expires' | 'CloudFront-Policy' | 'CloudFront-Signature' | 'CloudFront-Key-Pair-Id';
  readonly value: string;
}

/**
 * CloudFront's signed cookies. A grant for one exact address and a time is a canned policy, which
 * CloudFront rebuilds from the requested address. Any other grant (with `*` or a client's address)
 * is a custom policy, which is sent in a cookie. RSA with SHA-1 is the only signature that
 * CloudFront accepts.
 */
export function cloudFrontCookies({ keyPairId, privateKey }: CloudFrontKey, grant: CloudFrontGrant): CloudFrontCookie[] {
  const { resource, address } = grant;
  const epoch = Math.floor(grant.expiresAtMs / 1000);
  const condition = {
    DateLessThan: { 'AWS:EpochTime': epoch },
    ...(address !== undefined && { IpAddress: { 'AWS:SourceIp': address } }),
  };
  // The policy has no white space and this order of members, because CloudFront compares a canned
  // policy byte by byte.
  const policy = JSON.stringify({ Statement: [{ Resource: resource, Condition: condition }] });
  const signature = createSign('RSA-SHA1').update(policy).sign(privateKey);
  const isCanned = address === undefined && !/[*?]/.test(resource);
  return [
    isCanned ? { name: 'CloudFront-Expires', value: String(epoch) } : { name: 'CloudFront-Policy', value: encoded(Buffer.from(policy)) },
    { name: 'CloudFront-Signature', value: encoded(signature) },
    { name: 'CloudFront-Key-Pair-Id', value: keyPairId },
  ];
}

/** Reads the key. Rejects if the file cannot be read or holds no RSA key. */
export async function loadCloudFrontKey(keyPairId: string, file: string): Promise<CloudFrontKey> {
  try {
    const privateKey = createPrivateKey(await readFile(file));
    if (privateKey.asymmetricKeyType !== 'rsa') throw new Error('it is not an RSA key');
    return { keyPairId, privateKey };
  } catch (error) {
    throw new Error(`CLOUDFRONT_PRIVATE_KEY_FILE (${file}) cannot be used: ${messageOf(error)}`);
  }
}

/** CloudFront's alphabet: base64 with `+`, `=` and `/` replaced by `-`, `_` and `~`. */
const encoded = (bytes: Buffer) => bytes.toString('base64').replaceAll('+', '-').replaceAll('=', '_').replaceAll('/', '~');
