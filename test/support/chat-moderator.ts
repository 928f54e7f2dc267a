import { setTimeout as sleep } from 'node:timers/promises';
import type { ChatRoom } from '../../src/chat-client/index.js';
import type { ChatChecker, CheckedMember } from './chat-checker.js';
import { eventually } from './process.js';
import type { Server } from './server.js';

const AGAIN_MS = 250;
const PAUSE_MS = 300;
/** Longer than anything is away. */
const WITHIN_MS = 150_000;
/** Of the newest messages one is deleted. */
const NEWEST = 20;

/** Members that are dealt with, each in the room that he has first. */
export interface Moderated {
  readonly purged: CheckedMember;
  readonly banned: CheckedMember;
  readonly silenced: CheckedMember;
}

/**
 * A moderator who does one thing after the other, over REST, and tries each until it is answered, as the documentation says: a deletion that could not be
 * done is an error.
 */
export class Moderator {
  readonly #server: Server;
  readonly #checker: ChatChecker;
  readonly #moderated: Moderated;
  readonly #sentence: () => string;
  /** What was answered with success, and how often something was tried again. */
  readonly done: Record<string, number> = {};
  #isOver = false;
  #isStopped = false;
  #running: Promise<void> | undefined;

  constructor(server: Server, checker: ChatChecker, moderated: Moderated, sentence: () => string) {
    this.#server = server;
    this.#checker = checker;
    this.#moderated = moderated;
    this.#sentence = sentence;
  }

  start(): void {
    this.#running ??= this.#run();
    // Whoever finishes is told.
    this.#running.catch(() => undefined);
  }

  /** What he is at is done to its end. */
  async finish(): Promise<void> {
    this.#isOver = true;
    await this.#running;
  }

  /** At once: what he is at fails. */
  stop(): void {
    this.#isOver = true;
    this.#isStopped = true;
  }

  /** Everything once, and again from the beginning. */
  async #run(): Promise<void> {
    const { purged, banned, silenced } = this.#moderated;
    const deleteOne = () => this.deleteOne();
    const acts = [
      deleteOne,
      () => this.purge(purged),
      deleteOne,
      async () => {
        await this.ban(banned);
        await this.unban(banned);
      },
      deleteOne,
      async () => {
        await this.silence(silenced);
        await this.endSilence(silenced);
      },
    ];
    for (const member of [purged, banned, silenced]) await this.#says(member, 'sent');
    for (let n = 0; !this.#isOver; n++) {
      await acts[n % acts.length]!();
      await sleep(PAUSE_MS);
    }
  }

  /** One of the newest messages, as somebody sees them at this moment, be it acknowledged or not. */
  async deleteOne(): Promise<void> {
    const { members } = this.#checker;
    const member = members[Math.floor(Math.random() * members.length)]!;
    const room = member.rooms[Math.floor(Math.random() * member.rooms.length)]!;
    const newest = room.timeline.items.filter(({ type, visible, deleted }) => type === 'msg' && visible && !deleted).slice(-NEWEST);
    const mid = newest[Math.floor(Math.random() * newest.length)]?.mid;
    if (mid !== undefined && (await this.#act('delete', 'DELETE', `/rooms/${room.name}/messages/${mid}`)))
      this.#checker.isDeleted(room.name, mid);
  }

  async purge(member: CheckedMember): Promise<void> {
    await this.#act('purge', 'DELETE', `/rooms/${member.rooms[0]!.name}/users/${idOf(member)}/messages`);
  }

  /** Resolves when he is out. */
  async ban(member: CheckedMember, room: ChatRoom = member.rooms[0]!): Promise<void> {
    await this.#act('ban', 'PUT', `/rooms/${room.name}/bans/${idOf(member)}`, { reason: 'a test' });
    await this.#until(`${member.name} is out of ${room.name}`, () => isBanned(room));
  }

  /** Resolves when he is in again, and what he says is stored. */
  async unban(member: CheckedMember, room: ChatRoom = member.rooms[0]!): Promise<void> {
    await this.#act('unban', 'DELETE', `/rooms/${room.name}/bans/${idOf(member)}`);
    await this.#until(`${member.name} is in ${room.name} again`, () => {
      if (isBanned(room)) room.join();
      return room.state === 'joined';
    });
    await this.#says(member, 'sent');
  }

  /** Resolves when he was told so. */
  async silence(member: CheckedMember): Promise<void> {
    await this.#act('timeout', 'PUT', `/rooms/${member.rooms[0]!.name}/timeouts/${idOf(member)}`, { seconds: 3600 });
    await this.#says(member, 'timed_out');
  }

  async endSilence(member: CheckedMember): Promise<void> {
    await this.#act('untimeout', 'DELETE', `/rooms/${member.rooms[0]!.name}/timeouts/${idOf(member)}`);
    await this.#says(member, 'sent');
  }

  async #until(what: string, is: () => boolean): Promise<void> {
    await eventually(what, () => (this.#isStopped || is() ? true : undefined), WITHIN_MS);
    if (this.#isStopped) throw new Error(`stopped before ${what}`);
  }

  /** It holds within a second; what is said until then is answered as before. */
  async #says(member: CheckedMember, fate: string): Promise<void> {
    const deadlineMs = performance.now() + WITHIN_MS;
    for (;;) {
      const found = await this.#checker.say(member, member.rooms[0]!, this.#sentence());
      if (found === fate) return;
      if (this.#isStopped || performance.now() > deadlineMs) throw new Error(`what ${member.name} says is ${found} instead of ${fate}`);
      await sleep(AGAIN_MS);
    }
  }

  /** False: there is nothing to be done, or another try has done it, whose answer was lost. */
  async #act(what: string, method: string, path: string, body?: object): Promise<boolean> {
    const deadlineMs = performance.now() + WITHIN_MS;
    for (;;) {
      try {
        await this.#server.api(method, path, body);
        this.#count(what);
        return true;
      } catch (error) {
        const status = Number(/: (\d{3}) /.exec(String(error))?.[1] ?? 0);
        // Who writes for the first time is known everywhere within a second.
        const isNoUser = status === 404 && method === 'PUT';
        if (status === 404 && !isNoUser) {
          this.#count(`${what}: nothing there`);
          return false;
        }
        if ((status > 0 && status < 500 && status !== 429 && !isNoUser) || this.#isStopped || performance.now() > deadlineMs) throw error;
        this.#count('tried again');
        await sleep(AGAIN_MS);
      }
    }
  }

  #count(what: string): void {
    this.done[what] = (this.done[what] ?? 0) + 1;
  }
}

const idOf = ({ client }: CheckedMember) => encodeURIComponent(client.user!.id);

const isBanned = ({ state, problem }: ChatRoom) => (state === 'left' || state === 'refused') && problem?.code === 'banned';
