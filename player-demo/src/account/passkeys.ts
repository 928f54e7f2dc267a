import { callFresh } from '../ui/fresh-sign-in';
import { begin, callOpenly, Problem, type User } from '../ui/session';

export interface PasskeyJson {
  readonly id: string;
  readonly name: string;
  readonly createdAt: string;
  readonly lastUsedAt: string | null;
}

/**
 * Whether passkeys work: the browser must support them, and the page must come over TLS or from
 * this machine.
 */
export const passkeysWork = (): boolean => window.isSecureContext && 'PublicKeyCredential' in window;

type WebAuthnJson = Record<string, unknown>;

/**
 * Makes a passkey on this device, a security key or a phone, and registers it. Rejects with
 * `Problem`.
 */
export async function createPasskey(name: string): Promise<void> {
  const options = await callFresh<WebAuthnJson>('POST', '/me/passkeys/options');
  const credential = await asked(navigator.credentials.create({ publicKey: creationOptions(options) }));
  const response = credential.response as AuthenticatorAttestationResponse;
  await callFresh('POST', '/me/passkeys', {
    name,
    response: {
      ...idOf(credential),
      response: {
        clientDataJSON: toText(response.clientDataJSON),
        attestationObject: toText(response.attestationObject),
        transports: response.getTransports?.() ?? [],
      },
    },
  });
}

/** Signs in with a passkey. Rejects with `Problem`. */
export async function signInWithPasskey(): Promise<void> {
  const { options, challengeId } = await callOpenly<{ options: WebAuthnJson; challengeId: string }>('POST', '/auth/passkey/options');
  const credential = await asked(navigator.credentials.get({ publicKey: requestOptions(options) }));
  const response = credential.response as AuthenticatorAssertionResponse;
  const answer = await callOpenly<{ accessToken: string; expiresIn: number; refreshToken: string; user: User }>('POST', '/auth/passkey', {
    challengeId,
    response: {
      ...idOf(credential),
      response: {
        clientDataJSON: toText(response.clientDataJSON),
        authenticatorData: toText(response.authenticatorData),
        signature: toText(response.signature),
        userHandle: response.userHandle ? toText(response.userHandle) : null,
      },
    },
  });
  begin(answer);
}

async function asked(prompt: Promise<Credential | null>): Promise<PublicKeyCredential> {
  try {
    const credential = await prompt;
    if (credential) return credential as PublicKeyCredential;
    throw new DOMException('', 'NotAllowedError');
  } catch (error) {
    const name = error instanceof DOMException ? error.name : '';
    if (name === 'InvalidStateError') throw new Problem(0, 'conflict', 'This device already has a passkey for your account.');
    if (name === 'NotAllowedError' || name === 'AbortError')
      throw new Problem(0, 'cancelled', 'No passkey was used: you cancelled, or it took too long. Try again.');
    if (name === 'SecurityError') throw new Problem(0, 'insecure', 'Passkeys work only at the public address of this service.');
    throw new Problem(0, 'internal', 'This browser could not use a passkey.');
  }
}

const idOf = (credential: PublicKeyCredential) => ({
  id: credential.id,
  rawId: toText(credential.rawId),
  type: 'public-key',
  clientExtensionResults: {},
});

/**
 * Browsers got `parseCreationOptionsFromJSON` late (Safari 18.4); it would convert only these three
 * members.
 */
function creationOptions(options: WebAuthnJson): PublicKeyCredentialCreationOptions {
  const user = options.user as WebAuthnJson;
  return {
    ...options,
    challenge: toBytes(options.challenge as string),
    user: { ...user, id: toBytes(user.id as string) },
    excludeCredentials: credentials(options.excludeCredentials),
  } as unknown as PublicKeyCredentialCreationOptions;
}

const requestOptions = (options: WebAuthnJson): PublicKeyCredentialRequestOptions =>
  ({
    ...options,
    challenge: toBytes(options.challenge as string),
    allowCredentials: credentials(options.allowCredentials),
  }) as unknown as PublicKeyCredentialRequestOptions;

const credentials = (given: unknown) => ((given ?? []) as WebAuthnJson[]).map((one) => ({ ...one, id: toBytes(one.id as string) }));

function toBytes(text: string): Uint8Array<ArrayBuffer> {
  const binary = atob(text.replaceAll('-', '+').replaceAll('_', '/'));
  return Uint8Array.from(binary, (letter) => letter.charCodeAt(0));
}

function toText(bytes: ArrayBuffer): string {
  const binary = Array.from(new Uint8Array(bytes), (byte) => String.fromCharCode(byte)).join('');
  return btoa(binary).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}
