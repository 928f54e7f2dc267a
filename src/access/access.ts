import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { Database } from '../backing/database/database.js';
import { keptSecret } from '../backing/files/secret-file.js';
import { AccountLinks } from './accounts/account-links.js';
import { Accounts } from './accounts/accounts.js';
import { FreshSignIn } from './accounts/fresh-sign-in.js';
import { Mail } from './accounts/mail.js';
import { OneTimeLinks } from './accounts/one-time-links.js';
import { Passwords } from './accounts/passwords.js';
import { Registration } from './accounts/registration.js';
import { WayInMails } from './accounts/ways-in.js';
import { Audit } from './audit.js';
import { Channels } from './channels.js';
import { RateLimits } from './limits/rate-limits.js';
import { Members } from './members.js';
import { EndedLinks } from './playback/ended-links.js';
import { PlaybackGrants } from './playback/playback-grants.js';
import { PlaybackKeys } from './playback/playback-keys.js';
import { PlaybackLinks } from './playback/playback-links.js';
import { PlaybackRules } from './playback/playback-rules.js';
import { Passkeys } from './second-factor/passkeys.js';
import { TwoFactor } from './second-factor/two-factor.js';
import { AccessTokens } from './tokens/access-tokens.js';
import { loadAdminToken } from './tokens/admin-token.js';
import { ApiKeys } from './tokens/api-keys.js';
import { EndedSessions } from './tokens/ended-sessions.js';
import { Identity, type Verifier } from './tokens/identity.js';
import { type IssuersOptions, issuersOf } from './tokens/issuers.js';
import { jwtVerifier } from './tokens/jwt.js';
import { SessionFactors } from './tokens/session-factors.js';
import { Sessions } from './tokens/sessions.js';
import { SigningKeys } from './tokens/signing-keys.js';
import { StandingPrincipals } from './tokens/standing-principals.js';
import { openVault, type Vault } from './vault.js';
import { Webhooks } from './webhooks/webhooks.js';

export interface AccessOptions extends IssuersOptions {
  readonly database: Database;
  readonly dataDir: string;
  /** `ENCRYPTION_KEY`. Undefined: a key that is made at the first start and kept in `dataDir`. */
  readonly encryptionKey?: Uint8Array | undefined;
  readonly previousEncryptionKey?: Uint8Array | undefined;
  /**
   * `PUBLIC_URL`, without a slash at the end: the issuer of Veza's own tokens, and the host that
   * passkeys are bound to.
   */
  readonly publicUrl: string;
  /** `PLAYBACK_KEYS_FILE`: the file from which an edge server reads the playback keys. */
  readonly playbackKeysFile?: string | undefined;
  /** `SMTP_URL`. Undefined: no mail can be sent. */
  readonly smtpUrl?: string | undefined;
  readonly mailFrom?: string | undefined;
  /**
   * With `development` or `test`, the links of mails that cannot be sent are written to the log.
   */
  readonly environment?: 'development' | 'test' | 'production' | undefined;
  readonly registration?: 'open' | 'closed' | undefined;
  readonly defaultRole?: 'listener' | 'broadcaster' | undefined;
  readonly adminEmail?: string | undefined;
  /**
   * The Redis that shares rate limits between processes. Undefined: each process counts for itself.
   */
  readonly redisUrl?: string | undefined;
  readonly rateLimitPerMinute?: number | undefined;
  /** `MAX_CHANNELS_PER_ACCOUNT`. */
  readonly maxChannelsPerAccount?: number | undefined;
  /** Private destinations that webhooks may call: host names, addresses, ranges of addresses. */
  readonly webhookAllowedHosts?: readonly string[] | undefined;
}

/** Everything that decides who a principal is, and what they may do. */
export interface Access {
  readonly channels: Channels;
  readonly members: Members;
  readonly identity: Identity;
  readonly standing: StandingPrincipals;
  readonly audit: Audit;
  readonly vault: Vault;
  readonly passwords: Passwords;
  readonly mail: Mail;
  readonly accounts: Accounts;
  readonly registration: Registration;
  readonly freshSignIn: FreshSignIn;
  readonly signingKeys: SigningKeys;
  readonly sessions: Sessions;
  readonly ended: EndedSessions;
  readonly twoFactor: TwoFactor;
  readonly passkeys: Passkeys;
  readonly apiKeys: ApiKeys;
  readonly playbackKeys: PlaybackKeys;
  readonly playbackGrants: PlaybackGrants;
  readonly playbackLinks: PlaybackLinks;
  readonly playbackRules: PlaybackRules;
  readonly webhooks: Webhooks;
  readonly limits: RateLimits;
  /** Reads everything that must be in memory before the first request, and starts the timers. */
  start(): Promise<void>;
  /** Stops timers and threads. A second call does nothing. */
  stop(): Promise<void>;
}

export async function openAccess(options: AccessOptions): Promise<Access> {
  const { database, dataDir, clock, log } = options;
  const masterKey =
    options.encryptionKey ??
    Buffer.from(await keptSecret(join(dataDir, 'encryption-key'), () => randomBytes(32).toString('base64')), 'base64');
  const vault = await openVault({ database, masterKey, previousMasterKey: options.previousEncryptionKey, clock, log });
  const adminToken = await loadAdminToken(dataDir);
  const channels = new Channels(database, { maxOwned: options.maxChannelsPerAccount, clock });
  const members = new Members(database, channels);
  const audit = new Audit(database);
  const signingKeys = new SigningKeys({ database, vault, clock, log });
  const ended = new EndedSessions({ database, clock, log });
  const tokens = new AccessTokens({ keys: signingKeys, issuer: options.publicUrl, clock, isEnded: (id) => ended.has(id) });
  const sessions = new Sessions({ database, vault, tokens, ended, audit, clock, log });
  const playbackKeys = new PlaybackKeys({ database, vault, clock, log, file: options.playbackKeysFile });
  const playbackGrants = new PlaybackGrants({ database, clock, log });
  const endedLinks = new EndedLinks(database);
  const playbackLinks = new PlaybackLinks({ database, keys: playbackKeys, endedLinks, grants: playbackGrants, clock });
  const alsoReload = async () => {
    await playbackKeys.load();
    await endedLinks.load();
  };
  const playbackRules = new PlaybackRules({ database, channels, clock, log, alsoReload });
  const limits = new RateLimits({ clock, log, redisUrl: options.redisUrl, perMinute: options.rateLimitPerMinute });
  const webhooks = new Webhooks({ database, vault, clock, log, allowedHosts: options.webhookAllowedHosts });

  const { publicUrl } = options;
  const passwords = new Passwords();
  const mail = new Mail({
    database,
    vault,
    clock,
    log,
    smtpUrl: options.smtpUrl,
    from: options.mailFrom ?? `Veza <no-reply@${new URL(publicUrl).hostname}>`,
    showsLinks: options.environment === 'development' || options.environment === 'test',
  });
  const mails = new WayInMails(mail, publicUrl);
  const twoFactor = new TwoFactor({ database, vault, clock, tries: limits, issuer: new URL(publicUrl).hostname, mails });
  const passkeys = new Passkeys({ database, vault, clock, log, publicUrl, serviceName: 'Veza', mails });
  const apiKeys = new ApiKeys({ database, clock, log, mails });
  const oneTimeLinks = new OneTimeLinks(clock);
  const accountLinks = new AccountLinks({ links: oneTimeLinks, mail, publicUrl });
  const account = { database, clock, log, passwords, oneTimeLinks, accountLinks, mail, sessions, limits, apiKeys, publicUrl };
  const accounts = new Accounts({ ...account, audit, twoFactor, events: webhooks });
  const freshSignIn = new FreshSignIn({ database, clock, accounts, twoFactor });
  const registration = new Registration({
    ...account,
    registration: options.registration ?? 'open',
    defaultRole: options.defaultRole ?? 'listener',
    adminEmail: options.adminEmail ?? 'admin@localhost',
  });

  const verifyAdminToken: Verifier = async (credential) =>
    adminToken.matches(credential)
      ? { kind: 'admin-token', id: 'admin-token', name: 'admin token', role: 'admin', secondFactor: true }
      : undefined;
  const verifyJwt = jwtVerifier(await issuersOf(options, tokens));
  const factors = new SessionFactors({ database, clock, log });
  const identity = new Identity([verifyAdminToken, apiKeys.verify, verifyJwt], factors);

  return {
    channels,
    members,
    identity,
    standing: new StandingPrincipals({ database, clock, signingKeys }),
    audit,
    vault,
    passwords,
    mail,
    accounts,
    registration,
    freshSignIn,
    signingKeys,
    sessions,
    ended,
    twoFactor,
    passkeys,
    apiKeys,
    playbackKeys,
    playbackGrants,
    playbackLinks,
    playbackRules,
    limits,
    webhooks,
    async start() {
      await channels.start();
      await signingKeys.start();
      await ended.start();
      sessions.start();
      await playbackKeys.start();
      await playbackRules.start();
      playbackGrants.start();
      webhooks.start();
      mail.start();
      registration.start();
      const first = await registration.firstAdmin();
      if (first)
        log.info(
          { event: 'access.first_administrator_link', email: first.email, link: first.link },
          'no administrator exists yet: open this link once to become the administrator',
        );
    },
    async stop() {
      await registration.stop();
      await mail.stop();
      await passwords.stop();
      await playbackRules.stop();
      await playbackGrants.stop();
      await webhooks.stop();
      await sessions.stop();
      await ended.stop();
      await signingKeys.stop();
      await vault.stop();
      limits.stop();
    },
  };
}
