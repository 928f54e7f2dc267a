import './composer.css';
import { ChatProblem, type ChatRoom, type Item } from '../../../src/chat-client/index';
import { h, icon, setText } from '../ui/dom';
import { emojiPicker } from './emoji';
import { openPopup } from './popup';
import { mentionedAt, waitText } from './text';

export interface ComposerHost {
  readonly room: ChatRoom;
  /** The element in which popups open. */
  readonly panel: HTMLElement;
  /** People seen in this room, newest last. */
  people(): readonly { readonly id: string; readonly name: string }[];
  mostTextBytes(): number;
  /** The reason of the person's timeout, if a moderator gave one. */
  timeoutReason(): string | undefined;
  sent(): void;
}

const MOST_OFFERED = 6;
const MOST_MENTIONS = 20;
/** The number of bytes that are left is shown from here on. */
const SAY_LEFT_BYTES = 200;
const bytesOf = (text: string) => new TextEncoder().encode(text).length;

/**
 * The field for writing: Return sends, Shift+Return begins a line, @ offers names. When nothing can
 * be sent, a note says why and until when.
 */
export class Composer {
  readonly element: HTMLFormElement;
  readonly #host: ComposerHost;
  readonly #text = h('textarea', { rows: 1, 'aria-label': 'Message', placeholder: 'Say something', enterkeyhint: 'send', maxlength: 8192 });
  readonly #send = h('button', { type: 'submit', class: 'chat-send', 'aria-label': 'Send' }, icon('send'));
  readonly #note = h('p', { class: 'chat-note', role: 'status', 'aria-live': 'polite' });
  readonly #replying = h('span');
  readonly #reply: HTMLElement;
  readonly #offers = h('ul', { class: 'chat-offers', role: 'listbox', id: 'chat-offers', 'aria-label': 'Names', hidden: true });
  #replyTo: Item | undefined;
  #offered: readonly string[] = [];
  #chosen = 0;
  #timer: ReturnType<typeof setInterval> | undefined;
  #error = '';

  constructor(host: ComposerHost) {
    this.#host = host;
    const smile = h('button', { type: 'button', class: 'round', 'aria-label': 'Emoji' }, icon('smile'));
    smile.addEventListener('click', () => {
      const close = openPopup(
        host.panel,
        emojiPicker((emoji) => {
          close();
          if (emoji !== undefined) this.insert(emoji);
        }),
        smile,
      );
    });
    this.#reply = h(
      'div',
      { class: 'chat-replying', hidden: true },
      this.#replying,
      h('button', { type: 'button', class: 'round', 'aria-label': 'Do not reply', onclick: () => this.reply(undefined) }, icon('close')),
    );
    this.element = h(
      'form',
      { class: 'chat-composer' },
      this.#offers,
      this.#reply,
      h('div', { class: 'chat-field' }, this.#text, smile, this.#send),
      this.#note,
    );
    this.element.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#text.setAttribute('aria-controls', 'chat-offers');
    this.#text.addEventListener('input', () => {
      this.#error = '';
      this.#offer();
      this.show();
    });
    this.#text.addEventListener('keydown', (event) => this.#key(event));
    this.#text.addEventListener('blur', () => this.#close());
    this.show();
  }

  focus(): void {
    this.#text.focus();
  }

  reply(item: Item | undefined): void {
    this.#replyTo = item;
    this.#reply.hidden = !item;
    setText(this.#replying, item ? `Reply to ${item.user?.name ?? ''}: ${item.body.text.slice(0, 80)}` : '');
    if (item) this.focus();
  }

  insert(text: string): void {
    const { selectionStart: from, selectionEnd: to } = this.#text;
    this.#text.setRangeText(text, from, to, 'end');
    this.focus();
    this.#offer();
    this.show();
  }

  /** Shows the current state; called after every change of the room. */
  show(): void {
    const { room } = this.#host;
    const nowMs = Date.now();
    const timeoutMs = typeof room.you.timeoutUntil === 'number' ? room.you.timeoutUntil - nowMs : 0;
    const slowMs = room.slowUntilMs - nowMs;
    const waitMs = Math.max(timeoutMs, slowMs);
    const leftBytes = this.#host.mostTextBytes() - bytesOf(this.#text.value);
    const isAllowed = waitMs <= 0 && room.state !== 'left' && room.state !== 'refused';
    this.#send.disabled = !isAllowed || this.#text.value.trim() === '' || leftBytes < 0;
    let note = this.#error;
    const why = this.#host.timeoutReason();
    if (timeoutMs > 0) note = `You have a timeout${why === undefined ? '' : ` (${why})`}. You can write again in ${waitText(timeoutMs)}.`;
    else if (slowMs > 0) note = `Slow mode: you can send in ${waitText(slowMs)}.`;
    else if (leftBytes < 0) note = `Too long by ${-leftBytes} bytes.`;
    else if (leftBytes < SAY_LEFT_BYTES) note = `${leftBytes} bytes left.`;
    else if (note === '') note = modesText(room);
    // A screen reader must not read out a countdown every second.
    this.#note.setAttribute('aria-live', waitMs > 0 ? 'off' : 'polite');
    setText(this.#note, note);
    // The note has one line; the tooltip has all of it.
    this.#note.title = note;
    this.#note.classList.toggle('wrong', this.#error !== '' || leftBytes < 0);
    clearInterval(this.#timer);
    this.#timer = waitMs > 0 ? setInterval(() => this.show(), 500) : undefined;
  }

  #submit(): void {
    const { room } = this.#host;
    const text = this.#text.value.trim();
    if (this.#send.disabled || text === '') return;
    const named = this.#named(text);
    try {
      const reply = this.#replyTo?.mid;
      room.publish(text, { ...(reply === undefined ? {} : { reply }), ...(named.length === 0 ? {} : { mentions: named }) });
    } catch (error) {
      this.#error = error instanceof ChatProblem ? error.message : String(error);
      this.show();
      return;
    }
    this.#text.value = '';
    this.reply(undefined);
    this.#close();
    this.show();
    this.#host.sent();
  }

  /** Ids of the people whom the text mentions. */
  #named(text: string): string[] {
    const ids = new Set<string>();
    const people = [...this.#host.people()].sort((a, b) => b.name.length - a.name.length);
    const names = people.map(({ name }) => name);
    for (let at = text.indexOf('@'); at >= 0; at = text.indexOf('@', at + 1)) {
      const name = mentionedAt(text, at, names).toLowerCase();
      if (name !== '') ids.add(people.find((one) => one.name.toLowerCase() === name)!.id);
    }
    return [...ids].slice(0, MOST_MENTIONS);
  }

  #key(event: KeyboardEvent): void {
    if (event.isComposing) return;
    const isOpen = !this.#offers.hidden;
    if (isOpen && (event.key === 'ArrowDown' || event.key === 'ArrowUp')) {
      event.preventDefault();
      const by = event.key === 'ArrowDown' ? 1 : this.#offered.length - 1;
      this.#choose((this.#chosen + by) % this.#offered.length);
    } else if (isOpen && (event.key === 'Enter' || event.key === 'Tab')) {
      event.preventDefault();
      this.#complete(this.#offered[this.#chosen]!);
    } else if (event.key === 'Escape') {
      if (isOpen) this.#close();
      else if (this.#replyTo) this.reply(undefined);
    } else if (event.key === 'Enter' && !event.shiftKey) {
      event.preventDefault();
      this.#submit();
    }
  }

  /** The text between the last @ and the cursor, if it may become a name. */
  #begun(): { at: number; begun: string } | undefined {
    const before = this.#text.value.slice(0, this.#text.selectionStart);
    const found = /(?:^|[^\p{L}\p{N}_@])@([\p{L}\p{N}_.'’ -]{0,40})$/u.exec(before);
    return found ? { at: before.length - found[1]!.length, begun: found[1]!.toLowerCase() } : undefined;
  }

  #offer(): void {
    const begun = this.#begun();
    if (!begun) {
      this.#close();
      return;
    }
    const names = new Set<string>();
    for (const { name } of [...this.#host.people()].reverse()) {
      if (name.toLowerCase().startsWith(begun.begun) && name.toLowerCase() !== begun.begun) names.add(name);
      if (names.size === MOST_OFFERED) break;
    }
    this.#offered = [...names];
    if (this.#offered.length === 0) {
      this.#close();
      return;
    }
    this.#offers.replaceChildren(
      ...this.#offered.map((name, index) =>
        h(
          'li',
          {
            role: 'option',
            id: `chat-offer-${index}`,
            // Runs before the text field loses the focus to the button.
            onpointerdown: (event) => {
              event.preventDefault();
              this.#complete(name);
            },
          },
          `@${name}`,
        ),
      ),
    );
    this.#offers.hidden = false;
    this.#choose(0);
  }

  #choose(index: number): void {
    this.#chosen = index;
    this.#offers.querySelectorAll('li').forEach((option, at) => {
      option.setAttribute('aria-selected', String(at === index));
    });
    this.#text.setAttribute('aria-activedescendant', `chat-offer-${index}`);
  }

  #complete(name: string): void {
    const begun = this.#begun();
    if (begun) this.#text.setRangeText(`${name} `, begun.at, this.#text.selectionStart, 'end');
    this.#close();
    this.show();
  }

  #close(): void {
    this.#offers.hidden = true;
    this.#text.removeAttribute('aria-activedescendant');
  }
}

/** The room's modes that a writer should know, in words. */
function modesText({ settings, you }: ChatRoom): string {
  const exempt = Array.isArray(settings.slowExempt) && settings.slowExempt.includes(you.role);
  if (settings.emoteOnly === true) return 'Emoji only.';
  if (typeof settings.slowS === 'number' && settings.slowS > 0 && !exempt) return `Slow mode: one message in ${settings.slowS} s.`;
  if (typeof settings.followersMin === 'number' && settings.followersMin > 0)
    return `For accounts older than ${settings.followersMin} min.`;
  return '';
}
