import { type ChatBody, type ChatUser, type Entry, isOffset, isRecord, textOf, timeOf } from './frames.js';

/**
 * An entry as it is shown. `visible` false: the entry is not shown and only takes its place (a
 * deletion, an erased entry, an unknown type, a second copy).
 */
export interface Item {
  readonly offset: number;
  readonly epoch: number;
  /** The log's time, ms since 1970. Never falls. */
  readonly at: number;
  /** `msg`, `act`, `pin`, `now`, `del`, `gone`, or an unknown type. */
  readonly type: string;
  readonly mid: string | undefined;
  readonly user: ChatUser | undefined;
  /** The body of a message. Empty after a deletion. */
  body: ChatBody;
  /** The key under which this client, or another one of the same account, sent it. */
  readonly key: string | undefined;
  /** When the author sent it, if a moderator held and approved it. */
  readonly sentAt: number | undefined;
  readonly entry: Entry;
  visible: boolean;
  deleted: boolean;
  reactions: Readonly<Record<string, number>>;
}

export type TimelineEvent =
  /** Ascending. `where`: after all other items, or (history) before them. */
  | { readonly type: 'added'; readonly items: readonly Item[]; readonly where: 'end' | 'start' }
  /** The server has withdrawn the items, or they were trimmed because there were too many. */
  | { readonly type: 'removed'; readonly items: readonly Item[] }
  /** The items were deleted, have other reactions, or are shown after all. */
  | { readonly type: 'changed'; readonly items: readonly Item[] };

const SHOWN = new Set(['msg', 'act', 'pin', 'now']);
const NO_REACTIONS: Item['reactions'] = {};
const NO_BODY: ChatBody = { text: '' };
/** Deletions that are remembered for entries that arrive later, such as a page of history. */
const KEPT_DELETIONS = 1000;

/**
 * The part of a room's log that a client holds: ascending, and each `mid` shown once. Independent
 * of connections.
 */
export class Timeline {
  readonly #emit: (event: TimelineEvent) => void;
  #items: Item[] = [];
  readonly #byMid = new Map<string, Item>();
  /** Second copies of messages, by `mid`. */
  readonly #copies = new Map<string, Item[]>();
  readonly #deletedMids = new Set<string>();
  readonly #deletedUsers = new Map<string, number>();

  constructor(emit: (event: TimelineEvent) => void) {
    this.#emit = emit;
  }

  /** All entries, ascending. Do not change the array. */
  get items(): readonly Item[] {
    return this.#items;
  }

  get(mid: string): Item | undefined {
    return this.#byMid.get(mid);
  }

  /** Adds entries above all others. */
  append(entries: readonly Entry[]): void {
    if (entries.length === 0) return;
    const items = entries.map((entry) => this.#take(entry));
    this.#items.push(...items);
    this.#emit({ type: 'added', items, where: 'end' });
    this.#deleteBy(items);
  }

  /** Adds entries below all others. */
  prepend(entries: readonly Entry[]): void {
    if (entries.length === 0) return;
    const items = entries.map((entry) => this.#take(entry));
    this.#items = [...items, ...this.#items];
    this.#emit({ type: 'added', items, where: 'start' });
    // A page may contain deletions. They also apply to older pages that come later.
    this.#deleteBy(items);
  }

  /** Whether a message that is not in the timeline is known to be deleted. */
  isDeleted({
    mid,
    userId,
    offset,
  }: {
    readonly mid: string;
    readonly userId?: string | undefined;
    readonly offset?: number | undefined;
  }): boolean {
    if (this.#deletedMids.has(mid) || this.#byMid.get(mid)?.deleted === true) return true;
    return userId !== undefined && offset !== undefined && offset <= (this.#deletedUsers.get(userId) ?? -1);
  }

  /**
   * Removes the entries above `keep`. Returns true when a deletion is among them: the messages that
   * it deleted are missing here.
   */
  withdraw(keep: number): boolean {
    let from = this.#items.length;
    while (from > 0 && this.#items[from - 1]!.offset > keep) from--;
    const removed = this.#items.splice(from);
    this.#forget(removed);
    return removed.some(({ type }) => type === 'del');
  }

  /** Removes the oldest entries until `most` are left. */
  trim(most: number): void {
    if (this.#items.length > most) this.#forget(this.#items.splice(0, this.#items.length - most));
  }

  clear(): void {
    this.#deletedMids.clear();
    this.#deletedUsers.clear();
    this.#forget(this.#items.splice(0));
  }

  /** Sets reaction counts, which are absolute, by `mid` and emoji. */
  react(counts: Record<string, unknown>): void {
    const changed: Item[] = [];
    for (const [mid, byEmoji] of Object.entries(counts)) {
      const item = this.#byMid.get(mid);
      if (!item || !isRecord(byEmoji)) continue;
      item.reactions = Object.fromEntries(
        Object.entries(byEmoji).filter((pair): pair is [string, number] => isOffset(pair[1]) && pair[1] > 0),
      );
      changed.push(item);
    }
    if (changed.length > 0) this.#emit({ type: 'changed', items: changed });
  }

  #take(entry: Entry): Item {
    const user = isRecord(entry.user) && typeof entry.user.id === 'string' ? entry.user : undefined;
    const mid = entry.t === 'msg' ? textOf(entry.mid) : undefined;
    const body = isRecord(entry.body) ? { ...entry.body, text: textOf(entry.body.text) ?? '' } : NO_BODY;
    const item: Item = {
      offset: entry.offset,
      epoch: entry.epoch,
      at: timeOf(entry.at) ?? 0,
      type: entry.t,
      mid,
      user: user && { id: String(user.id), name: textOf(user.name) ?? '', role: textOf(user.role) ?? 'viewer' },
      body,
      key: textOf(entry.key),
      sentAt: timeOf(entry.sentAt),
      entry,
      visible: SHOWN.has(entry.t),
      deleted: false,
      reactions: NO_REACTIONS,
    };
    if (mid !== undefined) {
      const first = this.#byMid.get(mid);
      if (first) {
        item.visible = false;
        this.#copies.set(mid, [...(this.#copies.get(mid) ?? []), item]);
      } else this.#byMid.set(mid, item);
      if (this.#deletedMids.has(mid) || (item.user && item.offset <= (this.#deletedUsers.get(item.user.id) ?? -1))) strike(item);
    }
    return item;
  }

  #deleteBy(items: readonly Item[]): void {
    const changed = new Set<Item>();
    for (const item of items) if (item.type === 'del') for (const one of this.#delete(item.entry)) changed.add(one);
    if (changed.size > 0) this.#emit({ type: 'changed', items: [...changed] });
  }

  /** Deletes the messages of `mids` or `offsets`, or all messages of a user up to an offset. */
  #delete(entry: Entry): Item[] {
    const found: Item[] = [];
    const mids = new Set(Array.isArray(entry.mids) ? entry.mids.map(textOf) : [textOf(entry.mid)]);
    mids.delete(undefined);
    const offsets = new Set(Array.isArray(entry.offsets) ? entry.offsets.filter(isOffset) : []);
    const userId = isRecord(entry.user) ? textOf(entry.user.id) : textOf(entry.user);
    // A deletion never applies to later entries.
    const upTo = isOffset(entry.upTo) ? Math.min(entry.upTo, entry.offset) : entry.offset;
    for (const mid of mids) remember(this.#deletedMids, mid!);
    if (userId !== undefined) {
      const before = this.#deletedUsers.get(userId) ?? 0;
      this.#deletedUsers.delete(userId);
      this.#deletedUsers.set(userId, Math.max(before, upTo));
      if (this.#deletedUsers.size > KEPT_DELETIONS) this.#deletedUsers.delete(this.#deletedUsers.keys().next().value!);
    }
    for (const item of this.#items) {
      if (item.type !== 'msg' || item.deleted) continue;
      const isMeant =
        mids.has(item.mid) || offsets.has(item.offset) || (userId !== undefined && item.user?.id === userId && item.offset <= upTo);
      if (!isMeant) continue;
      strike(item);
      found.push(item);
    }
    return found;
  }

  #forget(removed: readonly Item[]): void {
    if (removed.length === 0) return;
    const gone = new Set(removed);
    const risen: Item[] = [];
    for (const item of removed) {
      const { mid } = item;
      if (mid === undefined) continue;
      const copies = this.#copies.get(mid)?.filter((copy) => !gone.has(copy)) ?? [];
      if (this.#byMid.get(mid) === item) {
        const next = copies.shift();
        if (next) {
          next.visible = true;
          this.#byMid.set(mid, next);
          risen.push(next);
        } else this.#byMid.delete(mid);
      }
      if (copies.length > 0) this.#copies.set(mid, copies);
      else this.#copies.delete(mid);
    }
    this.#emit({ type: 'removed', items: removed });
    if (risen.length > 0) this.#emit({ type: 'changed', items: risen });
  }
}

/** Removes the text of a deleted message from memory. */
function strike(item: Item): void {
  item.deleted = true;
  item.body = NO_BODY;
  item.reactions = NO_REACTIONS;
  Object.assign(item, { entry: { t: item.type, epoch: item.epoch, offset: item.offset } });
}

function remember(set: Set<string>, value: string): void {
  set.add(value);
  if (set.size > KEPT_DELETIONS) set.delete(set.keys().next().value!);
}
