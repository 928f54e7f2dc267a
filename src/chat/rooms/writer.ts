import { createHash, randomUUID } from 'node:crypto';
import type { AppendOutcome, Barred, LogEntry, RoomLog } from '../../backing/room-log/room-log.js';
import type { LineLog } from '../../runtime/bounded-log.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import { characterCount, uncleanTextIn } from '../../runtime/text.js';
import { type Deletion, delAt, delOf, logKeyOf, midOf, readableFacts } from '../protocol/entry-frame.js';
import type { Archive, ArchiveOutcome } from './archive.js';
import type { RoomReader } from './reader.js';
import {
  type AppendedAt,
  type Author,
  BANNED_REASON,
  type Commit,
  type ContentReviewer,
  type Erasure,
  type HeldMessage,
  type HeldMessages,
  type NewEntry,
  type Publish,
  type PublishOutcome,
  type PublishRules,
  TIMED_OUT_REASON,
} from './room.js';
import type { RoomHistory } from './room-history.js';

/** The fields of a message besides its text (replies, mentions), as JSON. */
const MAX_EXTRAS_CHARS = 4096;
const MAX_ACT_CHARS = 16_384;
const MAX_KEY_CHARS = 64;
const BUSY_RETRY_MS = 1000;
/** Attempts to append while the room gets new epochs. */
const ATTEMPTS = 4;
/** Messages of one room that were sent again and whose row is being looked up in PostgreSQL. */
const MAX_SETTLING = 1000;
const SETTLE_RETRY_MS = 500;
const ERASE_ATTEMPTS = 3;
/** Messages that one entry deletes at most. */
const MAX_ERASED_MIDS = 100;
const READ_ENTRIES = 500;

export interface WriterOptions {
  readonly roomLog: RoomLog;
  readonly archive: Archive;
  readonly history: RoomHistory;
  readonly clock: Clock;
  readonly log: LineLog;
  readonly rules: PublishRules;
  readonly reviewer: ContentReviewer;
  readonly held: HeldMessages;
  readonly maxMessageBytes: number;
}

/**
 * Appends entries to a room: first to its log, which delivers them, and then to PostgreSQL, which
 * is the acknowledgement.
 */
export class RoomWriter {
  readonly #reader: RoomReader;
  readonly #options: WriterOptions;
  #settling = 0;

  constructor(reader: RoomReader, options: WriterOptions) {
    this.#reader = reader;
    this.#options = options;
  }

  async publishMessage({ author, key, body }: Publish): Promise<PublishOutcome> {
    const { clock, rules, reviewer, held, maxMessageBytes } = this.#options;
    const { id, info } = this.#reader;
    const mid = midOf(id, author.id, key);
    const refuse = (code: string, reason: string, retryMs?: number): PublishOutcome => ({
      kind: 'refused',
      mid,
      code,
      reason,
      ...(retryMs !== undefined && { retryMs }),
    });
    if (this.#reader.closed) return refuse('not_found', 'There is no such room.');
    if (!isKey(key)) return refuse('bad_request', `A key has 1 to ${MAX_KEY_CHARS} characters and no control characters.`);
    if (uncleanTextIn(body)) return refuse('bad_request', 'Text must be well-formed and without U+0000.');
    if (typeof body.text !== 'string' || body.text === '') return refuse('bad_request', 'A message has a text.');
    if (Buffer.byteLength(body.text) > maxMessageBytes) return refuse('too_long', `A message has at most ${maxMessageBytes} bytes.`);
    if (JSON.stringify({ ...body, text: '' }).length > MAX_EXTRAS_CHARS)
      return refuse('too_long', 'The fields besides the text are too long.');

    try {
      const known = this.#reader.knownMessage(mid);
      if (known) return this.#again(mid, known.offset);
      const nowMs = clock.wallMs();
      const refusal = rules.refusalOf(info, author, nowMs, body.text);
      if (refusal) return (await this.#storedBefore(mid)) ?? refuse(refusal.code, refusal.reason, refusal.retryMs);
      const verdict = await reviewer.review({ room: info, author, mid, body });
      if (verdict.kind === 'refuse') return (await this.#storedBefore(mid)) ?? refuse(verdict.code, verdict.reason, verdict.retryMs);
      if (verdict.kind === 'hold') {
        const before = await this.#storedBefore(mid);
        if (before) return before;
        const holding = await held.holdMessage({ roomId: id, mid, key, author, body, saidAtMs: Math.trunc(nowMs), reason: verdict.reason });
        if (holding.kind === 'banned') return refuse('banned', BANNED_REASON);
        if (holding.kind === 'timed_out') return refuse('timed_out', TIMED_OUT_REASON);
        if (holding.kind === 'denied') return refuse('denied', holding.reason ?? 'A moderator has denied this message.');
        return holding.kind === 'approved' && holding.offset !== undefined ? this.#again(mid, holding.offset) : { kind: 'held', mid };
      }
      const text = verdict.text ?? body.text;
      const limits = rules.limitsOf(info, author);
      const entry = {
        type: rules.isShadowed(info, author, nowMs) ? 'shadow' : 'msg',
        payload: payloadOf(mid, author, { ...body, text }),
        key: logKeyOf(mid, key),
        ...(limits && {
          rules: {
            userId: author.id,
            perS: limits.perS,
            burst: limits.burst,
            roomPerS: limits.roomPerS,
            slowMs: limits.slowMs,
            uniqueHash: limits.unique ? hashOf(verdict.normal ?? plain(body.text)) : undefined,
          },
        }),
      };
      const appended = await this.#append(entry, mid);
      switch (appended.kind) {
        case 'stored':
          return this.#again(mid, appended.offset);
        case 'busy':
          return refuse('busy', 'The room is busy. Send the message again.', BUSY_RETRY_MS);
        case 'barred':
          return refuse(appended.why, appended.why === 'banned' ? BANNED_REASON : TIMED_OUT_REASON);
        case 'refused':
          return appended.code === 'not_unique'
            ? refuse(appended.code, 'This text was published in this room recently.')
            : refuse(appended.code, 'Not so fast.', appended.retryMs);
        case 'duplicate':
          return this.#again(mid, appended.offset);
        case 'appended': {
          const { epoch, offset, atMs } = appended;
          const committed = this.#commit({ ...entry, offset, atMs }, epoch);
          if (entry.type === 'msg') verdict.published?.();
          return { kind: 'published', mid, epoch, offset, dup: false, committed };
        }
      }
    } catch (error) {
      if (error instanceof VezaError && error.code === 'not_found') return refuse('not_found', 'There is no such room.');
      if (!(error instanceof VezaError))
        this.#options.log.error({ event: 'chat.publish_failed', room: id, error: messageOf(error) }, 'could not publish a message');
      return refuse('busy', 'The chat does not answer. Send the message again.', BUSY_RETRY_MS);
    }
  }

  async publishHeld(held: HeldMessage): Promise<AppendedAt> {
    const { mid, key, author, body, saidAtMs } = held;
    return this.#sayOnce('msg', payloadOf(mid, author, body, Math.trunc(saidAtMs)), mid, key);
  }

  async appendEntry({ type, payload, key }: NewEntry): Promise<AppendedAt> {
    const text = JSON.stringify(payload);
    if (text.length > MAX_ACT_CHARS) throw new VezaError('payload_too_large', `An entry has at most ${MAX_ACT_CHARS} characters.`);
    if (['msg', 'shadow', 'gone', 'del'].includes(type)) throw new VezaError('bad_request', `"${type}" is not an act.`);
    return key === undefined ? this.#sayUntilStored(type, text) : this.#sayOnce(type, text, midOf(this.#reader.id, type, key), '');
  }

  async eraseMessages(what: Erasure, by: { readonly id: string; readonly name: string }): Promise<AppendedAt | undefined> {
    if ('userId' in what) return this.#wipe(what.userId, by);
    const mids = [...new Set(what.mids)];
    if (mids.length > MAX_ERASED_MIDS) throw new VezaError('bad_request', `At most ${MAX_ERASED_MIDS} messages are deleted at once.`);
    const known = new Map(mids.map((mid) => [mid, this.#reader.knownMessage(mid)?.offset ?? 0]));
    // An entry that is not stored yet may be withdrawn and sent again, and another entry may get
    // its offset. Only entries in PostgreSQL keep their offset for good, so they are stored first.
    const upTo = Math.max(0, ...known.values());
    if (upTo > 0) await this.settle(upTo);
    const offsets = new Map<string, number>();
    for (const [mid, { offset, type }] of await this.#options.history.findMessages(this.#reader.id, mids)) {
      // A message of the last minutes is deleted again even if its row is erased: an earlier `del`
      // entry may have failed.
      if (known.get(mid)! > 0 || type === 'msg' || type === 'shadow') offsets.set(mid, offset);
      known.delete(mid);
    }
    if (Math.max(0, ...known.values()) > this.#reader.floor)
      throw new VezaError('unavailable', 'The message was withdrawn, and its author will send it again. Try again.');
    if (offsets.size === 0) return undefined;
    return this.#delete({ offsets: [...offsets.values()] }, { mids: [...offsets.keys()], by: { id: by.id, name: by.name } });
  }

  async barUser(userId: string, forMs: number, why: Barred): Promise<void> {
    await this.#options.roomLog.bar(this.#reader.id, userId, Math.ceil(forMs), why);
  }

  async untilStored(mid?: string): Promise<void> {
    const where = () => (mid === undefined ? undefined : this.#reader.knownMessage(mid)?.offset);
    // Another process may have accepted the message a moment ago.
    if (where() === undefined) await this.#reader.readLog();
    const offset = mid === undefined ? this.#reader.head : (where() ?? 0);
    if (offset > 0) await this.settle(offset);
  }

  /**
   * Stores entries up to `upTo` that the log holds and PostgreSQL may lack, because their process
   * ended before it stored them. Rejects with `unavailable`.
   */
  async settle(upTo: number): Promise<void> {
    const { archive } = this.#options;
    if (archive.isAway) throw new VezaError('unavailable', 'The database does not answer.');
    await settleRoom(this.#reader.id, upTo, this.#options);
  }

  async #wipe(userId: string, by: { readonly id: string; readonly name: string }): Promise<AppendedAt | undefined> {
    await this.#reader.readLog();
    const upTo = this.#reader.head;
    if (upTo === 0) return undefined;
    // Entries that are not stored yet would be stored after their deletion.
    await this.settle(upTo);
    const offsets: number[] = [];
    await this.#eachHeld(upTo, (entry) => {
      if (readableFacts(entry)?.userId === userId) offsets.push(entry.offset);
    });
    return this.#delete({ user: userId, upTo }, { by: { id: by.id, name: by.name } }, offsets);
  }

  /** Calls `see` with each entry that the log holds, up to `upTo`. */
  async #eachHeld(upTo: number, see: (entry: LogEntry) => void): Promise<void> {
    for (let after = 0; ; ) {
      const page = await this.#options.roomLog.read(this.#reader.id, after, READ_ENTRIES);
      if (!page || page.entries.length === 0) return;
      for (const entry of page.entries) if (entry.offset <= upTo) see(entry);
      after = page.entries.at(-1)!.offset;
      if (after >= upTo) return;
    }
  }

  /**
   * Appends the deletion first, so that every process knows of it. Then the log erases the text,
   * and archiving the entry erases it in the database.
   */
  async #delete(del: Deletion, told: object, held = del.offsets ?? []): Promise<AppendedAt> {
    const said = await this.#sayUntilStored('del', JSON.stringify({ ...del, ...told }), (epoch) =>
      eraseHeld(this.#reader.id, epoch, held, this.#options),
    );
    this.#reader.applyDeletion(delAt(del, said.offset));
    return said;
  }

  async #sayUntilStored(type: string, payload: string, appended?: (epoch: number) => Promise<void>): Promise<AppendedAt> {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const said = await this.#say(type, payload, `${type}:${randomUUID()}`, appended);
      if (said) return said;
    }
    throw new VezaError('unavailable', 'The room cannot be changed now; try again.');
  }

  /**
   * Appends an entry that must exist once. A row in PostgreSQL under this `mid` wins; until there
   * is one, the log refuses a second entry with the key.
   */
  async #sayOnce(type: string, payload: string, mid: string, key: string): Promise<AppendedAt> {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const before = (await this.#options.history.findMessages(this.#reader.id, [mid])).get(mid);
      if (before) return { epoch: this.#reader.epoch, offset: before.offset };
      const said = await this.#say(type, payload, logKeyOf(mid, key));
      if (said) return said;
    }
    throw new VezaError('unavailable', 'The room cannot be changed now; try again.');
  }

  /** Resolves to undefined when the epoch ended before the entry was stored. */
  async #say(type: string, payload: string, key: string, appended?: (epoch: number) => Promise<void>): Promise<AppendedAt | undefined> {
    const outcome = await this.#append({ type, payload, key });
    if (outcome.kind === 'busy') throw new VezaError('busy', 'The room is busy; try again.');
    if (outcome.kind === 'refused' || outcome.kind === 'barred' || outcome.kind === 'stored')
      throw new Error(`an entry that no rules apply to was ${outcome.kind}`);
    const { epoch, offset, atMs } = outcome;
    await appended?.(epoch);
    const commit = await this.#commit({ offset, atMs, type, payload, key }, epoch);
    return commit.kind === 'stored' ? { epoch: commit.epoch, offset: commit.offset } : undefined;
  }

  /**
   * Appends an entry to the log. `stored`: PostgreSQL has the message, but the log no longer knows
   * its key. Rejects with `unavailable`; the outcome is then unknown.
   */
  async #append(
    entry: Pick<Parameters<RoomLog['append']>[0], 'type' | 'payload' | 'key' | 'rules'>,
    mid?: string,
  ): Promise<Exclude<AppendOutcome, { kind: 'reopen' }> | { kind: 'stored'; offset: number }> {
    const { roomLog, archive, history } = this.#options;
    const { id } = this.#reader;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      if (this.#reader.closed) throw new VezaError('not_found', 'There is no such room.');
      const { epoch } = this.#reader;
      if (mid !== undefined && this.#reader.isYoung) {
        const before = (await history.findMessages(id, [mid])).get(mid);
        if (before) return { kind: 'stored', offset: before.offset };
        // The room has got a new epoch during the query, so the answer may not apply to it.
        if (this.#reader.epoch !== epoch) continue;
      }
      if (!archive.hasCapacity(id)) return { kind: 'busy' };
      const outcome = await roomLog.append({ roomId: id, epoch, ...entry });
      if (outcome.kind !== 'reopen') {
        if (outcome.kind === 'appended') this.#reader.expectEntry(outcome.epoch, outcome.offset);
        return outcome;
      }
      if (this.#reader.epoch === epoch) await this.#reader.distrustEpoch(epoch);
    }
    return { kind: 'busy' };
  }

  async #commit(entry: LogEntry, epoch: number): Promise<Commit> {
    const stored = await this.#options.archive.storeEntry({ ...entry, roomId: this.#reader.id, epoch });
    return this.#commitOf(stored, epoch, entry.offset, false);
  }

  #commitOf(stored: ArchiveOutcome, epoch: number, offset: number, dup: boolean): Commit {
    switch (stored.kind) {
      case 'stored':
        return { kind: 'stored', epoch, offset, dup };
      case 'known':
        // The message was published twice under one `mid`, because the log had lost the key of the
        // first copy, which counts. The second copy is hidden here but stays in the log: by now its
        // offset may belong to another entry.
        if (this.#reader.epoch === epoch) this.#reader.applyDeletion({ offsets: [offset] });
        return { kind: 'stored', epoch, offset: stored.offset, dup: true };
      case 'fenced':
        this.#reader.distrustEpoch(epoch).catch(() => undefined);
        return { kind: 'resend' };
    }
  }

  /** Finds a message that would be refused now but may have been accepted before. */
  async #storedBefore(mid: string): Promise<PublishOutcome | undefined> {
    if (this.#reader.knowsAllRecent && !this.#reader.isYoung) return undefined;
    const before = (await this.#options.history.findMessages(this.#reader.id, [mid])).get(mid);
    return before && this.#again(mid, before.offset);
  }

  #again(mid: string, offset: number): PublishOutcome {
    const { id, epoch } = this.#reader;
    if (this.#settling >= MAX_SETTLING) {
      const reason = 'The room is busy. Send the message again.';
      return { kind: 'refused', mid, code: 'busy', reason, retryMs: BUSY_RETRY_MS };
    }
    this.#settling++;
    const committed = this.#settled(id, mid, offset).finally(() => {
      this.#settling--;
    });
    return { kind: 'published', mid, epoch, offset, dup: true, committed };
  }

  /**
   * Whether a message that was sent again is in PostgreSQL. It is stored if only the log has it.
   */
  async #settled(roomId: string, mid: string, offset: number): Promise<Commit> {
    const { history, roomLog, archive, clock } = this.#options;
    while (!this.#reader.closed) {
      try {
        const before = (await history.findMessages(roomId, [mid])).get(mid);
        if (before) return { kind: 'stored', epoch: this.#reader.epoch, offset: before.offset, dup: true };
        const page = await roomLog.read(roomId, offset - 1, 1);
        const entry = page?.entries[0];
        if (!page || entry?.offset !== offset) return { kind: 'resend' };
        // In another epoch the offset may belong to another entry, even to `gone`. An erased entry
        // keeps its key, so the key shows whether it is this message.
        if (entry.key?.slice(0, mid.length) !== mid) return { kind: 'resend' };
        if (entry.type === 'gone') return { kind: 'stored', epoch: page.epoch, offset, dup: true };
        const stored = await archive.storeEntry({ ...entry, roomId, epoch: page.epoch });
        return this.#commitOf(stored, page.epoch, offset, true);
      } catch {
        await new Promise<void>((resolve) => clock.after(SETTLE_RETRY_MS, resolve));
      }
    }
    return { kind: 'resend' };
  }
}

/**
 * Stores the entries of a room up to `upTo` that the log holds and that were not reported as
 * stored. Entries that another process is storing at the same time are stored once.
 */
export async function settleRoom(
  roomId: string,
  upTo: number,
  { roomLog, archive, history }: Pick<WriterOptions, 'roomLog' | 'archive' | 'history' | 'log'>,
): Promise<void> {
  for (let after: number | undefined; ; ) {
    const page: Awaited<ReturnType<RoomLog['read']>> = await roomLog.read(roomId, after ?? Number.MAX_SAFE_INTEGER, READ_ENTRIES);
    if (!page) return;
    if (after === undefined) {
      after = page.archived;
      if (after >= Math.min(upTo, page.head)) return;
      continue;
    }
    const entries = page.entries.filter((entry) => entry.offset <= upTo);
    if (entries.length === 0) return;
    const there = await history.storedOffsets(
      roomId,
      page.epoch,
      entries.map((entry) => entry.offset),
    );
    const missing = entries.filter((entry) => !there.has(entry.offset));
    for (const entry of missing) {
      if (entry.type === 'del' && readableFacts(entry)) await eraseHeld(roomId, page.epoch, delOf(entry).offsets ?? [], { roomLog });
    }
    await Promise.all(missing.map((entry) => archive.storeEntry({ ...entry, roomId, epoch: page.epoch })));
    if (there.size > 0) await roomLog.archived(roomId, page.epoch, [...there]);
    after = entries.at(-1)!.offset;
  }
}

/** Erases entries in the log. Rejects when the log stays unavailable. */
async function eraseHeld(
  roomId: string,
  epoch: number,
  offsets: readonly number[],
  { roomLog }: Pick<WriterOptions, 'roomLog'>,
): Promise<void> {
  for (const offset of offsets) {
    for (let attempt = 1; ; attempt++) {
      try {
        await roomLog.erase(roomId, epoch, offset, 'gone', '{}');
        break;
      } catch (error) {
        if (attempt >= ERASE_ATTEMPTS) throw error;
      }
    }
  }
}

const isKey = (key: string) =>
  key.length >= 1 &&
  characterCount(key) <= MAX_KEY_CHARS &&
  uncleanTextIn(key) === undefined &&
  ![...key].some((letter) => letter < ' ' || letter === '\x7f');

const payloadOf = (mid: string, { id, name, role }: Author, body: object, sentAt?: number) =>
  JSON.stringify({ mid, user: { id, name, role }, body, ...(sentAt !== undefined && { sentAt }) });

const plain = (text: string) => text.normalize('NFKC').toLowerCase().replace(/\s+/g, ' ').trim();
const hashOf = (text: string) => createHash('sha256').update(text).digest().subarray(0, 16).toString('base64url');
