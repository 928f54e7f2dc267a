import { randomBytes, randomUUID } from 'node:crypto';
import type { Database } from '../../src/backing/database/database.js';
import type { Moderator } from '../../src/chat/moderation/acts.js';
import { type ModeratedRoom, ModerationService } from '../../src/chat/moderation/service.js';
import { midOf } from '../../src/chat/protocol/entry-frame.js';
import type { RoomRole } from '../../src/chat/protocol/protocol.js';
import type { Author, Erasure, HeldMessage, RoomInfo } from '../../src/chat/rooms/room.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { openTestDatabase } from '../support/database.js';

/** A room that writes down what it is told. */
class ToldList implements ModeratedRoom {
  readonly acts: { type: string; payload: Record<string, unknown> }[] = [];
  readonly erased: unknown[] = [];
  readonly approved: HeldMessage[] = [];
  readonly recents = new Map<string, string>();
  failure: Error | undefined;
  readonly barred: { userId: string; forMs: number; why: string }[] = [];
  /** What the archive does with a deletion. */
  onErase: (what: Erasure) => Promise<void> = async () => undefined;
  #offset = 100;

  async appendEntry(entry: { type: string; payload: Readonly<Record<string, unknown>> }) {
    if (this.failure) throw this.failure;
    this.acts.push(structuredClone(entry));
    return { epoch: 1, offset: ++this.#offset };
  }
  async eraseMessages(what: Erasure) {
    if (this.failure) throw this.failure;
    this.erased.push(what);
    await this.onErase(what);
    return { epoch: 1, offset: ++this.#offset };
  }
  async publishHeld(held: HeldMessage) {
    if (this.failure) throw this.failure;
    this.approved.push(held);
    return { epoch: 1, offset: ++this.#offset };
  }
  async untilStored() {
    if (this.failure) throw this.failure;
  }
  async barUser(userId: string, forMs: number, why: string) {
    if (this.failure) throw this.failure;
    this.barred.push({ userId, forMs, why });
  }
  recentMessage(mid: string) {
    const userId = this.recents.get(mid);
    return userId === undefined ? undefined : { userId };
  }
}

export interface DeskWorld {
  readonly database: Database;
  readonly clock: FakeClock;
  readonly told: ToldList;
  readonly audited: { action: string; principal: { id: string }; target?: string | undefined; details?: unknown }[];
  readonly addressKey: Buffer;
  readonly room: RoomInfo;
  /** Of another process. */
  desk(): ModerationService;
  /** An account, with a role in the room. */
  person(role?: RoomRole, address?: string): Promise<Author & Moderator>;
  /** A message as the archive has it. */
  message(author: Author, text: string): Promise<string>;
  /** The time passes, and what is due at the end of it is done when it resolves. */
  pass(ms: number): Promise<void>;
  stop(): Promise<void>;
}

/** PostgreSQL with a channel and its room, and as many processes as a test asks for. */
export async function deskWorld(): Promise<DeskWorld> {
  const database = await openTestDatabase();
  const clock = new FakeClock();
  const told = new ToldList();
  const audited: DeskWorld['audited'] = [];
  const addressKey = randomBytes(32);
  const desks: ModerationService[] = [];
  const roles = new Map<string, { name: string; role: RoomRole }>();
  const channelId = randomUUID();
  await database.query(`insert into channels (id, slug, title, visibility, stream_key_hash) values ($1, 'radio', 'x', 'public', $2)`, [
    channelId,
    randomBytes(32),
  ]);
  const { rows } = await database.query<{ id: string }>('select id from rooms where channel_id = $1', [channelId]);
  const room: RoomInfo = { id: rows[0]!.id, slug: 'radio', channelId, visibility: 'public', settings: {} };
  told.onErase = async (what) => {
    const [column, values] = 'userId' in what ? ['user_id', [what.userId]] : ['mid', what.mids];
    await database.query(`update messages set type = 'gone', payload = '{}', user_id = null where room_id = $1 and ${column} = any($2)`, [
      room.id,
      values,
    ]);
  };
  let offset = 0;
  return {
    database,
    clock,
    told,
    audited,
    addressKey,
    room,
    desk() {
      const desk = new ModerationService({
        database,
        clock,
        log: silentLog,
        addressKey,
        people: {
          find: async (id) => roles.get(id),
          names: async (ids) => new Map(ids.flatMap((id) => (roles.has(id) ? [[id, roles.get(id)!.name] as const] : []))),
        },
        audit: {
          record: async (entry) => {
            audited.push(entry);
          },
        },
        withRoom: (_roomId, work) => work(told),
      });
      desks.push(desk);
      return desk;
    },
    async person(role = 'viewer', address) {
      const id = randomUUID();
      const name = `${role} ${roles.size}`;
      roles.set(id, { name, role });
      return { id, name, role, actor: `account:${id}`, sinceMs: 0, ...(address !== undefined && { address }) };
    },
    async message(author, text) {
      offset++;
      const mid = midOf(room.id, author.id, `key-${offset}`);
      const payload = { mid, user: { id: author.id, name: author.name, role: author.role }, body: { text } };
      await database.query(
        `insert into messages (room_id, "offset", epoch, type, mid, key, user_id, payload, created_at) values ($1, $2, 1, 'msg', $3, $4, $5, $6, now())`,
        [room.id, offset, mid, `key-${offset}`, author.id, JSON.stringify(payload)],
      );
      return mid;
    },
    async pass(ms) {
      clock.advance(ms);
      // Every look that has begun has ended when another one has, and what it found is read.
      for (const desk of desks) await desk.rules.applyChanges(room.id);
    },
    async stop() {
      for (const desk of desks) await desk.stop();
      await database.stop();
    },
  };
}
