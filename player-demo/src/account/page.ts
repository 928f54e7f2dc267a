import './account.css';
import { actionButton } from '../ui/actions';
import { confirmed } from '../ui/dialogs';
import { h, setText } from '../ui/dom';
import { field, form, newPassword } from '../ui/forms';
import { dateText, download, pageHead, section, show } from '../ui/page';
import { call, callRaw, forget, type Me, remember } from '../ui/session';
import { clientText, ROLE_TEXTS } from '../ui/texts';
import { apiKeysPart } from './keys';
import { passkeysPart } from './passkey-list';
import { secondFactorPart } from './second-factor';
import { SignIn } from './sign-in';

interface SessionJson {
  readonly id: string;
  readonly client: string;
  readonly address: string;
  readonly createdAt: string;
  readonly lastUsedAt: string;
  readonly current: boolean;
}

/** Shows `/account` to somebody who is not signed in. */
export function mountSignIn(main: HTMLElement): void {
  new SignIn(main).open();
}

/** Shows `/account`. All data is loaded before anything is shown, so that nothing moves. */
export async function mountAccount(main: HTMLElement): Promise<void> {
  const [me, sessions, passkeys, keys] = await Promise.all([
    call<Me>('GET', '/me'),
    call<{ items: SessionJson[] }>('GET', '/me/sessions'),
    call<{ items: Parameters<typeof passkeysPart>[0] }>('GET', '/me/passkeys'),
    call<{ items: Parameters<typeof apiKeysPart>[0] }>('GET', '/me/api-keys'),
  ]);
  remember(me);
  show(
    main,
    pageHead(
      'Account',
      me.secondFactor.needed
        ? h(
            'p',
            { class: 'banner', role: 'status' },
            'Your role works only with a second factor. ',
            h('a', { href: '#second-factor' }, 'Set one up now'),
            ': it takes a minute.',
          )
        : null,
    ),
    profilePart(me),
    secondFactorPart(me),
    passkeysPart(passkeys.items),
    passwordPart(me),
    sessionsPart(sessions.items),
    apiKeysPart(keys.items),
    dataPart(me),
  );
  const wanted = location.hash.length > 1 ? document.getElementById(location.hash.slice(1)) : null;
  wanted?.scrollIntoView();
  wanted?.querySelector<HTMLElement>('h2')?.focus({ preventScroll: true });
}

function profilePart(me: Me): HTMLElement {
  const name = field({
    name: 'name',
    label: 'Name',
    autocomplete: 'name',
    maxlength: 100,
    value: me.name,
    hint: 'Other people see this name.',
  });
  return section(
    'Profile',
    null,
    h('dl', { class: 'pairs' }, h('dt', {}, 'E-mail'), h('dd', {}, me.email), h('dt', {}, 'Role'), h('dd', {}, ROLE_TEXTS[me.role])),
    form({
      fields: [name],
      submit: 'Save',
      kind: 'plain',
      label: 'Profile',
      send: async (values) => {
        const changed = await call<Me>('PATCH', '/me', { name: values.name });
        remember(changed);
        return 'Saved.';
      },
      fieldOf: () => 'name',
    }),
  );
}

function passwordPart(me: Me): HTMLElement {
  const old = field({ name: 'password', label: 'Password now', type: 'password', autocomplete: 'current-password' });
  const next = newPassword('newPassword', 'New password');
  // Password managers need this field to find the account.
  const whose = h('input', {
    type: 'text',
    autocomplete: 'username',
    value: me.email,
    hidden: true,
    readonly: true,
    'aria-hidden': 'true',
  });
  const element = form({
    fields: [old, next],
    more: [whose],
    submit: 'Change the password',
    kind: 'plain',
    label: 'Password',
    send: async (values) => {
      await call('POST', '/me/password', values);
      element.reset();
      return 'Changed. You are signed out everywhere else.';
    },
    fieldOf: ({ code }) => (code === 'invalid_credentials' ? 'password' : code === 'bad_request' ? 'newPassword' : undefined),
  });
  return section('Password', 'A new password signs you out everywhere else.', element);
}

function sessionsPart(sessions: readonly SessionJson[]): HTMLElement {
  const list = h('ul', { class: 'rows' });
  for (const session of sessions) {
    const row = h(
      'li',
      {},
      h(
        'div',
        { class: 'row-text' },
        h('p', { class: 'row-title' }, clientText(session.client), session.current ? h('span', { class: 'tag' }, 'this device') : null),
        h('p', { class: 'row-more' }, `${session.address} · last used ${dateText(session.lastUsedAt)}`),
      ),
      session.current
        ? null
        : actionButton(
            'End',
            async () => {
              await call('DELETE', `/me/sessions/${session.id}`);
              row.remove();
            },
            { name: `End the session of ${clientText(session.client)}` },
          ),
    );
    list.append(row);
  }
  const everywhere = actionButton('Sign out everywhere', async () => {
    const sure = await confirmed({
      title: 'Sign out everywhere?',
      text: 'All sessions end, this one too. You can sign in again with your password.',
      action: 'Sign out everywhere',
    });
    if (!sure) return;
    await call('DELETE', '/me/sessions');
    forget();
    location.assign('/account');
  });
  return section('Devices', 'Where you are signed in. End sessions that you do not know, then change your password.', list, everywhere);
}

function dataPart(me: Me): HTMLElement {
  const note = h('p', { class: 'form-note', role: 'status', 'aria-live': 'polite' });
  const fetched = actionButton(
    'Download my data',
    async () => {
      const response = await callRaw('GET', '/me/export');
      download('veza-my-data.json', new Blob([await response.text()], { type: 'application/json' }));
      setText(note, 'The file is in your downloads.');
    },
    { note },
  );
  return section(
    'Your data',
    'Download what we store about you, or delete your account.',
    h(
      'div',
      { class: 'form-end' },
      fetched,
      actionButton('Delete my account', async () => deleteAccount(me), { kind: 'danger' }),
    ),
    note,
  );
}

function deleteAccount(me: Me): void {
  const owned = me.channels.filter(({ role }) => role === 'owner').map(({ slug }) => slug);
  const password = field({ name: 'password', label: 'Password', type: 'password', autocomplete: 'current-password' });
  const channels = h(
    'label',
    { class: 'check' },
    h('input', { type: 'checkbox', name: 'channels' }),
    h('span', {}, `Delete my channels with their recordings, too: ${owned.join(', ')}. Otherwise an administrator gives them a new owner.`),
  );
  const dialog = h(
    'dialog',
    { class: 'confirm', 'aria-labelledby': 'delete-title' },
    h('h2', { id: 'delete-title' }, 'Delete your account?'),
    h(
      'p',
      {},
      'Your name, address, sessions and keys are deleted at once. This cannot be undone. What the account did stays in the audit log.',
    ),
    form({
      fields: [password],
      more: [owned.length > 0 ? channels : null],
      submit: 'Delete my account',
      kind: 'danger',
      label: 'Delete my account',
      beside: [h('button', { type: 'button', class: 'button plain', onclick: () => dialog.close() }, 'Cancel')],
      send: async (values) => {
        const all = channels.querySelector('input')!.checked;
        await call('POST', '/me/delete', { password: values.password, channels: all ? 'delete' : 'keep' });
        forget();
        location.assign('/');
      },
      fieldOf: ({ code }) => (code === 'invalid_credentials' ? 'password' : undefined),
    }),
  );
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
