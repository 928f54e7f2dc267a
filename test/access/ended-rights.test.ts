import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { chatAuthorization, type ProvenIdentity, provenIdentityOf } from '../../src/access/chat-authorization.js';
import { ACTS, type ActName, HOLDINGS, type Holding } from '../../src/access/ended-rights.js';
import { judge, type Permission, type Principal } from '../../src/access/roles.js';
import { SoftAuthenticator } from '../support/authenticator.js';
import { type AccountWorld, accountWorld, client, PASSWORD } from './account-world.js';

let world: AccountWorld;
before(async () => {
  world = await accountWorld();
  await world.account('another-admin@example.org', 'admin');
  await world.access.playbackKeys.start();
});
after(() => world.stop());

const byServer: Principal = { kind: 'admin-token', id: 'admin-token', name: '', role: 'admin', secondFactor: true };
const works = (task: Promise<unknown>) =>
  task.then(
    (found) => found !== undefined,
    () => false,
  );

const anywhere = { address: () => client.address, country: () => undefined };

/** An account that holds one of each. */
async function holder(name: ActName) {
  const { channels, members, sessions, apiKeys, webhooks, registration, identity, playbackLinks, playbackRules, standing, passkeys } =
    world.access;
  const memberRole = name === 'removeHost' || name === 'hostToModerator' ? 'host' : name === 'removeModerator' ? 'moderator' : undefined;
  const isAdmin = !(ACTS[name].none as readonly Holding[]).includes('madeLink');
  const byRole = name === 'demote' || name === 'removeFactor';
  const id = await world.account(`${randomUUID()}@example.org`, isAdmin ? 'admin' : 'broadcaster');
  const other = await world.account(`${randomUUID()}@example.org`, 'broadcaster');
  await world.database.query('update accounts set totp_confirmed_at = now() where id = $1', [id]);
  const slug = `c-${randomUUID().slice(0, 8)}`;
  const settings = { title: 'x', visibility: name === 'makePrivate' ? 'public' : 'private', recording: false } as const;
  const { channel } = await channels.create(slug, settings, memberRole || byRole ? other : id);
  if (memberRole) await members.set(channel, id, memberRole);
  const streamKey = await channels.rotateKey(slug, false, id);
  const began = (await channels.standing([slug])).get(slug)!.keyVoids;
  const begin = () => sessions.begin({ accountId: id, amr: ['pwd', 'otp', 'mfa'], client });
  const [session, spare] = [await begin(), await begin()];
  const authenticator = new SoftAuthenticator({ origin: 'https://radio.example', counting: true });
  const options = await passkeys.registration({ id, email: 'x@example.org', name: 'x' });
  const passkey = await passkeys.register(id, 'x', authenticator.create(options));
  const key = (bySessionAlone: boolean, expiresAtMs?: number) =>
    apiKeys.create(id, { name: 'k', scopes: ['channels:read'], expiresAtMs, secondFactor: false, bySessionAlone });
  const [proven, alone] = [await key(false, name === 'expireApiKey' ? world.clock.wallMs() + 4000 : undefined), await key(true)];
  const { webhook } = await webhooks.create(
    channel.id,
    { url: 'https://93.184.216.34/', events: ['channel.on_air'] },
    { id: `account:${id}`, accountId: id },
  );
  const { link } = await registration.link(byServer, id);
  const playback = (right: 'links' | 'play', accountId = id) =>
    playbackLinks.issue({ kind: 'live', name: slug, expiresInS: 3600, maker: { accountId, right } });
  const [issued, own, others] = [await playback('links'), await playback('play'), await playback('links', other)];
  const admits = async (token: string) => {
    await playbackRules.refresh();
    return playbackLinks.admits('live', slug, token, anywhere);
  };
  const principal = await identity.ofCredential(session.accessToken);
  if (isAdmin) await registration.link(principal, other);
  const authorization = chatAuthorization({ ...world.access, database: world.database }, world.clock);
  const person = provenIdentityOf(principal);
  const byKey = provenIdentityOf(await identity.ofCredential(proven.secret));
  const isPending = async (accountId: string, purposes: readonly string[]) =>
    (
      await world.database.query('select 1 from one_time_links where account_id = $1 and used_at is null and purpose = any($2)', [
        accountId,
        purposes,
      ])
    ).rowCount > 0;
  /** What a process of the chat asks about an open connection. */
  const isConnected = async (somebody: ProvenIdentity) => {
    const isOver = (somebody.expiresAtMs ?? Number.POSITIVE_INFINITY) <= world.clock.wallMs();
    return !isOver && !authorization.isSessionEnded(somebody) && (await authorization.findEnded([somebody])).size === 0;
  };
  /** What a long answer asks while it is read. */
  const reads = async (permission: Permission) => {
    const [now, there] = [await standing.now(principal), await channels.get(slug)];
    return now !== undefined && there !== undefined && judge(now, permission, await members.roleOf(there, id)) === 'yes';
  };
  const probes: Record<Holding, () => Promise<boolean>> = {
    streamKey: async () => {
      const isGood = await works(channels.verifyKey(streamKey, () => true));
      assert.equal((await channels.standing([slug])).get(slug)?.keyVoids === began, isGood, 'the show and its key end together');
      return isGood;
    },
    accessToken: () => works(identity.ofCredential(session.accessToken)),
    chat: () => isConnected(person),
    refreshToken: () => works(sessions.refresh(spare.refreshToken, client).catch(() => undefined)),
    apiKey: () => works(identity.ofCredential(proven.secret)),
    keyChat: () => isConnected(byKey),
    sessionKey: () => works(identity.ofCredential(alone.secret)),
    passkey: async () => {
      const { options: asked, challengeId } = await passkeys.signIn();
      const accountId = await passkeys.verify(challengeId, authenticator.get(asked));
      return accountId !== undefined && works(sessions.begin({ accountId, amr: ['hwk', 'mfa'], client }));
    },
    webhook: () =>
      webhooks.get(channel.id, webhook.id).then(
        ({ active }) => active,
        () => false,
      ),
    link: () => isPending(id, ['recovery', 'invitation']),
    confirmation: () => isPending(id, ['confirmation']),
    issuedLink: async () => {
      if (name !== 'replacePlaybackKeys') assert.equal(await admits(others.token), true, 'a link that another account made stays good');
      return (await admits(issued.token)) && works(channels.get(slug));
    },
    ownLink: async () => (await admits(own.token)) && works(channels.get(slug)),
    madeLink: () => isPending(other, ['recovery', 'invitation']),
    desk: async () => (await isConnected(person)) && (await authorization.readAccess(channel.id))?.standingOf(person)?.moderates === 'yes',
    export: () => reads('channel.chat-settings'),
    ownExport: async () => (await standing.now(principal)) !== undefined,
    auditExport: () => reads('audit.read'),
  };
  return { id, other, channel, session, spare, proven, passkey, webhook, link, probes };
}

const DO: Record<ActName, (one: Awaited<ReturnType<typeof holder>>) => Promise<unknown>> = {
  ban: ({ id }) => world.access.accounts.ban(byServer, id, undefined),
  delete: ({ id }) => world.access.accounts.delete(id, false),
  demote: ({ id }) => world.access.accounts.setRole(id, 'listener'),
  removeHost: ({ channel, id }) => world.access.members.remove(channel, id),
  removeModerator: ({ channel, id }) => world.access.members.remove(channel, id),
  removeFactor: async ({ id }) => {
    await world.access.twoFactor.remove(id);
    await world.access.passkeys.deleteAll(id);
  },
  removePasskey: ({ id, passkey }) => world.access.passkeys.delete(id, passkey.id),
  makePrivate: ({ channel }) => world.access.channels.update(channel.slug, { visibility: 'private' }),
  deleteChannel: ({ channel }) => world.access.channels.delete(channel.slug),
  deleteWebhook: ({ channel, webhook }) => world.access.webhooks.delete(channel.id, webhook.id),
  rotateStreamKey: ({ channel, id }) => world.access.channels.rotateKey(channel.slug, true, id),
  revokeSigningKeys: () => world.access.signingKeys.rotate({ revoke: true }),
  rotateSigningKey: () => world.access.signingKeys.rotate(),
  expireApiKey: async () => undefined,
  replacePlaybackKeys: async () => {
    await world.access.playbackKeys.replace(0);
    await world.access.playbackKeys.replace(0);
  },
  hostToModerator: ({ channel, id }) => world.access.members.set(channel, id, 'moderator'),
  handOver: ({ channel, other }) => world.access.members.set(channel, other, 'owner'),
  changePassword: ({ id }) => world.access.accounts.changePassword(id, PASSWORD, 'four loud storks', undefined),
  resetPassword: ({ link }) => world.access.registration.reset(/token=([\w-]+)/.exec(link)![1]!, 'four loud storks', client.address),
  endSession: async ({ session, spare }) => {
    for (const { sessionId } of [session, spare]) await world.access.sessions.end(sessionId);
  },
  endAllSessions: async ({ id }) => {
    await world.access.sessions.endAll(id);
    await world.access.apiKeys.endThoseOfSessions(id);
  },
  deleteApiKey: ({ id, proven }) => world.access.apiKeys.delete(id, proven.apiKey.id),
};

for (const [name, { text, ends, none }] of Object.entries(ACTS) as [
  ActName,
  { text: string; ends: readonly Holding[]; none: readonly Holding[] },
][]) {
  test(`${text}: what is to end ends, and the rest stays`, async () => {
    const one = await holder(name);
    const held = (Object.keys(HOLDINGS) as Holding[]).filter((holding) => !none.includes(holding));
    for (const holding of held) if (holding !== 'refreshToken') assert.equal(await one.probes[holding](), true, `${holding}, before`);
    await DO[name](one);
    world.clock.advance(5000);
    for (const holding of held)
      assert.equal(await one.probes[holding](), !ends.includes(holding), `${holding} ${ends.includes(holding) ? 'ends' : 'stays'}`);
  });
}
