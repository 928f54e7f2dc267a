import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import type { Channel } from '../../src/access/channels.js';
import type { Principal, Role } from '../../src/access/roles.js';
import { type AccountWorld, accountWorld } from './account-world.js';

let world: AccountWorld;
before(async () => {
  world = await accountWorld();
});
after(() => world.stop());

const byServer: Principal = { kind: 'admin-token', id: 'admin-token', name: '', role: 'admin', secondFactor: true };
const onAir = () => true;
const offAir = () => false;
const settings = { title: 'x', visibility: 'public', recording: false } as const;

async function account(role: Role = 'listener'): Promise<string> {
  return world.account(`${randomUUID()}@example.org`, role);
}

/** A channel of `owner`, with these hosts; `maker` has made its key last. */
async function channelOf(owner: string | undefined, { hosts = [] as string[], maker = owner } = {}) {
  const slug = `c-${randomUUID().slice(0, 8)}`;
  const { channels, members } = world.access;
  const { channel } = await channels.create(slug, settings, owner);
  for (const host of hosts) await members.set(channel, host, 'host');
  const streamKey = await channels.rotateKey(slug, false, maker);
  const { keyVoids } = (await channels.standing([slug])).get(slug)!;
  return {
    channel: { ...channel, keyVoids } as Channel,
    slug,
    streamKey,
    /** A show that began now goes on, and its encoder may come back. */
    async isGood() {
      const key = await channels.verifyKey(streamKey, onAir);
      const isOnAir = (await channels.standing([slug])).get(slug)?.keyVoids === keyVoids;
      assert.equal(key !== undefined, isOnAir, 'the key and the show end together');
      return isOnAir;
    },
  };
}

test('a ban of an owner or a host makes the key of the channel void for good, whoever made it', async () => {
  const { accounts, channels } = world.access;
  const [owner, host, admin] = [await account('broadcaster'), await account(), await account('admin')];
  const cases = [
    await channelOf(owner),
    await channelOf(owner, { hosts: [host], maker: host }),
    await channelOf(owner, { maker: admin }),
    await channelOf(undefined, { hosts: [owner] }),
  ];
  const others = [await channelOf(host), await channelOf(host, { maker: admin })];
  const rotated = await channelOf(owner);
  const newer = await channels.rotateKey(rotated.slug, true, owner);
  await accounts.ban(byServer, owner, undefined);
  for (const one of cases) assert.equal(await one.isGood(), false);
  for (const one of others) assert.equal(await one.isGood(), true);
  assert.equal(await rotated.isGood(), false, 'the key of the show on air, too');
  assert.equal(await channels.verifyKey(newer, onAir), undefined);
  await accounts.unban(byServer, owner);
  for (const one of cases) assert.equal(await one.isGood(), false, 'until somebody makes a new one');
  // The host who is left makes one: it is good, and the old one does not come back with it.
  const { slug, streamKey } = cases[1]!;
  const fresh = await channels.rotateKey(slug, true, host);
  assert.equal((await channels.verifyKey(fresh, onAir))?.slug, slug);
  assert.equal(await channels.verifyKey(streamKey, onAir), undefined);
});

test('a key is void when who made it may make none any more', async () => {
  const { accounts, members, channels } = world.access;
  const [owner, host, second, admin] = [await account(), await account(), await account(), await account('admin')];
  await account('admin');

  const removed = await channelOf(owner, { hosts: [host], maker: host });
  await members.remove(removed.channel, host);
  assert.equal(await removed.isGood(), false, 'a host was removed');

  const less = await channelOf(owner, { hosts: [host], maker: host });
  await members.set(less.channel, host, 'moderator');
  assert.equal(await less.isGood(), false, 'a host is a moderator now');

  const kept = await channelOf(owner, { hosts: [host, second] });
  await members.remove(kept.channel, host);
  await members.set(kept.channel, second, 'moderator');
  assert.equal(await kept.isGood(), true, 'another made it');

  const handed = await channelOf(owner);
  await members.set(handed.channel, host, 'owner');
  assert.equal(await handed.isGood(), true, 'the former owner is a host still');
  await members.remove({ ...handed.channel, ownerId: host }, owner);
  assert.equal(await handed.isGood(), false);

  const byAdmin = await channelOf(owner, { maker: admin });
  const own = await channelOf(admin);
  await accounts.setRole(admin, 'listener');
  assert.equal(await byAdmin.isGood(), false, 'an administrator is none any more');
  assert.equal(await own.isGood(), true, 'of the own channel it needs no role');

  const gone = await channelOf(owner);
  const hosted = await channelOf(second, { hosts: [owner] });
  await accounts.delete(owner, false);
  for (const one of [gone, hosted]) assert.equal(await one.isGood(), false, 'an account was deleted');

  const ofServer = await channelOf(undefined);
  assert.equal(await ofServer.isGood(), true);
  assert.ok(await channels.rotateKey(ofServer.slug, true));
  assert.equal(await ofServer.isGood(), true, 'an ordinary rotation leaves the show on air its key');
  assert.equal(await channels.verifyKey(ofServer.streamKey, offAir), undefined);
});

test('a key that was made while its maker lost the right is void, though no trigger saw it', async () => {
  const host = await account();
  const one = await channelOf(await account(), { hosts: [host], maker: host });
  await world.database.query('alter table channel_members disable trigger members_lose_rights');
  await world.access.members.remove(one.channel, host);
  await world.database.query('alter table channel_members enable trigger members_lose_rights');
  assert.equal(await one.isGood(), false);
});

test('while the database is away a void key does not come back by what is remembered', async () => {
  const { Channels } = await import('../../src/access/channels.js');
  const { VezaError } = await import('../../src/runtime/errors.js');
  let isAway = false;
  const flaky = new Channels({
    ...world.database,
    query: async (sql, values) => {
      if (isAway) throw new VezaError('unavailable', 'away');
      return world.database.query(sql, values);
    },
  });
  const [owner, host] = [await account(), await account()];
  const one = await channelOf(owner, { hosts: [host] });
  assert.ok(await flaky.verifyKey(one.streamKey, onAir));
  await world.access.accounts.ban(byServer, owner, undefined);
  await flaky.rotateKey(one.slug, true, host);
  await flaky.standing([one.slug]);
  isAway = true;
  await assert.rejects(flaky.verifyKey(one.streamKey, onAir), { code: 'unavailable' });
});

test('webhooks are turned off when the account that set them up may manage them no more', async () => {
  const { webhooks, accounts, members } = world.access;
  const url = 'https://93.184.216.34/hook';
  const [owner, host, admin] = [await account(), await account(), await account('admin')];
  await account('admin');
  const { channel } = await channelOf(owner, { hosts: [host] });
  const make = async (channelId: string | undefined, accountId: string) =>
    (await webhooks.create(channelId, { url, events: ['channel.on_air'] }, { id: `account:${accountId}`, accountId })).webhook.id;
  const [ofOwner, ofAdmin, ofService] = [await make(channel.id, owner), await make(channel.id, admin), await make(undefined, admin)];
  const isActive = async (channelId: string | undefined, id: string) => (await webhooks.get(channelId, id)).active;

  await members.set(channel, host, 'owner');
  assert.equal(await isActive(channel.id, ofOwner), true, 'the former owner is a host still');
  await accounts.setRole(admin, 'broadcaster');
  assert.equal(await isActive(channel.id, ofAdmin), false);
  assert.equal(await isActive(undefined, ofService), false);
  assert.match((await webhooks.get(undefined, ofService)).note!, /may no longer/);
  // Who turns it on again has it from then on.
  await webhooks.update(channel.id, ofAdmin, { active: true }, { id: `account:${host}`, accountId: host });
  await accounts.ban(byServer, admin, undefined);
  assert.equal(await isActive(channel.id, ofAdmin), true);
  await accounts.ban(byServer, owner, undefined);
  assert.equal(await isActive(channel.id, ofOwner), false);
  await accounts.delete(host, false);
  assert.equal(await isActive(channel.id, ofAdmin), false);
});

test('a channel is handed to nobody who cannot sign in, and nobody who is banned has a role in one', async () => {
  const { members, registration } = world.access;
  const [owner, banned, unconfirmed, good] = [await account(), await account(), await account(), await account()];
  const invited = (await registration.invite({ email: `${randomUUID()}@example.org`, name: 'Invited', role: 'listener' })).account.id;
  await world.database.query('update accounts set banned_at = now() where id = $1', [banned]);
  await world.database.query('update accounts set confirmed_at = null where id = $1', [unconfirmed]);
  const { channel } = await channelOf(owner);
  for (const [id, state] of [
    [banned, 'banned'],
    [unconfirmed, 'unconfirmed'],
    [invited, 'invited'],
  ] as const) {
    await assert.rejects(members.set(channel, id, 'owner'), (error: unknown) => {
      const { code, details } = error as { code: string; details: object };
      assert.deepEqual([code, details], ['conflict', { state }]);
      return true;
    });
  }
  for (const role of ['host', 'moderator'] as const) await assert.rejects(members.set(channel, banned, role), { code: 'conflict' });
  await members.set(channel, invited, 'host');
  assert.equal(await members.roleOf(channel, owner), 'owner');
  await members.set(channel, good, 'owner');
});
