import { open } from './dialogs';
import { h } from './dom';
import { field, form } from './forms';
import { call, Problem } from './session';

/**
 * `call` for things that outlive a session: keys, links, roles, accounts, a second factor. If the
 * sign-in is too old, it asks for the password and makes the call again.
 */
export async function callFresh<T = void>(method: string, path: string, body?: unknown): Promise<T> {
  try {
    return await call<T>(method, path, body);
  } catch (error) {
    if (!(error instanceof Problem) || error.code !== 'fresh_sign_in_required') throw error;
    if (!(await askPassword())) throw new Problem(0, 'cancelled', 'Nothing was changed: this needs your password.');
    return call<T>(method, path, body);
  }
}

/** Resolves to false when the person cancels. */
function askPassword(): Promise<boolean> {
  return new Promise((resolve) => {
    const password = field({ name: 'password', label: 'Password', type: 'password', autocomplete: 'current-password' });
    const cancel = h('button', { type: 'button', class: 'button plain' }, 'Cancel');
    const dialog = h(
      'dialog',
      { class: 'confirm', 'aria-labelledby': 'fresh-title' },
      h('h2', { id: 'fresh-title' }, 'Your password, once more'),
      h('p', {}, 'You signed in some time ago. This change outlasts your session, so we ask for your password again.'),
      form({
        fields: [password],
        submit: 'Go on',
        beside: [cancel],
        label: 'Your password, once more',
        send: async (values) => {
          await call('POST', '/me/proof', { password: values.password });
          dialog.close('yes');
        },
      }),
    );
    cancel.addEventListener('click', () => dialog.close('no'));
    open(dialog, () => resolve(dialog.returnValue === 'yes'));
    password.input.focus();
  });
}
