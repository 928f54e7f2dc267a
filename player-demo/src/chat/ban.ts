import { open } from '../ui/dialogs';
import { h } from '../ui/dom';
import { choice, field } from '../ui/forms';

const LENGTHS: readonly (readonly [string, string])[] = [
  ['', 'For good'],
  ['3600', 'An hour'],
  ['86400', 'A day'],
  ['604800', 'A week'],
  ['2592000', '30 days'],
];

/** A ban as a `mod` frame and the API take it, without the user. */
export interface BanChoice {
  readonly action: 'ban' | 'shadowBan';
  readonly more: { readonly seconds?: number; readonly reason?: string; readonly purge?: boolean; readonly addressSeconds?: number };
}

/** Asks how to ban somebody; undefined: do not ban. The button that cancels has the focus. */
export function askBan(name: string): Promise<BanChoice | undefined> {
  return new Promise((resolve) => {
    const length = choice({ name: 'seconds', label: 'How long?', value: '', choices: LENGTHS });
    const reason = field({
      name: 'reason',
      label: 'Reason',
      maxlength: 300,
      required: false,
      hint: 'Shown to this person and to moderators.',
    });
    const check = (text: string) => {
      const input = h('input', { type: 'checkbox' });
      return { input, label: h('label', { class: 'check' }, input, h('span', {}, text)) };
    };
    const purge = check('Delete all messages of this person.');
    const address = check('Ban this person’s network address for a day. Other people may share it.');
    const shadow = check('Do not tell them: this person can go on writing, and nobody else sees it.');
    shadow.input.addEventListener('change', () => {
      for (const { input } of [purge, address]) {
        input.disabled = shadow.input.checked;
        if (shadow.input.checked) input.checked = false;
      }
    });
    const dialog = h(
      'dialog',
      { class: 'confirm', 'aria-labelledby': 'ban-title' },
      h(
        'form',
        { method: 'dialog' },
        h('h2', { id: 'ban-title' }, `Ban ${name}?`),
        h('p', {}, 'This person cannot read or write here until the ban ends or is lifted. They may appeal once.'),
        length.element,
        reason.element,
        h('div', { class: 'checks' }, purge.label, address.label, shadow.label),
        h(
          'div',
          { class: 'form-end' },
          h('button', { class: 'button danger', value: 'yes' }, 'Ban'),
          h('button', { class: 'button plain', value: 'no', formnovalidate: true }, 'Cancel'),
        ),
      ),
    );
    open(dialog, () => {
      if (dialog.returnValue !== 'yes') return resolve(undefined);
      const said = reason.value().trim();
      resolve({
        action: shadow.input.checked ? 'shadowBan' : 'ban',
        more: {
          ...(length.value() !== '' && { seconds: Number(length.value()) }),
          ...(said !== '' && { reason: said }),
          ...(purge.input.checked && { purge: true }),
          ...(address.input.checked && { addressSeconds: 86_400 }),
        },
      });
    });
    dialog.querySelector<HTMLButtonElement>('[value="no"]')?.focus();
  });
}

/**
 * Asks for one line of text; undefined: cancelled. Unless `required`, an empty text is an answer.
 */
export function askLine(options: {
  title: string;
  label: string;
  hint: string;
  action: string;
  required: boolean;
}): Promise<string | undefined> {
  return new Promise((resolve) => {
    const text = field({
      name: 'text',
      label: options.label,
      hint: options.hint,
      maxlength: 300,
      required: options.required,
      spellcheck: true,
    });
    const dialog = h(
      'dialog',
      { class: 'confirm', 'aria-label': options.title },
      h(
        'form',
        { method: 'dialog' },
        h('h2', {}, options.title),
        text.element,
        h(
          'div',
          { class: 'form-end' },
          h('button', { class: 'button primary', value: 'yes' }, options.action),
          h('button', { class: 'button plain', value: 'no', formnovalidate: true }, 'Cancel'),
        ),
      ),
    );
    open(dialog, () => resolve(dialog.returnValue === 'yes' ? text.value().trim() : undefined));
    text.input.focus();
  });
}
