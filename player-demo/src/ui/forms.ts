import { h, setText } from './dom';
import { Problem } from './session';

export interface FieldOptions {
  readonly name: string;
  readonly label: string;
  readonly type?: 'text' | 'email' | 'password' | 'search' | 'date';
  readonly autocomplete?: string;
  readonly value?: string;
  /** Shown in the place of an error, so that neither moves anything. */
  readonly hint?: string;
  readonly required?: boolean;
  readonly maxlength?: number;
  readonly inputmode?: string;
  /** Checks the value before anything is sent; returns what is wrong. */
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
  /** Shows an error; an empty text removes it. */
  error(text: string): void;
  check(): string | undefined;
}

let made = 0;

/** A label, an input, and below it a line for the hint or the error. */
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

/** A field for several lines of text. */
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

/** A choice among a few values. */
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
  /** Elements between the fields and the button. */
  readonly more?: readonly (HTMLElement | null)[];
  readonly submit: string;
  /** Elements beside the button. */
  readonly beside?: readonly HTMLElement[];
  readonly kind?: 'primary' | 'danger' | 'plain';
  readonly label?: string;
  /** Sends the form. Rejects with `Problem`; a text that it resolves to is shown as the result. */
  readonly send: (values: Readonly<Record<string, string>>) => Promise<unknown>;
  /** The field that a problem is about, when the API does not name one. */
  readonly fieldOf?: (problem: Problem) => string | undefined;
  /** Handles a problem; true: it needs no message. */
  readonly onProblem?: (problem: Problem) => boolean;
}

/**
 * A form that checks its fields, sends once and shows errors at their fields. All of it is disabled
 * while it is sent; after `Retry-After`, which is counted down, it can be sent again.
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
        say(seconds > 0 ? `Too many attempts. Try again in ${waitText(seconds)}.` : 'You can try again now.', seconds > 0),
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
    // Disabling an element takes its focus away.
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

/** Disables the button and calls `tell` every second until the time is over. */
export function countdown(button: HTMLButtonElement, fromS: number, tell: (seconds: number) => void): void {
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

export const waitText = (seconds: number) =>
  seconds < 90 ? `${seconds} s` : seconds < 5400 ? `${Math.ceil(seconds / 60)} min` : `${Math.ceil(seconds / 3600)} h`;

export const newPassword = (name: string, label: string): Field =>
  field({
    name,
    label,
    type: 'password',
    autocomplete: 'new-password',
    hint: 'At least 8 characters, such as three words of your own.',
    check: (value) => ([...value].length < 8 ? 'A password has at least 8 characters.' : undefined),
  });

export const codeField = (name: string, label = 'Code of your authenticator app', hint = ''): Field =>
  field({
    name,
    label,
    autocomplete: 'one-time-code',
    // Recovery codes contain letters, so no numeric keypad.
    inputmode: 'text',
    maxlength: 40,
    spellcheck: false,
    hint,
    check: (value) => (value.trim().length < 6 ? 'A code has six digits; a recovery code is longer.' : undefined),
  });
