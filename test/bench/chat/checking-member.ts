import { RawSocket } from './raw-socket.js';
import { emptyView, nameOf, see, type ViewHash } from './view-hash.js';

/** What all members of one process have counted. Of the first group anything above 0 is a defect while log and database stay up. */
export interface CheckCounts {
  /** Told that entries are not there any more, or that some it had were withdrawn. */
  partial: number;
  resets: number;
  /** Answers to one key that name another message or place than the first. */
  unequalAcks: number;
  /** Requests that were answered with an error that nothing makes good. */
  errors: Record<string, number>;
  /** Messages that were refused or held. */
  refused: Record<string, number>;
  closes: Record<string, number>;
  /** Entries that came again and were dropped by their offset; holes that were seen, and fetched. */
  repeated: number;
  holes: number;
  resumed: number;
  applied: number;
  published: number;
  acks: number;
  dupAcks: number;
  resent: number;
}

export const noCounts = (): CheckCounts => ({
  partial: 0,
  resets: 0,
  unequalAcks: 0,
  errors: {},
  refused: {},
  closes: {},
  repeated: 0,
  holes: 0,
  resumed: 0,
  applied: 0,
  published: 0,
  acks: 0,
  dupAcks: 0,
  resent: 0,
});

interface Place {
  readonly slug: string;
  id: string | undefined;
  epoch: number;
  /** Undefined: never joined. */
  cursor: number | undefined;
  first: number;
  /** There are entries up to here. */
  known: number;
  isFilling: boolean;
  readonly view: ViewHash;
}

/** One message: sent under its key so many times, each answered. */
interface Publication {
  readonly key: string;
  readonly place: Place;
  readonly text: string;
  /** Under way or to be sent, by their request's id. */
  readonly open: Set<string>;
  /** To be sent when the first are answered. */
  later: number;
  sent: number;
  answer: { mid: string; offset: number } | undefined;
}

export interface MemberHost {
  readonly counts: CheckCounts;
  readonly port: number;
  token(index: number): string;
  stored(slug: string, offset: number, mid: string): void;
  /** It is in all its rooms; ms since it had lost its connection, or undefined when it had none. */
  ready(awayMs: number | undefined): void;
  lost(): void;
}

const ENTRY = /^\{"t":"([a-z]+)","room":"([0-9a-f-]{36})","epoch":(\d+),"offset":(\d+),"at":\d+(?:,"mid":"([\w-]{22})")?/;
const HEAD_BYTES = 240;
const PAGE = 100;
const BACK_OFF_MS = { first: 500, most: 30_000 };

interface Said {
  readonly t: string;
  readonly id?: string;
  readonly room?: string;
  readonly code?: string;
  readonly retryMs?: number;
  readonly mid?: string;
  readonly key?: string;
  readonly offset: number;
  readonly epoch: number;
  readonly dup?: boolean;
  readonly recovered?: string;
  readonly from?: number;
  readonly keep?: number;
  readonly to?: number;
  readonly entries?: readonly { t: string; epoch: number; offset: number; mid?: string }[];
  readonly rooms?: Readonly<Record<string, readonly [number, number]>>;
}

export const tally = (counts: Record<string, number>, what: string) => {
  counts[what] = (counts[what] ?? 0) + 1;
};

/**
 * A member as the protocol has him, made of little: of each room he keeps epoch, offset and a hash of what he has seen. He comes back when he was told
 * to, resumes where he was, asks for what is missing, and sends again what was not answered.
 */
export class CheckingMember {
  readonly places: readonly Place[];
  readonly #host: MemberHost;
  readonly #index: number;
  readonly #publications = new Map<string, Publication>();
  #socket: RawSocket | undefined;
  #joined = 0;
  #attempts = 0;
  #drainUntilMs: number | undefined;
  #lostAtMs: number | undefined;

  constructor(index: number, rooms: readonly string[], host: MemberHost) {
    this.#index = index;
    this.#host = host;
    this.places = rooms.map((slug) => ({
      slug,
      id: undefined,
      epoch: 0,
      cursor: undefined,
      first: 0,
      known: 0,
      isFilling: false,
      view: emptyView(),
    }));
  }

  get isReady(): boolean {
    return this.#joined === this.places.length;
  }

  /** Messages whose fate is not known. */
  get open(): number {
    return this.#publications.size;
  }

  connect(): void {
    this.#joined = 0;
    this.#drainUntilMs = undefined;
    this.#socket = new RawSocket({
      port: this.#host.port,
      localAddress: `127.0.${1 + Math.floor(this.#index / 500)}.1`,
      opened: () => this.#say({ t: 'hello', token: this.#host.token(this.#index), client: 'check' }),
      text: (bytes, from, to) => this.#text(bytes, from, to),
      ended: (code) => this.#ended(code),
    });
  }

  cut(): void {
    this.#socket?.cut();
  }

  /** `times` as one who is not sure: half of them at once, the others when those are answered or the line was lost. */
  publish(room: number, key: string, text: string, times: number): void {
    const place = this.places[room % this.places.length]!;
    const now = Math.ceil(times / 2);
    const publication = { key, place, text, open: new Set<string>(), later: times - now, sent: 0, answer: undefined };
    this.#publications.set(key, publication);
    this.#host.counts.published++;
    this.#add(publication, now);
  }

  /** Where he is in each room, and what he has seen of it. */
  describe(): [slug: string, view: string][] {
    return this.places.map(({ slug, first, epoch, cursor, view }) => [slug, `${first} ${epoch} ${cursor} ${nameOf(view)}`]);
  }

  #say(frame: object): void {
    this.#socket?.send(JSON.stringify(frame));
  }

  #add(publication: Publication, count: number): void {
    for (let n = 0; n < count; n++) {
      const id = `${publication.key}#${publication.sent++}`;
      publication.open.add(id);
      if (this.isReady) this.#send(publication, id);
    }
  }

  #send({ key, place, text }: Publication, id: string): void {
    this.#say({ t: 'pub', id, room: place.id, key, body: { text } });
  }

  #text(bytes: Buffer, from: number, to: number): void {
    const found = ENTRY.exec(bytes.toString('latin1', from, Math.min(to, from + HEAD_BYTES)));
    if (found) {
      const [, type = '', room, epoch, offset, mid = ''] = found;
      const place = this.places.find(({ id }) => id === room);
      if (place) this.#take(place, Number(epoch), Number(offset), type, mid);
      return;
    }
    const said = JSON.parse(bytes.toString('utf8', from, to)) as Said;
    const { counts } = this.#host;
    switch (said.t) {
      case 'welcome':
        for (const { slug, id, epoch, cursor } of this.places)
          this.#say({ t: 'join', id: `join ${slug}`, room: id ?? slug, ...(cursor !== undefined && { since: { epoch, offset: cursor } }) });
        return;
      case 'joined':
        this.#entered(said);
        return;
      case 'page':
        this.#filled(said);
        return;
      case 'ack':
      case 'refused':
      case 'held':
        this.#answered(said);
        return;
      case 'err':
        this.#failed(said);
        return;
      case 'reset': {
        // A room that two processes begin at once may have two epochs before anything is said in it: that takes nothing back.
        const place = this.places.find(({ id }) => id === said.room);
        if ((said.keep ?? 0) < (place?.cursor ?? 0)) counts.resets++;
        return;
      }
      case 'left':
        tally(counts.errors, `left ${said.code}`);
        return;
      case 'lag':
      case 'heads':
        for (const place of this.places) {
          const head = said.t === 'lag' ? said.room === place.id && said.to : place.id !== undefined && said.rooms?.[place.id]?.[1];
          if (typeof head === 'number') this.#learn(place, head);
        }
        return;
      case 'drain':
        this.#drainUntilMs = performance.now() + (said.retryMs ?? 0);
        return;
    }
  }

  #take(place: Place, epoch: number, offset: number, type: string, mid: string): void {
    const { counts } = this.#host;
    if (place.cursor === undefined) return;
    if (offset <= place.cursor) {
      counts.repeated++;
      return;
    }
    if (offset > place.cursor + 1) {
      counts.holes++;
      this.#learn(place, offset);
      return;
    }
    place.epoch = epoch;
    place.cursor = offset;
    counts.applied++;
    see(place.view, offset, type, mid);
  }

  #learn(place: Place, head: number): void {
    place.known = Math.max(place.known, head);
    if (place.cursor === undefined || place.isFilling || place.known <= place.cursor) return;
    place.isFilling = true;
    const from = place.cursor + 1;
    this.#say({ t: 'range', id: `fill ${place.slug}`, room: place.id, from, to: Math.min(place.known, from + PAGE - 1) });
  }

  #filled({ id, entries = [] }: Said): void {
    const place = this.places.find(({ slug }) => id === `fill ${slug}`);
    if (!place) return;
    place.isFilling = false;
    for (const { t, epoch, offset, mid = '' } of entries)
      if (offset > (place.cursor ?? 0)) this.#take(place, epoch, offset, t, t === 'msg' ? mid : '');
    this.#learn(place, place.known);
  }

  #entered({ id, room, epoch, offset, recovered, entries = [] }: Said): void {
    const { counts } = this.#host;
    const place = this.places.find(({ slug }) => id === `join ${slug}`);
    if (!place) return;
    place.id = room;
    place.isFilling = false;
    if (place.cursor === undefined) {
      place.cursor = place.first = (entries[0]?.offset ?? offset + 1) - 1;
      place.epoch = epoch;
    } else if (recovered === 'full') counts.resumed++;
    else counts.partial++;
    for (const entry of entries) this.#take(place, entry.epoch, entry.offset, entry.t, entry.t === 'msg' ? (entry.mid ?? '') : '');
    this.#joined++;
    if (!this.isReady) return;
    this.#attempts = 0;
    for (const publication of this.#publications.values()) {
      counts.resent += publication.open.size;
      for (const openId of publication.open) this.#send(publication, openId);
      // The others of ten go out behind those that were lost on the way.
      this.#add(publication, publication.later);
      publication.later = 0;
    }
    this.#host.ready(this.#lostAtMs === undefined ? undefined : performance.now() - this.#lostAtMs);
    this.#lostAtMs = undefined;
  }

  #answered({ t, id = '', mid = '', offset, dup, code }: Said): void {
    const { counts } = this.#host;
    const publication = this.#publicationOf(id);
    if (!publication?.open.delete(id)) return;
    if (t !== 'ack') tally(counts.refused, code ?? t);
    else {
      counts.acks++;
      if (dup) counts.dupAcks++;
      if (!publication.answer) {
        publication.answer = { mid, offset };
        this.#host.stored(publication.place.slug, offset, mid);
      } else if (publication.answer.mid !== mid || publication.answer.offset !== offset) counts.unequalAcks++;
    }
    if (publication.open.size > 0) return;
    if (publication.later > 0) {
      this.#add(publication, publication.later);
      publication.later = 0;
    } else this.#publications.delete(publication.key);
  }

  #failed({ id = '', code = '', retryMs }: Said): void {
    const { counts } = this.#host;
    const publication = this.#publicationOf(id);
    const socket = this.#socket;
    if (publication && retryMs !== undefined) {
      counts.resent++;
      setTimeout(() => {
        if (this.#socket === socket && this.isReady && publication.open.has(id)) this.#send(publication, id);
      }, retryMs);
      return;
    }
    tally(counts.errors, `${code} ${id.split(' ')[0]?.replace(/#.*/, '')}`);
    if (publication) this.#publications.delete(publication.key);
    else this.cut();
  }

  #publicationOf(id: string): Publication | undefined {
    return this.#publications.get(id.slice(0, id.indexOf('#')));
  }

  #ended(code: number | undefined): void {
    const { counts } = this.#host;
    tally(counts.closes, String(code ?? 'broken'));
    if (this.isReady) {
      this.#host.lost();
      this.#lostAtMs = performance.now();
    }
    this.#joined = 0;
    this.#socket = undefined;
    const jitterMs = Math.random() * Math.min(BACK_OFF_MS.most, BACK_OFF_MS.first * 2 ** Math.min(this.#attempts++, 10));
    const waitMs = this.#drainUntilMs === undefined ? jitterMs : Math.max(0, this.#drainUntilMs - performance.now());
    setTimeout(() => this.connect(), waitMs);
  }
}
