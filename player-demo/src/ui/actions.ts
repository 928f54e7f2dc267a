import { tell } from './dialogs';
import { h, setText } from './dom';
import { countdown, problemOf, waitText } from './forms';

/** A button that does something at a click, once at a time; errors are shown in `note`. */
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
          if (note) setText(note, seconds > 0 ? `Too many attempts. Try again in ${waitText(seconds)}.` : '');
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

/**
 * Copies a text. Without permission, or on a page without TLS, the older method needs a field to
 * select.
 */
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

/** A value with a button that copies it. */
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
