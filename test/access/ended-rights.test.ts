import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { chatAuthorization, provenIdentityOf } from '../../src/access/chat-authorization.js';
import { ACTS, type ActName, HOLDINGS, type Holding } from '../../src/access/ended-rights.js';
import { judge, type Principal } from '../../src/access/roles.js';
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
  const { channels, members, sessions, apiKeys, webhooks, registration, identity, playbackLinks, playbackRules, standing } = world.access;
  const memberRole = name === 'removeHost' || name === 'hostToModerator' ? 'host' : name === 'removeModerator' ? 'moderator' : undefined;
  const isAdmin = !(ACTS[name].none as readonly Holding[]).includes('madeLink');
  const byRole = name === 'demote' || name === 'removeFactor';
  const id = await world.account(`${randomUUID()}@example.org`, isAdmin ? 'admin' : 'broadcaster');
  const other = await world.account(`${randomUUID()}@example.org`, 'broadcaster');
  await world.database.query('update accounts set totp_confirmed_at = now() where id = $1', [id]);
  const slug = `c-${randomUUID().slice(0, 8)}`;
  const settings = { title: 'x', visibility: 'private', recording: false } as const;
  const { channel } = await channels.create(slug, settings, memberRole || byRole ? other : id);
  if (memberRole) await members.set(channel, id, memberRole);
  const streamKey = await channels.rotateKey(slug, false, id);
  const began = (await channels.standing([slug])).get(slug)!.keyVoids;
  const begin = () => sessions.begin({ accountId: id, amr: ['pwd', 'otp', 'mfa'], client });
  const [session, spare] = [await begin(), await begin()];
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
  // The others' confirmations are no links that an administrator made.
  const isPending = async (accountId: string, besides = '') =>
    (
      await world.database.query('select 1 from one_time_links where account_id = $1 and used_at is null and purpose <> $2', [
        accountId,
        besides,
      ])
    ).rowCount > 0;
  const probes: Record<Holding, () => Promise<boolean>> = {
    streamKey: async () => {
      const isGood = await works(channels.verifyKey(streamKey, () => true));
      assert.equal((await channels.standing([slug])).get(slug)!.keyVoids === began, isGood, 'the show and its key end together');
      return isGood;
    },
    accessToken: () => works(identity.ofCredential(session.accessToken)),
    refreshToken: () => works(sessions.refresh(spare.refreshToken, client).catch(() => undefined)),
    apiKey: () => works(identity.ofCredential(proven.secret)),
    sessionKey: () => works(identity.ofCredential(alone.secret)),
    webhook: () => webhooks.get(channel.id, webhook.id).then(({ active }) => active),
    link: () => isPending(id),
    issuedLink: async () => {
      if (name !== 'replacePlaybackKeys') assert.equal(await admits(others.token), true, 'a link that another account made stays good');
      return admits(issued.token);
    },
    ownLink: () => admits(own.token),
    madeLink: () => isPending(other, 'confirmation'),
    desk: async () => {
      if (authorization.isEnded(person) || (await authorization.ended([person])).size > 0) return false;
      return (await authorization.channel(channel.id))?.standing(person)?.moderates === 'yes';
    },
    export: async () => {
      const now = await standing.now(principal);
      return now !== undefined && judge(now, 'channel.chat-settings', await members.roleOf((await channels.get(slug))!, id)) === 'yes';
    },
  };
  return { id, other, channel, session, spare, proven, link, probes };
}

const DO: Record<ActName, (one: Awaited<ReturnType<typeof holder>>) => Promise<unknown>> = {
  ban: ({ id }) => world.access.accounts.ban(byServer, id, undefined),
  delete: ({ id }) => world.access.accounts.delete(id, false),
  demote: ({ id }) => world.access.accounts.setRole(id, 'listener'),
  removeHost: ({ channel, id }) => world.access.members.remove(channel, id),
  removeModerator: ({ channel, id }) => world.access.members.remove(channel, id),
  removeFactor: ({ id }) => world.access.twoFactor.remove(id),
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
