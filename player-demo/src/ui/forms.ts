import { h, setText } from './dom';
import { Problem } from './session';

export interface FieldOptions {
  readonly name: string;
  readonly label: string;
  readonly type?: 'text' | 'email' | 'password' | 'search' | 'date';
  readonly autocomplete?: string;
  readonly value?: string;
  /** Stands where an error would: neither moves anything. */
  readonly hint?: string;
  readonly required?: boolean;
  readonly maxlength?: number;
  readonly inputmode?: string;
  /** Checked before anything is sent; the text is what is wrong. */
  readonly check?: (value: string) => string | undefined;
  readonly spellcheck?: boolean;
  readonly pattern?: RegExp;
}

export interface Field {
  readonly element: HTMLElement;
  readonly input: HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement;
  readonly name: string;
  readonly label: string;
  value(): string;
  /** Empty: nothing is wrong. */
  error(text: string): void;
  check(): string | undefined;
}

let made = 0;

/** A label, an input, and a line below it for the hint or the error. */
export function field(options: FieldOptions): Field {
  const id = `f${++made}`;
  const note = h('p', { class: 'field-note', id: `${id}-note`, 'aria-live': 'polite' }, options.hint ?? '');
  const { type = 'text', required = true } = options;
  const input = h('input', {
    id,
    name: options.name,
    type,
    required,
    'aria-describedby': `${id}-note`,
    autocomplete: options.autocomplete ?? 'off',
    spellcheck: String(options.spellcheck ?? type === 'text'),
    value: options.value ?? '',
    maxlength: options.maxlength ?? 512,
    ...(type === 'email' || options.autocomplete === 'one-time-code' ? { autocapitalize: 'none' } : {}),
    ...(options.inputmode ? { inputmode: options.inputmode } : {}),
  });
  const children: HTMLElement[] = [input];
  if (type === 'password') children.push(showPassword(input, options.label));
  const box = h('div', { class: 'field-box' }, ...children);
  const element = h('div', { class: 'field' }, h('label', { for: id }, options.label), box, note);
  return fieldOf(element, input, note, options, () => {
    const value = input.value.trim();
    if (required && input.value === '') return `${options.label} is missing.`;
    if (type === 'email' && value !== '' && !/^[^\s@]+@[^\s@]+$/.test(value)) return 'This is not an e-mail address.';
    return options.check?.(input.value);
  });
}

/** Text of several lines. */
export function area(options: {
  name: string;
  label: string;
  maxlength: number;
  hint?: string;
  value?: string;
  required?: boolean;
  rows?: number;
}): Field {
  const id = `f${++made}`;
  const note = h('p', { class: 'field-note', id: `${id}-note`, 'aria-live': 'polite' }, options.hint ?? '');
  const { required = true, rows = 3, maxlength } = options;
  const input = h('textarea', { id, name: options.name, rows, required, maxlength, 'aria-describedby': `${id}-note` }, options.value ?? '');
  const element = h('div', { class: 'field' }, h('label', { for: id }, options.label), input, note);
  return fieldOf(element, input, note, options, () => (required && input.value.trim() === '' ? `${options.label} is missing.` : undefined));
}

/** One of a few. */
export function choice(options: {
  name: string;
  label: string;
  value: string;
  hint?: string;
  choices: readonly (readonly [value: string, label: string])[];
}): Field {
  const id = `f${++made}`;
  const note = h('p', { class: 'field-note', id: `${id}-note`, 'aria-live': 'polite' }, options.hint ?? '');
  const select = h(
    'select',
    { id, name: options.name, 'aria-describedby': `${id}-note` },
    ...options.choices.map(([value, label]) => h('option', { value, selected: value === options.value }, label)),
  );
  const element = h('div', { class: 'field' }, h('label', { for: id }, options.label), select, note);
  return fieldOf(element, select, note, options, () => undefined);
}

function fieldOf(
  element: HTMLElement,
  input: HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement,
  note: HTMLElement,
  { name, label, hint = '' }: { name: string; label: string; hint?: string },
  check: () => string | undefined,
): Field {
  const error = (text: string) => {
    element.classList.toggle('wrong', text !== '');
    if (text === '') input.removeAttribute('aria-invalid');
    else input.setAttribute('aria-invalid', 'true');
    setText(note, text || hint);
  };
  input.addEventListener('input', () => error(''));
  return { element, input, name, label, value: () => input.value, error, check };
}

function showPassword(input: HTMLInputElement, label: string): HTMLButtonElement {
  const button = h(
    'button',
    { type: 'button', class: 'reveal', 'aria-pressed': 'false', 'aria-label': `Show ${label.toLowerCase()}` },
    'Show',
  );
  button.addEventListener('click', () => {
    const shown = input.type === 'password';
    input.type = shown ? 'text' : 'password';
    button.setAttribute('aria-pressed', String(shown));
    setText(button, shown ? 'Hide' : 'Show');
    input.focus();
  });
  return button;
}

export interface FormOptions {
  readonly fields: readonly Field[];
  /** Between the fields and the button. */
  readonly more?: readonly (HTMLElement | null)[];
  readonly submit: string;
  /** Beside the button. */
  readonly beside?: readonly HTMLElement[];
  readonly kind?: 'primary' | 'danger' | 'plain';
  readonly label?: string;
  /** Rejects with `Problem`; a text that it resolves to is shown as what has happened. */
  readonly send: (values: Readonly<Record<string, string>>) => Promise<unknown>;
  /** The field that a problem is about, where the API does not name one. */
  readonly fieldOf?: (problem: Problem) => string | undefined;
  /** True: it has been seen to. */
  readonly onProblem?: (problem: Problem) => boolean;
}

/**
 * A form that checks, sends once, and says next to the field what is wrong. While it is sent everything in it is disabled; after
 * `Retry-After` seconds, which are counted down, it may be sent again.
 */
export function form(options: FormOptions): HTMLFormElement {
  const { fields } = options;
  const note = h('p', { class: 'form-note', role: 'status', 'aria-live': 'polite' });
  const button = h('button', { type: 'submit', class: `button ${options.kind ?? 'primary'}` }, options.submit);
  const fieldset = h(
    'fieldset',
    {},
    ...fields.map(({ element }) => element),
    ...(options.more ?? []),
    h('div', { class: 'form-end' }, button, ...(options.beside ?? [])),
    note,
  );
  const element = h('form', { class: 'form', novalidate: true, ...(options.label ? { 'aria-label': options.label } : {}) }, fieldset);
  let sending = false;

  const say = (text: string, wrong: boolean) => {
    note.classList.toggle('wrong', wrong);
    setText(note, text);
  };

  const refuse = (problem: Problem) => {
    if (problem.code === 'rate_limited') {
      countdown(button, problem.retryAfterS ?? 30, (seconds) =>
        say(seconds > 0 ? `Too many tries. You can go on in ${waitText(seconds)}.` : 'You can try again now.', seconds > 0),
      );
      return;
    }
    const name = problem.at ?? options.fieldOf?.(problem);
    const wrong = fields.find((one) => one.name === name);
    if (wrong) {
      wrong.error(problem.message.replace(/^body\.[\w.]+: /, ''));
      wrong.input.focus();
    } else {
      say(problem.message, true);
      if (problem.code === 'second_factor_missing') note.append(' ', h('a', { href: '/account#second-factor' }, 'Your second factor'));
    }
  };

  element.addEventListener('submit', async (event) => {
    event.preventDefault();
    if (sending || button.disabled) return;
    say('', false);
    let first: Field | undefined;
    for (const one of fields) {
      const wrong = one.element.isConnected && !one.element.hidden ? one.check() : undefined;
      one.error(wrong ?? '');
      if (wrong !== undefined) first ??= one;
    }
    if (first) {
      first.input.focus();
      return;
    }
    const focused = document.activeElement;
    const values = Object.fromEntries(fields.map((one) => [one.name, one.value()]));
    sending = true;
    fieldset.disabled = true;
    element.setAttribute('aria-busy', 'true');
    let problem: Problem | undefined;
    let said: unknown;
    try {
      said = await options.send(values);
    } catch (error) {
      problem = problemOf(error);
    }
    sending = false;
    fieldset.disabled = false;
    element.removeAttribute('aria-busy');
    // A disabled element loses the focus.
    if (element.isConnected && focused instanceof HTMLElement && element.contains(focused) && document.activeElement === document.body)
      focused.focus();
    if (problem) {
      if (!options.onProblem?.(problem)) refuse(problem);
    } else if (typeof said === 'string') say(said, false);
  });
  return element;
}

export const problemOf = (error: unknown): Problem =>
  error instanceof Problem ? error : new Problem(0, 'internal', `Something went wrong on this page: ${String(error)}`);

/** Every second until nothing is left; the button waits so long. */
function countdown(button: HTMLButtonElement, fromS: number, tell: (seconds: number) => void): void {
  const untilMs = performance.now() + fromS * 1000;
  button.disabled = true;
  const turn = () => {
    const leftS = Math.ceil((untilMs - performance.now()) / 1000);
    tell(Math.max(0, leftS));
    if (leftS <= 0) {
      button.disabled = false;
      clearInterval(timer);
    }
  };
  const timer = setInterval(turn, 1000);
  turn();
}

const waitText = (seconds: number) =>
  seconds < 90 ? `${seconds} s` : seconds < 5400 ? `${Math.ceil(seconds / 60)} min` : `${Math.ceil(seconds / 3600)} h`;

export const newPassword = (name: string, label: string): Field =>
  field({
    name,
    label,
    type: 'password',
    autocomplete: 'new-password',
    hint: 'At least 8 characters. Three words that are your own are good.',
    check: (value) => ([...value].length < 8 ? 'A password has at least 8 characters.' : undefined),
  });

export const codeField = (name: string, label = 'Code of your authenticator app', hint = ''): Field =>
  field({
    name,
    label,
    autocomplete: 'one-time-code',
    // Recovery codes have letters: no keypad.
    inputmode: 'text',
    maxlength: 40,
    spellcheck: false,
    hint,
    check: (value) => (value.trim().length < 6 ? 'A code has six digits; a recovery code is longer.' : undefined),
  });

/** Does something at a click, once at a time; what goes wrong is said in `note`. */
export function actionButton(
  label: string,
  run: () => Promise<unknown>,
  options: { kind?: 'primary' | 'danger' | 'plain' | 'quiet'; note?: HTMLElement; name?: string } = {},
): HTMLButtonElement {
  const { kind = 'plain', note } = options;
  const button = h(
    'button',
    { type: 'button', class: kind === 'quiet' ? 'quiet' : `button ${kind}`, ...(options.name ? { 'aria-label': options.name } : {}) },
    label,
  );
  button.addEventListener('click', async () => {
    button.disabled = true;
    if (note) setText(note, '');
    try {
      await run();
      button.disabled = false;
    } catch (error) {
      const problem = problemOf(error);
      if (problem.code === 'rate_limited')
        countdown(button, problem.retryAfterS ?? 30, (seconds) => {
          if (note) setText(note, seconds > 0 ? `Too many tries. You can go on in ${waitText(seconds)}.` : '');
        });
      else {
        button.disabled = false;
        if (note) setText(note, problem.message);
        else await tell('That did not work', problem.message);
      }
    }
  });
  return button;
}

/** Puts a text where it can be pasted from. Without permission, or on a page without TLS, the older way needs a field to select. */
export async function copyText(text: string, selected?: HTMLInputElement): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = selected ?? h('input', { type: 'text', value: text, class: 'offscreen', readonly: true });
    if (!selected) document.body.append(area);
    area.select();
    document.execCommand('copy');
    if (!selected) area.remove();
  }
}

/** A value to be copied: a field that shows it, and a button. */
export function copyRow(label: string, value: string): HTMLElement {
  const input = h('input', {
    type: 'text',
    readonly: true,
    value,
    'aria-label': label,
    spellcheck: 'false',
    onfocus: () => input.select(),
  });
  return h(
    'li',
    {},
    h('span', { class: 'label' }, label),
    input,
    copyButton(label, () => copyText(value, input)),
  );
}

export function copyButton(label: string, copy: () => Promise<void>): HTMLButtonElement {
  const button = h('button', { class: 'quiet', type: 'button', 'aria-label': `Copy ${label}` }, 'Copy');
  const said = (text: string) => {
    setText(button, text);
    button.setAttribute('aria-label', text === 'Copy' ? `Copy ${label}` : `${label} copied`);
  };
  button.addEventListener('click', async () => {
    await copy();
    said('Copied');
    setTimeout(() => said('Copy'), 1_500);
  });
  return button;
}

/** Asks before what cannot be taken back. `word`: has to be typed. */
export function confirmed(options: { title: string; text: string; action: string; danger?: boolean; word?: string }): Promise<boolean> {
  return new Promise((resolve) => {
    const act = h('button', { class: `button ${options.danger === false ? 'primary' : 'danger'}`, value: 'yes' }, options.action);
    const typed =
      options.word === undefined ? undefined : field({ name: 'word', label: `Type “${options.word}” to confirm`, spellcheck: false });
    if (typed) {
      act.disabled = true;
      typed.input.addEventListener('input', () => {
        act.disabled = typed.value().trim() !== options.word;
      });
    }
    const dialog = h(
      'dialog',
      { class: 'confirm', 'aria-labelledby': 'confirm-title' },
      h(
        'form',
        { method: 'dialog' },
        h('h2', { id: 'confirm-title' }, options.title),
        h('p', {}, options.text),
        typed?.element ?? null,
        h('div', { class: 'form-end' }, act, h('button', { class: 'button plain', value: 'no', formnovalidate: true }, 'Cancel')),
      ),
    );
    open(dialog, () => resolve(dialog.returnValue === 'yes'));
    // Return in the field means the first button; the safe one has the focus otherwise.
    if (!typed) dialog.querySelector<HTMLButtonElement>('[value="no"]')?.focus();
  });
}

export function tell(title: string, text: string): Promise<void> {
  return new Promise((resolve) => {
    const dialog = h(
      'dialog',
      { class: 'confirm', 'aria-label': title },
      h(
        'form',
        { method: 'dialog' },
        h('h2', {}, title),
        h('p', {}, text),
        h('div', { class: 'form-end' }, h('button', { class: 'button primary' }, 'Close')),
      ),
    );
    open(dialog, resolve);
  });
}

/** A dialog with any content; `close` in it ends it. Focus goes back to where it was. */
export function open(dialog: HTMLDialogElement, onClose: () => void = () => undefined): void {
  const before = document.activeElement;
  dialog.addEventListener('close', () => {
    dialog.remove();
    if (before instanceof HTMLElement && before.isConnected) before.focus();
    onClose();
  });
  document.body.append(dialog);
  dialog.showModal();
}

/** A part of a page: its name and what it is for on the left, what can be done on the right. */
export function section(title: string, text: string | null, ...children: (Node | null)[]): HTMLElement {
  const id = title.toLowerCase().replaceAll(/[^a-z]+/g, '-');
  return h(
    'section',
    { class: 'part', id, 'aria-labelledby': `${id}-title` },
    h('div', { class: 'part-head' }, h('h2', { id: `${id}-title`, tabindex: -1 }, title), text === null ? null : h('p', {}, text)),
    h('div', { class: 'part-body' }, ...children),
  );
}

/** What stands at the top of a page. Its heading has the focus, so that a screen reader begins there. */
export function pageHead(title: string, ...more: (HTMLElement | string | null)[]): HTMLElement {
  document.title = `${title} · Veza`;
  return h('div', { class: 'page-head' }, h('h1', { tabindex: -1 }, title), ...more);
}

/** Shows a page, or another state of one, and puts the focus at its head. */
export function show(main: HTMLElement, ...children: (Node | null)[]): void {
  main.replaceChildren(h('div', { class: 'page' }, ...children));
  scrollTo(0, 0);
  main.querySelector<HTMLElement>('h1')?.focus({ preventScroll: true });
}

/** "23 Nov 2026, 18:05" in the reader's own way. */
export const dateText = (iso: string | null, none = 'never'): string =>
  iso === null ? none : new Date(iso).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });

/** Hands the browser a file that was made here. */
export function download(name: string, content: Blob): void {
  const url = URL.createObjectURL(content);
  const link = h('a', { href: url, download: name, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
