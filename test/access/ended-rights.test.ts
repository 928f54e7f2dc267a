import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { ACTS, type ActName, HOLDINGS, type Holding } from '../../src/access/ended-rights.js';
import type { Principal } from '../../src/access/roles.js';
import { type AccountWorld, accountWorld, client, PASSWORD } from './account-world.js';

let world: AccountWorld;
before(async () => {
  world = await accountWorld();
  await world.account('another-admin@example.org', 'admin');
});
after(() => world.stop());

const byServer: Principal = { kind: 'admin-token', id: 'admin-token', name: '', role: 'admin', secondFactor: true };
const works = (task: Promise<unknown>) =>
  task.then(
    (found) => found !== undefined,
    () => false,
  );

/** Somebody who holds one of each. `removeHost` and the like are about a host, the others about an owner; a demotion is of an administrator. */
async function holder(name: ActName) {
  const { channels, members, sessions, apiKeys, webhooks, registration, identity } = world.access;
  const isHost = name === 'removeHost' || name === 'hostToModerator';
  const id = await world.account(`${randomUUID()}@example.org`, name === 'demote' ? 'admin' : 'broadcaster');
  const other = await world.account(`${randomUUID()}@example.org`, 'broadcaster');
  const slug = `c-${randomUUID().slice(0, 8)}`;
  const settings = { title: 'x', visibility: 'public', recording: false } as const;
  const { channel } = await channels.create(slug, settings, isHost || name === 'demote' ? other : id);
  if (isHost) await members.set(channel, id, 'host');
  const streamKey = await channels.rotateKey(slug, false, id);
  const began = (await channels.standing([slug])).get(slug)!.keyVoids;
  const begin = () => sessions.begin({ accountId: id, amr: ['pwd'], client });
  const [session, spare] = [await begin(), await begin()];
  const key = (bySessionAlone: boolean) =>
    apiKeys.create(id, { name: 'k', scopes: ['channels:read'], expiresAtMs: undefined, secondFactor: false, bySessionAlone });
  const [proven, alone] = [await key(false), await key(true)];
  const { webhook } = await webhooks.create(
    channel.id,
    { url: 'https://93.184.216.34/', events: ['channel.on_air'] },
    { id: `account:${id}`, accountId: id },
  );
  const { link } = await registration.link(byServer, id);
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
    link: async () =>
      (await world.database.query('select 1 from one_time_links where account_id = $1 and used_at is null', [id])).rowCount > 0,
  };
  return { id, other, channel, session, spare, proven, link, probes };
}

const DO: Record<ActName, (one: Awaited<ReturnType<typeof holder>>) => Promise<unknown>> = {
  ban: ({ id }) => world.access.accounts.ban(byServer, id, undefined),
  delete: ({ id }) => world.access.accounts.delete(id, false),
  demote: ({ id }) => world.access.accounts.setRole(id, 'listener'),
  removeHost: ({ channel, id }) => world.access.members.remove(channel, id),
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

for (const [name, { text, ends }] of Object.entries(ACTS) as [ActName, { text: string; ends: readonly Holding[] }][]) {
  test(`${text}: what is to end ends, and the rest stays`, async () => {
    const one = await holder(name);
    for (const holding of Object.keys(HOLDINGS) as Holding[])
      if (holding !== 'refreshToken') assert.equal(await one.probes[holding](), true, `${holding}, before`);
    await DO[name](one);
    world.clock.advance(5000);
    for (const holding of Object.keys(HOLDINGS) as Holding[])
      assert.equal(await one.probes[holding](), !ends.includes(holding), `${holding} ${ends.includes(holding) ? 'ends' : 'stays'}`);
  });
}
