import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { SUBPROTOCOL } from '../../src/chat-client/index.js';
import type { Acked, StoredEntry } from './chat-checker.js';

interface Answer {
  readonly t: string;
  readonly mid?: string;
  readonly offset?: number;
  readonly dup?: boolean;
  readonly code?: string;
}

interface Frame extends Answer {
  readonly id?: string;
  readonly room?: string;
  readonly retryMs?: number;
  readonly user?: { readonly id: string };
}

const TIMES = 10;
const BACK_OFF_MS = 250;
/** Between two messages: an account may say five in a second. */
const PAUSE_MS = 300;

/** One connection to one room that comes back by itself and asks again for what was not answered, and knows nothing else: every answer is kept. */
class Line {
  readonly #url: string;
  readonly #token: string;
  readonly #slug: string;
  readonly #open = new Map<string, { key: string; text: string; answered: (answer: Answer) => void }>();
  userId = '';
  #socket: WebSocket | undefined;
  #room: string | undefined;
  #isIn = false;
  #isStopped = false;
  #ids = 0;
  #resent = 0;

  constructor(url: string, token: string, slug: string) {
    [this.#url, this.#token, this.#slug] = [url, token, slug];
    this.#connect();
  }

  /** Requests that went out more than once, after an error or another connection. */
  get resent(): number {
    return this.#resent;
  }

  publish(key: string, text: string): Promise<Answer> {
    return new Promise((answered) => {
      const id = `pub ${++this.#ids}`;
      this.#open.set(id, { key, text, answered });
      if (this.#isIn) this.#send(id);
    });
  }

  stop(): void {
    this.#isStopped = true;
    this.#socket?.terminate();
  }

  #connect(): void {
    if (this.#isStopped) return;
    const socket = new WebSocket(this.#url, [SUBPROTOCOL], { perMessageDeflate: false });
    this.#socket = socket;
    socket.on('open', () => this.#say({ t: 'hello', token: this.#token }));
    socket.on('message', (data) => this.#heard(JSON.parse(String(data)) as Frame));
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#isIn = false;
      setTimeout(() => this.#connect(), BACK_OFF_MS);
    });
  }

  #say(frame: object): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame));
  }

  #send(id: string): void {
    const { key, text } = this.#open.get(id)!;
    this.#say({ t: 'pub', id, room: this.#room, key, body: { text } });
  }

  #heard(frame: Frame): void {
    const { t, id = '' } = frame;
    if (t === 'welcome') {
      this.userId = frame.user!.id;
      this.#say({ t: 'join', id: 'join', room: this.#slug });
    } else if (t === 'joined') {
      this.#room = frame.room;
      this.#isIn = true;
      for (const open of this.#open.keys()) {
        this.#resent++;
        this.#send(open);
      }
    } else if (t === 'err' && id === 'join') this.#socket?.terminate();
    else if (t === 'err' && frame.retryMs !== undefined) {
      const socket = this.#socket;
      setTimeout(() => {
        if (this.#socket !== socket || !this.#isIn || !this.#open.has(id)) return;
        this.#resent++;
        this.#send(id);
      }, frame.retryMs);
    } else {
      this.#open.get(id)?.answered(frame);
      this.#open.delete(id);
    }
  }
}

export interface TenfoldReport {
  readonly messages: number;
  readonly answers: number;
  readonly dups: number;
  /** Sent once more than the ten times, since there was an error, or the connection was lost. */
  readonly resent: number;
  /** Keys whose answers do not agree, or that were not acknowledged. */
  readonly unequal: readonly string[];
}

/**
 * An account that is never sure: it sends each message ten times under its key over two connections, five of them at once, the others when those are
 * answered.
 */
export class Tenfold {
  readonly name: string;
  readonly #slug: string;
  readonly #lines: readonly [Line, Line];
  readonly #answers = new Map<string, Answer[]>();
  #isOver = false;
  #running: Promise<void> | undefined;

  constructor(url: string, name: string, token: string, slug: string) {
    this.name = name;
    this.#slug = slug;
    this.#lines = [new Line(url, token, slug), new Line(url, token, slug)];
  }

  /** Messages that were answered ten times. */
  get messages(): number {
    return this.#answers.size;
  }

  start(sentence: (n: number) => string, acked: (room: string, message: Acked) => void): void {
    this.#running ??= this.#run(sentence, acked);
  }

  /** The last message is answered, ten times. */
  async finish(): Promise<void> {
    this.#isOver = true;
    await this.#running;
  }

  stop(): void {
    this.#isOver = true;
    for (const line of this.#lines) line.stop();
  }

  async #run(sentence: (n: number) => string, acked: (room: string, message: Acked) => void): Promise<void> {
    for (let n = 0; !this.#isOver; n++) {
      const key = `tenfold-${n}`;
      const send = (times: number) => Promise.all(Array.from({ length: times }, (_, i) => this.#lines[i % 2]!.publish(key, sentence(n))));
      const answers = [...(await send(TIMES / 2)), ...(await send(TIMES / 2))];
      this.#answers.set(key, answers);
      const { mid } = answers.find(({ t }) => t === 'ack') ?? {};
      if (mid !== undefined) acked(this.#slug, { key, mid, user: this.#lines[0].userId });
      await sleep(PAUSE_MS);
    }
  }

  /** An answer names the place where PostgreSQL has the message, which is one for ever: also after another epoch. One of them may be the first. */
  report(rows: readonly StoredEntry[]): TenfoldReport {
    const unequal: string[] = [];
    for (const [key, answers] of this.#answers) {
      const stored = rows.filter((row) => row.slug === this.#slug && row.mid === answers[0]!.mid);
      const isRight = ({ t, mid, offset }: Answer) => t === 'ack' && mid === stored[0]?.mid && offset === stored[0]?.offset;
      const firsts = answers.filter(({ dup }) => dup === false);
      if (answers.length !== TIMES || stored.length !== 1 || !answers.every(isRight) || firsts.length > 1)
        unequal.push(`${this.name} ${key}: stored at ${stored.map(({ offset }) => offset)}, ${JSON.stringify(answers)}`);
    }
    const all = [...this.#answers.values()].flat();
    return {
      messages: this.#answers.size,
      answers: all.length,
      dups: all.filter(({ dup }) => dup === true).length,
      resent: this.#lines.reduce((sum, { resent }) => sum + resent, 0),
      unequal,
    };
  }
}
