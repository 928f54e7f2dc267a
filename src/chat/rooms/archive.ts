import type { Database } from '../../backing/database/database.js';
import { type LogEntry, MAX_UNARCHIVED } from '../../backing/room-log/room-log.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { delOf, type EntryFacts, goneOf, readableFacts } from '../protocol/entry-frame.js';

/** Bytes that wait for PostgreSQL in this process. Above it publishing is `busy`. */
const MAX_PENDING_BYTES = 64 * 1024 * 1024;
/** The delay from an entry to the statement that stores it when no statement is running. */
const BATCH_MS = 2;
const MAX_BATCH_ENTRIES = 1000;
const MAX_BATCH_BYTES = 2 * 1024 * 1024;
const FIRST_RETRY_MS = 100;
const MAX_RETRY_MS = 2000;
/** The memory of an entry besides its payload. */
const ENTRY_BYTES = 300;

export interface ArchiveEntry extends LogEntry {
  readonly roomId: string;
  readonly epoch: number;
}

export type ArchiveOutcome =
  | { readonly kind: 'stored' }
  /** The message is stored under another offset. This offset is stored as `gone`. */
  | { readonly kind: 'known'; readonly offset: number }
  /** The room has another epoch or no longer exists. Nothing was stored. */
  | { readonly kind: 'fenced' };

export interface ArchiveOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly log: Log;
  /** Called after these entries were stored in PostgreSQL. */
  readonly onStored: (roomId: string, epoch: number, offsets: readonly number[]) => void;
  readonly maxPendingBytes?: number;
}

interface PendingEntry {
  readonly entry: ArchiveEntry;
  readonly facts: EntryFacts;
  readonly bytes: number;
  readonly done: (stored: ArchiveOutcome) => void;
}

/**
 * Stores entries of the log in PostgreSQL, in batches: one statement at a time, started within 2
 * ms, with all entries that arrived before it. The statement is fenced by each room's epoch. While
 * PostgreSQL is unavailable the archive repeats the statement. The number of waiting entries is
 * bounded: callers ask `hasCapacity` before they append. The statement that stores a deletion also
 * erases the deleted rows, so any process that stores it erases them, even after the process that
 * made the deletion has ended.
 */
export class Archive {
  readonly #options: ArchiveOptions;
  readonly #maxBytes: number;
  readonly #queue: PendingEntry[] = [];
  readonly #waiting = new Map<string, number>();
  #bytes = 0;
  #batch: Promise<void> | undefined;
  #cancel: (() => void) | undefined;
  #retryMs = 0;
  /**
   * Entries per statement. Lowered to 1 while the archive looks for the entry that PostgreSQL
   * refuses.
   */
  #batchEntries = MAX_BATCH_ENTRIES;
  #stopping = false;
  #refused = 0;

  constructor(options: ArchiveOptions) {
    this.#options = options;
    this.#maxBytes = options.maxPendingBytes ?? MAX_PENDING_BYTES;
  }

  /** Entries of all rooms that wait to be stored. */
  get pending(): number {
    let count = 0;
    for (const waiting of this.#waiting.values()) count += waiting;
    return count;
  }

  get pendingBytes(): number {
    return this.#bytes;
  }

  /** The number of unreadable entries. */
  get refused(): number {
    return this.#refused;
  }

  /** Whether the last statement failed. */
  get isAway(): boolean {
    return this.#retryMs > 0;
  }

  hasCapacity(roomId: string): boolean {
    return this.#bytes < this.#maxBytes && (this.#waiting.get(roomId) ?? 0) < MAX_UNARCHIVED;
  }

  /**
   * Stores one entry. Resolves when its outcome is known; never rejects. The same entry may be
   * given again and by several processes. An unreadable entry of a damaged log is refused alone:
   * its offset is stored as erased unless PostgreSQL has the original, and the outcome is `fenced`.
   */
  async storeEntry(entry: ArchiveEntry): Promise<ArchiveOutcome> {
    const facts = readableFacts(entry);
    if (facts) return this.#enqueue(entry, facts);
    const { roomId, epoch, offset, type } = entry;
    this.#refused++;
    this.#options.log.error(
      { event: 'chat.entry_unreadable', room: roomId, offset, type, refused: this.#refused },
      'an entry of a room log cannot be read; it is archived as erased',
    );
    const gone = goneOf(offset, this.#options.clock.wallMs());
    await this.#enqueue({ ...gone, roomId, epoch }, readableFacts(gone)!);
    return { kind: 'fenced' };
  }

  #enqueue(entry: ArchiveEntry, facts: EntryFacts): Promise<ArchiveOutcome> {
    return new Promise((done) => {
      const bytes = ENTRY_BYTES + 2 * entry.payload.length;
      this.#bytes += bytes;
      this.#waiting.set(entry.roomId, (this.#waiting.get(entry.roomId) ?? 0) + 1);
      this.#queue.push({ entry, facts, bytes, done });
      this.#schedule(BATCH_MS);
    });
  }

  /**
   * Waits for the running statement, and then tries once more to store the waiting entries. If that
   * fails, the sweepers of other processes store them from the log.
   */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#cancel?.();
    this.#cancel = undefined;
    await this.#batch;
    while (this.#queue.length > 0 && !this.isAway) await this.#store();
    if (this.#queue.length > 0)
      this.#options.log.warn(
        { event: 'chat.archive_queue_full', entries: this.#queue.length },
        'entries of room logs wait for the archive: the database is unavailable',
      );
  }

  #schedule(delayMs: number): void {
    if (this.#batch || this.#cancel || this.#stopping || this.#queue.length === 0) return;
    this.#cancel = this.#options.clock.after(delayMs, () => {
      this.#cancel = undefined;
      this.#batch = this.#store().finally(() => {
        this.#batch = undefined;
        this.#schedule(this.#retryMs > 0 ? this.#retryMs : this.#queue.length >= MAX_BATCH_ENTRIES ? 0 : BATCH_MS);
      });
    });
  }

  async #store(): Promise<void> {
    const batch: PendingEntry[] = [];
    let bytes = 0;
    for (const pending of this.#queue) {
      if (batch.length >= this.#batchEntries || bytes > MAX_BATCH_BYTES) break;
      bytes += pending.bytes;
      batch.push(pending);
    }
    let rows: { n: number; outcome: string; other: number | null }[];
    try {
      rows = await this.#insert(batch);
    } catch (error) {
      this.#failed(batch, error);
      return;
    }
    if (this.#retryMs > 0) this.#options.log.info({ event: 'chat.archive_restored' }, 'chat messages are archived again');
    this.#retryMs = 0;
    this.#batchEntries = Math.min(MAX_BATCH_ENTRIES, this.#batchEntries * 2);
    const outcomes = new Map(rows.map((row) => [row.n - 1, row]));
    const again: PendingEntry[] = [];
    const stored = new Map<string, { roomId: string; epoch: number; offsets: number[] }>();
    const decided: [PendingEntry, ArchiveOutcome][] = [];
    for (const [index, pending] of batch.entries()) {
      const row = outcomes.get(index);
      if (row?.outcome === 'again') {
        again.push(pending);
        continue;
      }
      const { roomId, epoch, offset } = pending.entry;
      if (row?.outcome === 'fenced') {
        decided.push([pending, { kind: 'fenced' }]);
        continue;
      }
      const id = `${roomId} ${epoch}`;
      const list = stored.get(id) ?? { roomId, epoch, offsets: [] };
      stored.set(id, list);
      list.offsets.push(offset);
      decided.push([pending, row?.outcome === 'known' && row.other !== null ? { kind: 'known', offset: row.other } : { kind: 'stored' }]);
    }
    this.#queue.splice(0, batch.length, ...again);
    for (const { roomId, epoch, offsets } of stored.values()) this.#options.onStored(roomId, epoch, offsets);
    for (const [pending, outcome] of decided) this.#finish(pending, outcome);
  }

  #failed(batch: readonly PendingEntry[], error: unknown): void {
    const { log } = this.#options;
    const isAway = error instanceof VezaError && error.code === 'unavailable';
    if (this.#retryMs === 0)
      log.warn(
        { event: 'chat.archive_failed', error: messageOf(error), entries: batch.length },
        'could not archive chat messages; acknowledgements wait',
      );
    this.#retryMs = Math.min(MAX_RETRY_MS, Math.max(FIRST_RETRY_MS, this.#retryMs * 2));
    if (isAway) return;
    // PostgreSQL may refuse one entry of the batch. Smaller batches find it, so that the others are
    // stored.
    if (batch.length > 1) this.#batchEntries = Math.ceil(batch.length / 2);
    else if (/^2[23]/.test(String((error as { code?: unknown }).code))) {
      const [pending] = this.#queue.splice(0, 1);
      const { roomId, offset, type } = pending!.entry;
      log.error(
        { event: 'chat.entry_refused', room: roomId, offset, type, error: messageOf(error) },
        'PostgreSQL refused an entry; it is archived as erased',
      );
      const gone: ArchiveEntry = { ...pending!.entry, type: 'gone', payload: '{}', key: undefined };
      this.#queue.unshift({ ...pending!, entry: gone, facts: readableFacts(gone)! });
      if (type === 'gone') this.#finish(this.#queue.shift()!, { kind: 'fenced' });
    }
  }

  #finish({ entry: { roomId }, bytes, done }: PendingEntry, stored: ArchiveOutcome): void {
    this.#bytes -= bytes;
    const left = this.#waiting.get(roomId)! - 1;
    if (left === 0) this.#waiting.delete(roomId);
    else this.#waiting.set(roomId, left);
    done(stored);
  }

  async #insert(batch: readonly PendingEntry[]) {
    const entries = batch.map(({ entry }) => entry);
    const facts = batch.map((pending) => pending.facts);
    const erased: { entry: ArchiveEntry; offset: number }[] = [];
    const wiped: { entry: ArchiveEntry; user: string; upTo: number }[] = [];
    for (const entry of entries) {
      if (entry.type !== 'del') continue;
      const { offsets = [], user, upTo = 0 } = delOf(entry);
      for (const offset of offsets) erased.push({ entry, offset });
      if (user !== undefined) wiped.push({ entry, user, upTo });
    }
    const at = ({ atMs }: ArchiveEntry) => timeOf(atMs);
    const { rows } = await this.#options.database.query<{ n: number; outcome: string; other: number | null }>(
      `select * from chat_archive($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::timestamptz[],
         $10::timestamptz[], $11::uuid[], $12::bigint[], $13::bigint[], $14::timestamptz[], $15::uuid[], $16::bigint[], $17::text[], $18::bigint[], $19::timestamptz[])`,
      [
        entries.map((entry) => entry.roomId),
        entries.map((entry) => entry.epoch),
        entries.map((entry) => entry.offset),
        entries.map((entry) => entry.type),
        facts.map((fact) => fact.mid ?? null),
        facts.map((fact) => fact.key ?? null),
        facts.map((fact) => fact.userId ?? null),
        entries.map((entry) => entry.payload),
        facts.map((fact) => (fact.sentAtMs === undefined ? null : timeOf(fact.sentAtMs))),
        entries.map(at),
        erased.map(({ entry }) => entry.roomId),
        erased.map(({ entry }) => entry.epoch),
        erased.map(({ offset }) => offset),
        erased.map(({ entry }) => at(entry)),
        wiped.map(({ entry }) => entry.roomId),
        wiped.map(({ entry }) => entry.epoch),
        wiped.map(({ user }) => user),
        wiped.map(({ upTo }) => upTo),
        wiped.map(({ entry }) => at(entry)),
      ],
    );
    return rows;
  }
}

/** Whole milliseconds: PostgreSQL returns them unchanged. */
const timeOf = (ms: number) => new Date(Math.trunc(ms)).toISOString();
