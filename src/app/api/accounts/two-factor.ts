import type { AuthenticationResponseJSON, RegistrationResponseJSON } from '@simplewebauthn/server';
import { z } from 'zod';
import type { Audit } from '../../../access/audit.js';
import { ANONYMOUS, beyondKeys, keyReaches, type Principal, type Role } from '../../../access/roles.js';
import { MAX_PASSKEY_NAME_CHARS, type Passkey, type Passkeys } from '../../../access/second-factor/passkeys.js';
import { RECOVERY_CODES, type TwoFactor, wrongCode } from '../../../access/second-factor/two-factor.js';
import { VezaError } from '../../../runtime/errors.js';
import { isoOf, type Operation, type OperationCall, operation, pageOf, type RequestOrigin } from '../openapi.js';
import { PATTERNS, text } from '../request-schemas.js';
import { passwordSchema, signedInSchema } from './sign-in.js';

/** The methods of accounts that these operations use. */
interface FactorAccounts {
  get(id: string): Promise<{ id: string; email: string; name: string; role: Role; bannedAtMs?: number | undefined } | undefined>;
  checkPassword(accountId: string, password: string): Promise<boolean>;
}

/**
 * The methods of sessions that these operations use. `amr` lists how the person was authenticated
 * (RFC 8176).
 */
interface FactorSessions {
  begin(of: {
    accountId: string;
    amr: readonly string[];
    client: Pick<RequestOrigin, 'address' | 'userAgent'>;
  }): Promise<{ accessToken: string; expiresIn: number; refreshToken: string }>;
  upgrade(sessionId: string, amr: readonly string[]): Promise<{ accessToken: string; expiresIn: number }>;
  endAll(accountId: string, options?: { except?: string | undefined }): Promise<unknown>;
}

/** The methods of the limits that these operations use. Only attempts that reject count. */
interface FactorLimits {
  attempt<T>(bucket: 'sign-in-address', key: string, task: () => Promise<T>): Promise<T>;
}

/** A code of the app or a recovery code, as people type it. */
export const codeSchema = text({
  min: 6,
  max: 40,
  pattern: '^[A-Za-z0-9_ -]+$',
  description: 'The app’s six digits, or a recovery code.',
});
const recoveryCodesSchema = z.array(z.string()).length(RECOVERY_CODES).meta({ description: 'Shown only once; each code works once.' });
const tokenShape = { accessToken: z.string(), expiresIn: z.int().meta({ description: 'Seconds until the access token expires.' }) };

const base64url = (max: number) => text({ max, pattern: '^[A-Za-z0-9_-]+=*$' });
const transportsSchema = z.array(z.enum(['ble', 'cable', 'hybrid', 'internal', 'nfc', 'smart-card', 'usb'])).max(8);
/**
 * `PublicKeyCredential.toJSON()`. Browsers add members, so unknown ones are dropped, not refused.
 */
const registrationSchema = z.object({
  id: base64url(1400),
  rawId: base64url(1400),
  type: z.literal('public-key'),
  response: z.object({
    clientDataJSON: base64url(8192),
    attestationObject: base64url(16384),
    // A transport is only a hint for the next sign-in: an unknown one is dropped, and the passkey
    // is taken.
    transports: z
      .unknown()
      .transform((given) => transportsSchema.safeParse(given).data)
      .optional()
      .meta({ description: 'WebAuthn’s `getTransports()`; unknown values are dropped.' }),
  }),
  clientExtensionResults: z.object({}).optional(),
});
const assertionSchema = z.object({
  id: base64url(1400),
  rawId: base64url(1400),
  type: z.literal('public-key'),
  response: z.object({
    clientDataJSON: base64url(8192),
    authenticatorData: base64url(8192),
    signature: base64url(4096),
    userHandle: base64url(128).nullish(),
  }),
  clientExtensionResults: z.object({}).optional(),
});
const webAuthnOptions = z
  .record(z.string(), z.unknown())
  .meta({ id: 'WebAuthnOptions', description: 'WebAuthn options in JSON, for `parse…OptionsFromJSON`.' });
const passkeySchema = z
  .strictObject({
    id: z.string(),
    name: z.string(),
    createdAt: z.iso.datetime(),
    lastUsedAt: z.iso.datetime().nullable(),
  })
  .meta({ id: 'Passkey' });
const shownPasskey = (passkey: Passkey): z.infer<typeof passkeySchema> => ({
  id: passkey.id,
  name: passkey.name,
  createdAt: isoOf(passkey.createdAtMs),
  lastUsedAt: passkey.lastUsedAtMs === undefined ? null : isoOf(passkey.lastUsedAtMs),
});

export interface TwoFactorOperationsOptions {
  twoFactor: TwoFactor;
  passkeys: Passkeys;
  accounts: FactorAccounts;
  sessions: FactorSessions;
  limits: FactorLimits;
  audit: Pick<Audit, 'record'>;
}

/** Operations for the second factor of one's own account, and for signing in with a passkey. */
export function twoFactorOperations(options: TwoFactorOperationsOptions): Operation[] {
  const { twoFactor, passkeys, accounts, sessions, limits, audit: log } = options;
  const self = async ({ principal }: Pick<OperationCall, 'principal'>) => {
    const account = await accounts.get(principal.accountId!);
    if (!account) throw new VezaError('unauthorized', 'This account is deleted.');
    return account;
  };
  /**
   * Refuses a session without a second factor when the account has one: somebody who only knows the
   * password must not add another.
   */
  const provenAsFarAsPossible = async (principal: Principal) => {
    if (principal.secondFactor) return;
    if ((await twoFactor.isOn(principal.accountId!)) || (await passkeys.count(principal.accountId!)) > 0)
      throw new VezaError('second_factor_missing', 'This account has a second factor: sign in with it, then change it.');
  };
  const codeOrRefuse = async (accountId: string, code: string) => {
    if (!(await twoFactor.check(accountId, code))) throw wrongCode();
  };

  return [
    operation({
      id: 'beginTotp',
      method: 'post',
      path: '/me/totp',
      summary: 'Makes a secret for an authenticator app.',
      description: 'It is in use once a code was confirmed (`confirmTotp`).',
      access: 'account',
      wantsFreshSignIn: true,
      status: 200,
      answer: z.strictObject({
        secret: z.string().meta({ description: 'The secret in Base32, for typing.' }),
        uri: z.string().meta({ description: 'An `otpauth:` address, for a QR code.' }),
      }),
      errors: ['conflict', 'second_factor_missing'],
      async handle(call) {
        const account = await self(call);
        await provenAsFarAsPossible(call.principal);
        return twoFactor.begin(account);
      },
    }),
    operation({
      id: 'confirmTotp',
      method: 'post',
      path: '/me/totp/confirm',
      summary: 'Turns the authenticator app on with its first code.',
      description: 'This session then counts as signed in with a second factor; all other sessions end.',
      access: 'account',
      wantsFreshSignIn: true,
      body: z.strictObject({ code: codeSchema }),
      status: 200,
      answer: z.strictObject({ recoveryCodes: recoveryCodesSchema, ...tokenShape }),
      errors: ['conflict', 'invalid_credentials', 'rate_limited', 'second_factor_missing'],
      async handle({ principal, body }) {
        await provenAsFarAsPossible(principal);
        const recoveryCodes = await twoFactor.confirm(principal.accountId!, body.code);
        const { accessToken, expiresIn } = await sessions.upgrade(principal.sessionId!, ['otp', 'mfa']);
        // The other sessions were opened with a password alone, perhaps by somebody who found it
        // out.
        await sessions.endAll(principal.accountId!, { except: principal.sessionId });
        return { recoveryCodes, accessToken, expiresIn };
      },
    }),
    operation({
      id: 'removeTotp',
      method: 'post',
      path: '/me/totp/remove',
      summary: 'Turns the authenticator app off.',
      description: 'Its recovery codes stop working.',
      access: 'account',
      body: z.strictObject({ password: passwordSchema, code: codeSchema }),
      status: 204,
      errors: ['conflict', 'invalid_credentials', 'rate_limited'],
      async handle({ principal, body }) {
        const accountId = principal.accountId!;
        if (!(await twoFactor.isOn(accountId))) throw new VezaError('conflict', 'There is no authenticator app to remove.');
        if (!(await accounts.checkPassword(accountId, body.password))) throw new VezaError('invalid_credentials', 'The password is wrong.');
        await codeOrRefuse(accountId, body.code);
        await twoFactor.remove(accountId);
      },
    }),
    operation({
      id: 'renewRecoveryCodes',
      method: 'post',
      path: '/me/recovery-codes',
      summary: 'Makes new recovery codes.',
      description: 'The old codes stop working.',
      access: 'account',
      body: z.strictObject({ code: codeSchema }),
      status: 200,
      answer: z.strictObject({ recoveryCodes: recoveryCodesSchema }),
      errors: ['conflict', 'invalid_credentials', 'rate_limited'],
      async handle({ principal, body }) {
        const accountId = principal.accountId!;
        if (!(await twoFactor.isOn(accountId))) throw new VezaError('conflict', 'Set up an authenticator app first.');
        await codeOrRefuse(accountId, body.code);
        return { recoveryCodes: await twoFactor.renewRecoveryCodes(accountId) };
      },
    }),
    operation({
      id: 'listPasskeys',
      method: 'get',
      path: '/me/passkeys',
      summary: 'Lists my passkeys.',
      description: 'The newest comes first.',
      access: 'account',
      status: 200,
      answer: pageOf(passkeySchema),
      errors: [],
      handle: async ({ principal }) => ({ items: (await passkeys.list(principal.accountId!)).map(shownPasskey), next: null }),
    }),
    operation({
      id: 'beginPasskey',
      method: 'post',
      path: '/me/passkeys/options',
      summary: 'Gives the options for `navigator.credentials.create`.',
      description: 'They can be used once, within 5 minutes.',
      access: 'account',
      wantsFreshSignIn: true,
      status: 200,
      answer: webAuthnOptions,
      errors: ['conflict', 'second_factor_missing'],
      async handle(call) {
        const account = await self(call);
        await provenAsFarAsPossible(call.principal);
        return passkeys.registration(account);
      },
    }),
    operation({
      id: 'createPasskey',
      method: 'post',
      path: '/me/passkeys',
      summary: 'Registers a passkey.',
      description: 'Send the answer of `navigator.credentials.create`.',
      access: 'account',
      wantsFreshSignIn: true,
      body: z.strictObject({
        name: text({ max: MAX_PASSKEY_NAME_CHARS, pattern: PATTERNS.song, trimmed: true }),
        response: registrationSchema,
      }),
      status: 201,
      answer: passkeySchema,
      errors: ['conflict', 'not_found', 'second_factor_missing'],
      async handle({ principal, body, audit, created }) {
        await provenAsFarAsPossible(principal);
        const response = { ...body.response, clientExtensionResults: {} } as RegistrationResponseJSON;
        const passkey = await passkeys.register(principal.accountId!, body.name, response);
        audit({ target: `passkey:${passkey.id.slice(0, 64)}` });
        created(`/me/passkeys/${passkey.id}`);
        return shownPasskey(passkey);
      },
    }),
    operation({
      id: 'deletePasskey',
      method: 'delete',
      path: '/me/passkeys/{id}',
      summary: 'Deletes a passkey.',
      access: 'account',
      wantsFreshSignIn: true,
      params: z.strictObject({ id: base64url(1400) }),
      status: 204,
      errors: ['not_found', 'second_factor_missing'],
      async handle({ principal, params, audit }) {
        await provenAsFarAsPossible(principal);
        audit({ target: `passkey:${params.id.slice(0, 64)}` });
        await passkeys.delete(principal.accountId!, params.id);
      },
    }),
    operation({
      id: 'beginPasskeySignIn',
      method: 'post',
      path: '/auth/passkey/options',
      provenByBody: true,
      unaudited: true,
      summary: 'Gives the options for `navigator.credentials.get`.',
      description: 'They can be used once, within 5 minutes.',
      access: 'anyone',
      status: 200,
      answer: z.strictObject({ options: webAuthnOptions, challengeId: z.uuid() }),
      errors: ['rate_limited'],
      handle: () => passkeys.signIn(),
    }),
    operation({
      id: 'signInWithPasskey',
      method: 'post',
      path: '/auth/passkey',
      provenByBody: true,
      summary: 'Signs in with a passkey.',
      description: 'Send the answer of `navigator.credentials.get`. A passkey counts as a second factor.',
      access: 'anyone',
      body: z.strictObject({ challengeId: z.uuid(), response: assertionSchema }),
      status: 200,
      answer: signedInSchema,
      errors: ['invalid_credentials', 'rate_limited'],
      async handle({ body, client, audit, proven }) {
        const { userHandle, ...rest } = body.response.response;
        const response = {
          ...body.response,
          response: userHandle == null ? rest : { ...rest, userHandle },
          clientExtensionResults: {},
        } as AuthenticationResponseJSON;
        const account = await limits.attempt('sign-in-address', client.address, async () => {
          const accountId = await passkeys.verify(body.challengeId, response);
          const found = accountId === undefined ? undefined : await accounts.get(accountId);
          if (found && found.bannedAtMs === undefined) return found;
          await log.record({
            principal: ANONYMOUS,
            action: 'signInFailed',
            address: client.address,
            requestId: client.requestId,
            target: found && `account:${found.id}`,
            details: { reason: found ? 'banned' : 'passkey' },
          });
          throw new VezaError('invalid_credentials', 'This passkey opens no account here.');
        });
        await proven(account.id);
        const { id, email, name, role } = account;
        const { accessToken, expiresIn, refreshToken } = await sessions.begin({ accountId: id, amr: ['hwk', 'mfa'], client });
        audit({ target: `account:${id}` });
        return { accessToken, expiresIn, refreshToken, user: { id, email, name, role } };
      },
    }),
    operation({
      id: 'removeSecondFactor',
      method: 'delete',
      path: '/accounts/{id}/second-factor',
      summary: 'Removes the second factor of an account.',
      description:
        'For people who have lost it: removes the app, recovery codes and passkeys, and ends the account’s sessions. Not for the caller’s own account: use `removeTotp` and `deletePasskey`.',
      access: 'accounts.manage',
      wantsFreshSignIn: true,
      params: z.strictObject({ id: z.uuid() }),
      status: 204,
      errors: ['not_found'],
      async handle({ params, principal, audit }) {
        audit({ target: `account:${params.id}` });
        // Removing one's own takes the password and a code (`removeTotp`): a session alone must not
        // be enough.
        if (params.id === principal.accountId)
          throw new VezaError(
            'forbidden',
            'This is not for your own account: remove the app with your password and a code (POST /me/totp/remove).',
          );
        const account = await accounts.get(params.id);
        if (!account) throw new VezaError('not_found', 'There is no such account.');
        if (!keyReaches(principal, account.role)) throw beyondKeys();
        await twoFactor.remove(params.id);
        await passkeys.deleteAll(params.id);
        await sessions.endAll(params.id);
      },
    }),
  ];
}
