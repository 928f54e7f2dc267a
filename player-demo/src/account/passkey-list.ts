import { actionButton } from '../ui/actions';
import { confirmed } from '../ui/dialogs';
import { h } from '../ui/dom';
import { field, form } from '../ui/forms';
import { callFresh } from '../ui/fresh-sign-in';
import { dateText, section } from '../ui/page';
import { call } from '../ui/session';
import { clientText } from '../ui/texts';
import { createPasskey, type PasskeyJson, passkeysWork } from './passkeys';

/** Passkeys: lists, makes and deletes them. */
export function passkeysPart(passkeys: readonly PasskeyJson[]): HTMLElement {
  const list = h('ul', { class: 'rows' });
  const none = h(
    'p',
    { class: 'none' },
    'No passkey yet. With a passkey you sign in by fingerprint, face or PIN; no other second factor is needed.',
  );
  const update = (all: readonly PasskeyJson[]) => {
    list.replaceChildren(...all.map(row));
    none.hidden = all.length > 0;
    list.hidden = all.length === 0;
  };
  const refetch = async () => update((await call<{ items: PasskeyJson[] }>('GET', '/me/passkeys')).items);
  const row = (passkey: PasskeyJson) =>
    h(
      'li',
      {},
      h(
        'div',
        { class: 'row-text' },
        h('p', { class: 'row-title' }, passkey.name),
        h('p', { class: 'row-more' }, `made ${dateText(passkey.createdAt)} · last used ${dateText(passkey.lastUsedAt)}`),
      ),
      actionButton(
        'Delete',
        async () => {
          const text = 'It cannot open your account any more. Delete it on the device too.';
          if (!(await confirmed({ title: `Delete “${passkey.name}”?`, text, action: 'Delete' }))) return;
          await callFresh('DELETE', `/me/passkeys/${passkey.id}`);
          await refetch();
        },
        { name: `Delete the passkey ${passkey.name}` },
      ),
    );
  update(passkeys);

  const name = field({
    name: 'name',
    label: 'Name of the new passkey',
    value: clientText(navigator.userAgent),
    maxlength: 100,
    hint: 'A name by which you recognise it.',
  });
  return section(
    'Passkeys',
    'Sign in without a password.',
    none,
    list,
    passkeysWork()
      ? form({
          fields: [name],
          submit: 'Make a passkey',
          kind: 'plain',
          label: 'Passkeys',
          send: async (values) => {
            await createPasskey(values.name!.trim());
            await refetch();
            return 'Made. The next time, choose “Sign in with a passkey”.';
          },
        })
      : h('p', { class: 'none' }, 'Passkeys need a browser that supports them, and an https address.'),
  );
}
