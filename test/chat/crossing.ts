import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import type { ModAction } from '../../src/chat/moderation/mod-actions.js';
import type { RoomInfo } from '../../src/chat/rooms/room.js';
import { Member, makeRoom } from '../support/chat-rooms.js';
import { type Client, checkFrame } from './chat-world.js';
import { Steps, type TestProcess, type TwoProcesses } from './two-processes.js';

/**
 * Acts in a room that cross, in one process or two: one after the other, at once, or while the first is held up before one of its steps at the database or
 * the log. Afterwards nobody may see anything of what was deleted, and everybody sees the same.
 */
let world: TwoProcesses;
export const useWorld = (made: TwoProcesses): void => {
  world = made;
};

export const MODERATOR = { id: 'mod', name: 'Mod', role: 'moderator', actor: 'account:mod' } as const;
/** Steps of one act that the acts have at most. */
export const MOST_STEPS = 40;

/** A room in which the victim has said something, and something else waits for a moderator. */
interface Scene {
  readonly info: RoomInfo;
  readonly victim: string;
  readonly said: string;
  readonly held: string;
  readonly members: readonly Member[];
  readonly tabs: readonly Client[];
}

export const say = async ({ rooms }: TestProcess, { info, victim }: Pick<Scene, 'info' | 'victim'>, text: string) => {
  const outcome = await rooms.withRoom(info.id, (room) =>
    room.publishMessage({ author: { id: victim, name: victim, role: 'viewer' }, key: randomUUID(), body: { text } }),
  );
  if (outcome.kind === 'published') await outcome.committed;
  return outcome;
};
const moderate = (action: (scene: Scene) => ModAction) => (process: TestProcess, scene: Scene) =>
  process.desk.moderate(scene.info, MODERATOR, action(scene));

const ACTS: Readonly<Record<string, (process: TestProcess, scene: Scene) => Promise<unknown>>> = {
  write: (process, scene) => say(process, scene, 'new'),
  hold: (process, scene) => say(process, scene, 'hold new'),
  pin: moderate(({ said }) => ({ action: 'pin', mid: said })),
  unpin: moderate(() => ({ action: 'pin', mid: null })),
  delete: moderate(({ said }) => ({ action: 'delete', mid: said })),
  ban: moderate(({ victim }) => ({ action: 'ban', user: victim, purge: true })),
  timeout: moderate(({ victim }) => ({ action: 'timeout', user: victim, seconds: 600 })),
  react: ({ rooms }, { info, said }) => rooms.withRoom(info.id, (room) => room.setReaction(`fan-${randomUUID()}`, said, '👍', true)),
  unban: moderate(({ victim }) => ({ action: 'unban', user: victim })),
  purge: moderate(({ victim }) => ({ action: 'purge', user: victim })),
  erase: async ({ desk }, { victim, info }) => {
    await world.database.query('insert into chat_erasures (account_id) values ($1) on conflict do nothing', [victim]);
    await desk.eraseAccount(victim, [info.id], { id: 'service', name: 'Veza' });
  },
  takeBack: ({ desk }, { info, said, victim }) =>
    desk.retractMessage(info, { mid: said, author: { id: victim, name: victim, role: 'viewer' }, body: { text: 'old' } }, 'spam'),
  approve: moderate(({ held }) => ({ action: 'approve', mid: held })),
  deny: moderate(({ held }) => ({ action: 'deny', mid: held })),
  slow: moderate(() => ({ action: 'slow', seconds: 1 + Math.floor(Math.random() * 1000) })),
  join: async (process, { info, tabs }) => tabs[world.processes.indexOf(process)]!.ask({ t: 'join', id: randomUUID(), room: info.id }),
  leave: async (process, { info, tabs }) => tabs[world.processes.indexOf(process)]!.ask({ t: 'leave', id: randomUUID(), room: info.id }),
};

/** What an act may find when another was faster. */
const expected = (error: { code?: string }) => {
  if (!['not_found', 'conflict'].includes(error.code ?? '')) throw error;
};

async function scene(): Promise<Scene> {
  const roomId = await makeRoom(world.database);
  const victim = `victim-${randomUUID()}`;
  const [one] = world.processes;
  const members: Member[] = [];
  for (const { rooms, desk } of world.processes) {
    await desk.rules.openRoom(roomId);
    members.push(new Member(await rooms.open(roomId), 0));
  }
  const info = members[0]!.room.info;
  const tabs = await Promise.all(world.processes.map((process) => world.client(process, victim)));
  for (const tab of tabs) await tab.ask({ t: 'join', id: 'first', room: roomId });
  const said = await say(one, { info, victim }, 'old');
  const held = await say(one, { info, victim }, 'hold old');
  assert.equal(held.kind, 'held');
  return { info, victim, said: said.mid, held: held.mid, members, tabs };
}

async function leaves({ members, tabs, info }: Scene): Promise<void> {
  for (const tab of tabs) tab.socket.terminate();
  for (const member of members) member.leave();
  for (const { desk } of world.processes) desk.rules.releaseRoom(info.id);
}

/** Everything that anybody can see of the room, and everything that is kept of it. */
async function check(names: readonly string[], { info, victim, said, members, tabs }: Scene): Promise<void> {
  const { database, roomLog, processes } = world;
  for (const { desk } of processes) await desk.rules.applyChanges(info.id);
  const { head } = (await roomLog.places([info.id])).get(info.id)!;
  for (const member of members) await member.until(() => member.cursor >= head);
  for (const { desk } of processes) await desk.rules.applyChanges(info.id);

  const exported = [];
  for await (const entry of processes[0].rooms.export(info.id)) exported.push(entry);
  for (const member of members) {
    assert.deepEqual(member.faults, []);
    const view: unknown[] = exported.map(({ offset }) => [offset, member.entries.get(offset)?.t, member.entries.get(offset)?.body?.text]);
    assert.deepEqual(
      view,
      exported.map(({ offset, type, body }) => [offset, type, (body as { text?: string } | undefined)?.text]),
      'a member sees what the log has',
    );
  }

  const pins = processes.map(({ desk }) => desk.rules.pinnedMessage(info.id)?.mid ?? null);
  const toldPin = exported.filter(({ type }) => type === 'pin').at(-1)?.mid ?? null;
  assert.deepEqual(pins, [toldPin, toldPin], 'the last pin that was told is the one that is shown');
  const settings = processes.map(({ desk }) => desk.rules.settingsOf(info.id).slowS);
  const toldSettings = exported.filter((entry) => entry.settings).at(-1)?.settings as { slowS: number } | undefined;
  assert.deepEqual(settings, [toldSettings?.slowS ?? 0, toldSettings?.slowS ?? 0]);

  const { rows: heldRows } = await database.query<{ body: string; decision: string | null }>(
    'select body, decision from held_messages where room_id = $1',
    [info.id],
  );
  const log = (await roomLog.read(info.id, 0, 1000))!.entries;
  const replay = await processes[1].rooms.readBetween(info.id, 0, Date.now() + 60_000, 0, 500);
  const pages = await Promise.all(members.map(({ room }) => room.readPage({ limit: 100 })));
  for (const { frames } of pages) for (const { text } of frames) checkFrame(JSON.parse(text));
  const places = {
    log: log.map(({ payload }) => payload),
    export: exported.map((entry) => JSON.stringify(entry)),
    replay: replay.map(({ payload }) => payload),
    pages: pages.flatMap(({ frames }) => frames.map(({ text, hidden }) => text + (hidden ?? ''))),
    pins: processes.map(({ desk }) => JSON.stringify(desk.rules.pinnedMessage(info.id) ?? null)),
    held: heldRows.filter(({ decision }) => decision === null).map(({ body }) => body),
  };
  const isNowhere = (text: string, but: readonly string[] = []) => {
    for (const [place, texts] of Object.entries(places))
      if (!but.includes(place)) assert.ok(!texts.some((one) => one.includes(`"text":"${text}"`)), `"${text}" is still in ${place}`);
  };
  const isDone = (...any: string[]) => names.some((name) => any.includes(name));
  if (isDone('ban', 'purge', 'erase')) for (const text of ['old', 'hold old']) isNowhere(text);
  if (isDone('erase') || (isDone('ban') && !isDone('unban'))) for (const text of ['new', 'hold new']) isNowhere(text);
  if (isDone('delete')) isNowhere('old', isDone('takeBack') ? ['held'] : []);
  if (isDone('takeBack')) isNowhere('old', ['held']);
  const decided = heldRows.find(({ body }) => body.includes('hold old'))?.decision;
  if (decided === 'denied') isNowhere('hold old');
  if (pins[0] !== null) assert.equal(exported.find(({ mid, type }) => mid === said && type === 'msg')?.mid, said);

  const { rows: reacted } = await database.query(
    `select mid from reactions x where room_id = $1 and not exists (select from messages m where m.room_id = x.room_id and m.mid = x.mid and m.type = 'msg')
     union select mid from reaction_counts x
       where room_id = $1 and not exists (select from messages m where m.room_id = x.room_id and m.mid = x.mid and m.type = 'msg')`,
    [info.id],
  );
  assert.deepEqual(reacted, [], 'reactions go with their message');

  const isBanned = (await processes[0].desk.sanctions.findBan(info.id, victim)) !== undefined;
  assert.equal(isBanned, isDone('ban') && (await wasLastBanned(info.id, victim)));
  for (const [index, process] of processes.entries()) {
    const inRoom =
      process.gateway.localRooms.roomOf(info.id)?.members.some(({ connection }) => connection.identity?.id === victim) ?? false;
    if (isBanned) assert.ok(!inRoom, 'who is banned is not in the room');
    const again = await tabs[index]!.ask({ t: 'join', id: randomUUID(), room: info.id });
    assert.equal(again.code ?? again.t, isBanned ? 'banned' : 'joined', 'and with another tab he is as he is');
    const outcome = await say(process, { info, victim }, `after ${index}`);
    if (isBanned) assert.equal(outcome.kind === 'refused' && outcome.code, 'banned');
    else if (isDone('timeout')) assert.equal(outcome.kind === 'refused' && outcome.code, 'timed_out');
    else if (!isDone('erase', 'slow')) assert.equal(outcome.kind, 'published');
  }
}

async function wasLastBanned(roomId: string, userId: string): Promise<boolean> {
  const { rows } = await world.database.query<{ action: string }>(
    "select action from room_acts where room_id = $1 and user_id = $2 and action in ('ban', 'unban') order by id desc limit 1",
    [roomId, userId],
  );
  return rows[0]?.action === 'ban';
}

async function afterwards(names: readonly string[], how: string, acts: (one: Scene) => Promise<unknown>): Promise<void> {
  const one = await scene();
  try {
    await acts(one);
    await check(names, one);
  } catch (error) {
    throw new Error(`${names.join(' and ')}, ${how}: ${(error as Error).message}`, { cause: error });
  } finally {
    await leaves(one);
  }
}

export const ACT_NAMES = Object.keys(ACTS);
const does = (name: string, index: 0 | 1, one: Scene) => ACTS[name]!(world.processes[index], one).catch(expected);

export const oneAfterTheOther = (a: string, b: string) =>
  afterwards([a, b], 'one after the other', async (one) => {
    await does(a, 0, one);
    await does(b, 1, one);
  });

export const atOnce = (names: readonly string[]) =>
  afterwards(names, 'at once', (one) => Promise.all(names.map((name, index) => does(name, (index % 2) as 0 | 1, one))));

/** Resolves to whether the first has so many steps. The second is done in the process `where`. */
export async function heldUp(a: string, b: string, at: number, where: 0 | 1): Promise<boolean> {
  const steps = new Steps();
  await afterwards([a, b], `the first held up before its step ${at}, the second in process ${where}`, async (one) => {
    let paused = () => {};
    let resume = () => {};
    const isPaused = new Promise<void>((resolve) => {
      paused = resolve;
    });
    const resumed = new Promise<void>((resolve) => {
      resume = resolve;
    });
    const doing = steps.run(() => does(a, 0, one), at, paused, resumed);
    await Promise.race([isPaused, doing]);
    const meanwhile = does(b, where, one);
    // What it needs may be what is held up.
    await Promise.race([meanwhile, new Promise((resolve) => setTimeout(resolve, 250))]);
    resume();
    await Promise.all([doing, meanwhile]);
  });
  return steps.taken > at;
}
