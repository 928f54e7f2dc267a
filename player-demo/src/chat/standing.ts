import './standing.css';
import type { ChatRoom, Outgoing } from '../../../src/chat-client/index';
import { actionButton } from '../ui/actions';
import { h, setText } from '../ui/dom';
import { area, form } from '../ui/forms';
import { dateText } from '../ui/page';
import { call, currentUser } from '../ui/session';

/** Answer of `GET /rooms/{slug}/me`. */
interface OwnSanctionsJson {
  readonly ban: { readonly reason: string | null; readonly until: string | null } | null;
  readonly timeout: { readonly reason: string | null; readonly until: string } | null;
  readonly warnings: readonly { readonly id: string; readonly text: string }[];
  readonly appeal: { readonly text: string; readonly accepted: boolean | null; readonly answer: string | null } | null;
  readonly held: readonly {
    readonly mid: string;
    readonly text: string;
    readonly state: 'waiting' | 'approved' | 'denied';
    readonly reason: string | null;
  }[];
}

export interface StandingHost {
  readonly slug: string;
  readonly room: ChatRoom;
  /** Called for each of the person's own held messages that was denied. */
  denied(outgoing: Outgoing, reason: string | null): void;
  changed(): void;
}

/** How often a banned person's page asks for the answer to their appeal. */
const ASK_AGAIN_MS = 20_000;

/**
 * Shows the person moderators' decisions about them: each warning until they confirm it, the reason
 * of a timeout, and for a ban its reason, its end and the appeal. The API is asked only when the
 * room says that there is something.
 */
export class OwnStanding {
  /** Lies over the messages. */
  readonly warning = h('div', { class: 'chat-warning', role: 'alertdialog', 'aria-label': 'A warning', hidden: true });
  readonly banned = h('div', { class: 'chat-banned', hidden: true });
  readonly #host: StandingHost;
  readonly #path: string;
  #you: unknown;
  #isBanned = false;
  #isAsking = false;
  #isAskedAgain = false;
  #shownBan = '';
  #shownWarning = '';
  #timeoutReason: string | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(host: StandingHost) {
    this.#host = host;
    this.#path = `/rooms/${encodeURIComponent(host.slug)}`;
  }

  get timeoutReason(): string | undefined {
    return this.#timeoutReason;
  }

  /** Call this after every change of the room's state. */
  look(): void {
    const { room } = this.#host;
    const isBanned = room.problem?.code === 'banned' && (room.state === 'left' || room.state === 'refused') && currentUser() !== undefined;
    if (isBanned !== this.#isBanned) {
      this.#isBanned = isBanned;
      this.banned.hidden = !isBanned;
      clearInterval(this.#timer);
      if (isBanned) {
        this.#shownBan = '';
        this.#showBan(undefined);
        void this.#ask();
        this.#timer = setInterval(() => {
          if (document.visibilityState === 'visible') void this.#ask();
        }, ASK_AGAIN_MS);
      }
    }
    const { you } = room;
    if (you === this.#you) return;
    this.#you = you;
    if (you.write !== true) return;
    const isSomething =
      (typeof you.warnings === 'number' && you.warnings > 0) ||
      typeof you.timeoutUntil === 'number' ||
      !this.warning.hidden ||
      room.outgoing.some(({ state }) => state === 'held');
    if (isSomething) void this.#ask();
  }

  async #ask(): Promise<void> {
    if (this.#isAsking) {
      this.#isAskedAgain = true;
      return;
    }
    this.#isAsking = true;
    try {
      do {
        this.#isAskedAgain = false;
        this.#take(await call<OwnSanctionsJson>('GET', `${this.#path}/me`));
      } while (this.#isAskedAgain);
    } catch {
      // The next change of the room asks again; during a ban, the timer does.
    } finally {
      this.#isAsking = false;
    }
  }

  #take(standing: OwnSanctionsJson): void {
    const { room } = this.#host;
    this.#timeoutReason = standing.timeout?.reason ?? undefined;
    this.#showWarning(standing.warnings);
    for (const outgoing of room.outgoing) {
      const found = outgoing.state === 'held' ? standing.held.find(({ mid }) => mid === outgoing.mid) : undefined;
      if (found?.state === 'denied') this.#host.denied(outgoing, found.reason);
    }
    if (this.#isBanned) {
      if (standing.ban) this.#showBan(standing);
      // The ban of the user has ended. Their address may still be banned; then joining is refused.
      else if (this.#shownBan !== 'address') {
        this.#shownBan = 'address';
        this.#sayAddress();
        room.join();
      }
    }
    this.#host.changed();
  }

  #showWarning(warnings: OwnSanctionsJson['warnings']): void {
    // Warnings are shown one by one, the oldest first.
    const one = warnings.at(-1);
    if (this.#shownWarning === (one?.id ?? '')) return;
    this.#shownWarning = one?.id ?? '';
    this.warning.hidden = !one;
    if (!one) return;
    const note = h('p', { class: 'form-note', role: 'status' });
    this.warning.replaceChildren(
      h('p', {}, h('b', {}, 'A moderator warns you'), warnings.length > 1 ? ` (1 of ${warnings.length})` : ''),
      h('p', { class: 'chat-warning-text', dir: 'auto' }, one.text),
      actionButton(
        'I have read it',
        async () => {
          await call('POST', `${this.#path}/me/warnings/${one.id}`);
          this.#showWarning(warnings.slice(0, -1));
        },
        { kind: 'plain', note },
      ),
      note,
    );
  }

  #sayAddress(): void {
    this.banned.replaceChildren(
      h('h3', {}, 'You cannot join this chat'),
      h('p', {}, 'Somebody with your network address is banned from this chat. The ban ends within 30 days.'),
    );
  }

  #showBan(standing: OwnSanctionsJson | undefined): void {
    const ban = standing?.ban;
    const appeal = standing?.appeal ?? null;
    const key = JSON.stringify([ban, appeal]) ?? '?';
    if (key === this.#shownBan) return;
    this.#shownBan = key;
    const untilMs = this.#host.room.bannedUntilMs;
    const until = ban ? ban.until : untilMs === undefined ? undefined : new Date(untilMs).toISOString();
    const parts: (Node | null)[] = [
      h('h3', {}, 'You are banned from this chat'),
      until === undefined
        ? null
        : h('p', {}, until === null ? 'The ban has no end, unless a moderator lifts it.' : `Until ${dateText(until)}.`),
      ban?.reason ? h('p', { dir: 'auto' }, h('b', {}, 'Why: '), ban.reason) : null,
    ];
    if (ban && !appeal) {
      const text = area({
        name: 'text',
        label: 'Why should it be lifted?',
        maxlength: 2000,
        rows: 4,
        hint: 'You can appeal once. A moderator reads it and answers here.',
      });
      parts.push(
        form({
          fields: [text],
          submit: 'Appeal',
          label: 'Appeal',
          send: async (values) => {
            await call('POST', `${this.#path}/appeals`, { text: values.text!.trim() });
            await this.#ask();
          },
          fieldOf: () => 'text',
        }),
      );
    } else if (appeal?.accepted === null)
      parts.push(
        h('p', { role: 'status' }, h('b', {}, 'Your appeal waits for an answer. '), 'It will appear here; you need not stay.'),
        h('blockquote', { dir: 'auto' }, appeal.text),
      );
    else if (appeal?.accepted === false)
      parts.push(
        h('p', { role: 'status' }, h('b', {}, 'Your appeal was turned down.')),
        h('blockquote', { dir: 'auto' }, appeal.answer ?? ''),
      );
    this.banned.replaceChildren(...parts.filter((part) => part !== null));
  }
}

/** The link to moderation in the panel's header, with the number of waiting decisions. */
export function deskLink(slug: string): { element: HTMLAnchorElement; show(waiting: number): void } {
  const badge = h('span', { class: 'badge' });
  // On a listening page the link opens another tab, so that the sound goes on.
  const target: Record<string, string> = location.pathname.startsWith('/channels/') ? {} : { target: '_blank' };
  const element = h('a', { class: 'chat-desk', href: `/channels/${encodeURIComponent(slug)}/chat`, ...target }, 'Desk', badge);
  return {
    element,
    show(waiting) {
      setText(badge, waiting === 0 ? '' : waiting > 99 ? '99+' : String(waiting));
      element.setAttribute('aria-label', waiting === 0 ? 'Moderation: nothing waits' : `Desk: ${waiting} waiting`);
    },
  };
}
