import { randomBytes } from 'node:crypto';
import type { Access } from '../../src/access/access.js';
import { channelStandingOf, provenIdentityOf } from '../../src/access/chat-authorization.js';
import type { RoomsApi } from '../../src/app/api/rooms/room-access.js';
import type { Database } from '../../src/backing/database/database.js';
import { Classifier } from '../../src/chat/automod/classifier.js';
import { ModerationService } from '../../src/chat/moderation/service.js';
import { encodeEntry, logKeyOf, midOf } from '../../src/chat/protocol/entry-frame.js';
import { PageLimits } from '../../src/chat/rooms/page-limits.js';
import type { AppendedAt, Erasure, HeldMessage, NewEntry, Publish, PublishOutcome, Room, RoomInfo } from '../../src/chat/rooms/room.js';
import { RoomHistory } from '../../src/chat/rooms/room-history.js';
import type { Clock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';

/** Rooms that are rows and nothing else: no log, no processes. What a test undoes in the database has not been said. */
class FakeRooms {
  readonly #database: Database;
  readonly #history: RoomHistory;
  readonly #clock: Clock;
  readonly #desk: () => ModerationService;

  constructor(database: Database, clock: Clock, desk: () => ModerationService) {
    this.#database = database;
    this.#history = new RoomHistory(database, clock);
    this.#clock = clock;
    this.#desk = desk;
  }

  async find(idOrSlug: string): Promise<RoomInfo | undefined> {
    return (await this.#history.findRoom(idOrSlug))?.info;
  }

  async open(roomId: string): Promise<Room> {
    const state = await this.#history.readRoom(roomId);
    const { rows } = await this.#database.query<{ head: number | null }>('select max("offset") as head from messages where room_id = $1', [
      roomId,
    ]);
    let head = rows[0]?.head ?? 0;
    const add = async (type: string, payload: object, of: { mid?: string; key?: string; userId?: string } = {}): Promise<AppendedAt> => {
      head++;
      await this.#database.query(
        `insert into messages (room_id, "offset", epoch, type, mid, key, user_id, payload, created_at) values ($1, $2, 1, $3, $4, $5, $6, $7, $8)`,
        [roomId, head, type, of.mid ?? null, of.key ?? null, of.userId ?? null, JSON.stringify(payload), new Date(this.#clock.wallMs())],
      );
      return { epoch: 1, offset: head };
    };
    const desk = this.#desk();
    return {
      id: roomId,
      info: state!.info,
      epoch: 1,
      get head() {
        return head;
      },
      floor: 0,
      framesAfter: () => [],
      readPage: async ({ before, limit }) => {
        const to = (before ?? head + 1) - 1;
        const from = Math.max(1, to - limit + 1);
        const entries = await this.#history.readRange(roomId, from, to);
        return { epoch: 1, frames: entries.map((entry) => encodeEntry(roomId, 1, entry)), more: from > 1 };
      },
      resumeFrom: async () => ({ recovered: 'none', cursor: head, keep: undefined }),
      publishMessage: async ({ author, key, body }: Publish): Promise<PublishOutcome> => {
        const mid = midOf(roomId, author.id, key);
        const known = (await this.#history.findMessages(roomId, [mid])).get(mid);
        const done = (offset: number, dup: boolean): PublishOutcome => ({
          kind: 'published',
          mid,
          epoch: 1,
          offset,
          dup,
          committed: Promise.resolve({ kind: 'stored', epoch: 1, offset, dup }),
        });
        if (known) return done(known.offset, true);
        const refusal = desk.rules.refusalOf({ id: roomId }, author, this.#clock.wallMs(), body.text);
        if (refusal) return { kind: 'refused', mid, ...refusal };
        if (Buffer.byteLength(body.text) > 8192) return { kind: 'refused', mid, code: 'too_long', reason: 'Too long.' };
        if (/^hold /.test(body.text)) {
          await desk.held.holdMessage({ roomId, mid, key, author, body, saidAtMs: Math.trunc(this.#clock.wallMs()), reason: 'spam' });
          return { kind: 'held', mid };
        }
        const { id, name, role } = author;
        const type = desk.rules.isShadowed({ id: roomId }, author, this.#clock.wallMs()) ? 'shadow' : 'msg';
        const { offset } = await add(type, { mid, user: { id, name, role }, body }, { mid, key, userId: id });
        return done(offset, false);
      },
      publishHeld: ({ mid, key, author: { id, name, role }, body, saidAtMs }: HeldMessage) =>
        add('msg', { mid, user: { id, name, role }, body, sentAt: saidAtMs }, { mid, key: logKeyOf(mid, key), userId: id }),
      appendEntry: ({ type, payload }: NewEntry) => add(type, payload),
      eraseMessages: async (what: Erasure, by) => {
        const { rowCount } = await this.#database.query(
          `update messages set type = 'gone', payload = '{}', key = null, user_id = null, deleted_at = now()
           where room_id = $1 and type in ('msg', 'shadow') and (mid = any($2::text[]) or user_id = $3)`,
          [roomId, 'mids' in what ? what.mids : [], 'userId' in what ? what.userId : null],
        );
        return rowCount === 0 ? undefined : add('del', { ...what, by });
      },
      setReaction: async () => undefined,
      reactionCounts: async () => ({}),
      addListener: () => undefined,
      removeListener: () => undefined,
      release: () => undefined,
      recentMessage: () => undefined,
      untilStored: async () => undefined,
      barUser: async () => undefined,
    };
  }
}

export interface TestChat extends RoomsApi {
  start(): Promise<void>;
  stop(): Promise<void>;
}

/** The chat of a test of the API. */
export function testChat({ database, clock, audit }: { database: Database; clock: Clock; audit: Access['audit'] }): TestChat {
  const rooms: FakeRooms = new FakeRooms(database, clock, () => desk);
  const moderation = new Classifier({ clock });
  const desk: ModerationService = new ModerationService({
    database,
    clock,
    log: silentLog,
    people: {
      async find(userId, channelId) {
        const { rows } = await database.query<{ name: string; role: 'viewer' | 'admin' | 'owner' | 'host' | 'moderator' }>(
          `select a.name, case when a.role = 'admin' then 'admin' when c.owner_id = a.id then 'owner' else coalesce(m.role, 'viewer') end as role
           from accounts a left join channels c on c.id = $2 left join channel_members m on m.channel_id = c.id and m.account_id = a.id
           where a.id::text = $1`,
          [userId, channelId ?? null],
        );
        return rows[0];
      },
      async names(userIds) {
        const { rows } = await database.query<{ id: string; name: string }>(
          'select id::text, name from accounts where id::text = any($1)',
          [userIds],
        );
        return new Map(rows.map(({ id, name }) => [id, name]));
      },
    },
    audit: { record: ({ principal, ...entry }, connection) => audit.record({ ...entry, principal: principal as never }, connection) },
    addressKey: randomBytes(32),
    withRoom: async (roomId, work) => work(await rooms.open(roomId)),
  });
  return {
    rooms,
    desk,
    history: new RoomHistory(database, clock),
    pageLimits: new PageLimits(clock),
    presence: { count: () => 2, people: async () => [{ id: 'somebody', name: 'Somebody' }] },
    tryText: (roomId, text) =>
      moderation.classify({
        roomId,
        authorId: '',
        privileged: false,
        text,
        settings: desk.rules.classifierSettingsOf(roomId),
        isTrial: true,
      }),
    who: (principal, channelRole) => ({ ...provenIdentityOf(principal), ...channelStandingOf(principal, channelRole) }),
    async sinceMs(accountId) {
      const { rows } = await database.query<{ created_at: Date }>('select created_at from accounts where id = $1', [accountId]);
      return rows[0]?.created_at.getTime();
    },
    start: () => desk.start(),
    stop: () => desk.stop(),
  };
}
