import { createHash, createSign, generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto';
import type { AuthenticationResponseJSON, PublicKeyCredentialCreationOptionsJSON, RegistrationResponseJSON } from '@simplewebauthn/server';

type Cbor = string | number | Uint8Array | readonly Cbor[] | { readonly [name: string]: Cbor } | ReadonlyMap<number, Cbor>;

/** As much of CBOR (RFC 8949) as authenticators speak. */
export function cbor(value: Cbor): Buffer {
  const head = (major: number, count: number) => {
    if (count < 24) return Buffer.of((major << 5) | count);
    if (count < 256) return Buffer.of((major << 5) | 24, count);
    return Buffer.of((major << 5) | 25, count >> 8, count & 255);
  };
  if (typeof value === 'number') return value < 0 ? head(1, -1 - value) : head(0, value);
  if (typeof value === 'string') return Buffer.concat([head(3, Buffer.byteLength(value)), Buffer.from(value)]);
  if (value instanceof Uint8Array) return Buffer.concat([head(2, value.length), value]);
  if (Array.isArray(value)) return Buffer.concat([head(4, value.length), ...value.map(cbor)]);
  const entries = value instanceof Map ? [...value] : Object.entries(value);
  return Buffer.concat([head(5, entries.length), ...entries.flatMap(([name, member]) => [cbor(name), cbor(member as Cbor)])]);
}

interface Change {
  origin?: string;
  rpId?: string;
  userVerified?: boolean;
  type?: string;
}

/** A passkey in software: what a browser and an authenticator answer (WebAuthn 6.5), and what a dishonest one might. */
export class SoftAuthenticator {
  readonly #origin: string;
  readonly #counting: boolean;
  readonly #id = randomBytes(32);
  readonly #privateKey: KeyObject;
  readonly #publicKey: KeyObject;
  #counter = 0;
  #userHandle = '';

  constructor({ origin, counting }: { origin: string; counting: boolean }) {
    this.#origin = origin;
    this.#counting = counting;
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    this.#privateKey = privateKey;
    this.#publicKey = publicKey;
  }

  get id(): string {
    return this.#id.toString('base64url');
  }

  create(
    options: Pick<PublicKeyCredentialCreationOptionsJSON, 'challenge' | 'user'>,
    change: Change & { format?: string; statement?: Cbor | ((signed: Buffer) => Cbor) } = {},
  ): RegistrationResponseJSON {
    this.#userHandle = options.user.id;
    const { x, y } = this.#publicKey.export({ format: 'jwk' });
    // COSE (RFC 9052): kty EC2, alg ES256, crv P-256.
    const coseKey = cbor(
      new Map<number, Cbor>([
        [1, 2],
        [3, -7],
        [-1, 1],
        [-2, Buffer.from(x!, 'base64url')],
        [-3, Buffer.from(y!, 'base64url')],
      ]),
    );
    const authData = Buffer.concat([
      this.#authData(0x40, this.#next(), change),
      Buffer.alloc(16),
      Buffer.of(0, this.#id.length),
      this.#id,
      coseKey,
    ]);
    const clientData = this.#clientData('webauthn.create', options.challenge, change);
    const signed = Buffer.concat([authData, createHash('sha256').update(clientData).digest()]);
    const attStmt = typeof change.statement === 'function' ? change.statement(signed) : (change.statement ?? {});
    return {
      id: this.id,
      rawId: this.id,
      type: 'public-key',
      response: {
        clientDataJSON: clientData.toString('base64url'),
        attestationObject: cbor({ fmt: change.format ?? 'none', attStmt, authData }).toString('base64url'),
        transports: ['internal'],
      },
      clientExtensionResults: {},
    };
  }

  get(
    options: { challenge: string },
    change: Change & { counter?: number; spoilSignature?: boolean; userHandle?: string; signWith?: SoftAuthenticator } = {},
  ): AuthenticationResponseJSON {
    const clientData = this.#clientData('webauthn.get', options.challenge, change);
    const authData = this.#authData(0, change.counter ?? this.#next(), change);
    const signed = createSign('sha256').update(authData).update(createHash('sha256').update(clientData).digest());
    const signature = signed.sign((change.signWith ?? this).#privateKey);
    if (change.spoilSignature) signature[signature.length - 1]! ^= 1;
    return {
      id: this.id,
      rawId: this.id,
      type: 'public-key',
      response: {
        clientDataJSON: clientData.toString('base64url'),
        authenticatorData: authData.toString('base64url'),
        signature: signature.toString('base64url'),
        userHandle: change.userHandle ?? this.#userHandle,
      },
      clientExtensionResults: {},
    };
  }

  #next(): number {
    return this.#counting ? ++this.#counter : 0;
  }

  #clientData(type: string, challenge: string, change: Change): Buffer {
    return Buffer.from(JSON.stringify({ type: change.type ?? type, challenge, origin: change.origin ?? this.#origin, crossOrigin: false }));
  }

  #authData(flags: number, counter: number, change: Change): Buffer {
    const rpIdHash = createHash('sha256')
      .update(change.rpId ?? new URL(this.#origin).hostname)
      .digest();
    const count = Buffer.alloc(4);
    count.writeUInt32BE(counter);
    return Buffer.concat([rpIdHash, Buffer.of(flags | 1 | (change.userVerified === false ? 0 : 4)), count]);
  }
}
