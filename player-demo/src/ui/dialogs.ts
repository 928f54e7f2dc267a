import { h } from './dom';
import { field } from './forms';

/** Asks for confirmation of something that cannot be undone. `word` must be typed, if given. */
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
    // Return in the field presses the first button; without a field, the safe button has the focus.
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

/**
 * Opens a dialog with any content; a `close` in it ends it. The focus then returns to where it was.
 */
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
