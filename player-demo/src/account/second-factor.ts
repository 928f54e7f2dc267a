import { actionButton, copyButton, copyRow, copyText } from '../ui/actions';
import { h } from '../ui/dom';
import { codeField, field, form } from '../ui/forms';
import { callFresh } from '../ui/fresh-sign-in';
import { download, section } from '../ui/page';
import { qrCode } from '../ui/qr';
import { call, type Me, take } from '../ui/session';

/** The authenticator app: off, being set up, or on. Changes in place. */
export function secondFactorPart(me: Me): HTMLElement {
  const body = h('div', { class: 'steps' });
  const put = (...children: (Node | null)[]) => {
    body.replaceChildren(...children.filter((child) => child !== null));
    // The pressed button was replaced: the focus moves to the first control of the new content.
    body.querySelector<HTMLElement>('input:not([readonly]), button')?.focus({ preventScroll: true });
  };
  const note = () => h('p', { class: 'form-note wrong', role: 'status', 'aria-live': 'polite' });

  const off = () => {
    const wrong = note();
    return [
      h('p', { class: 'state' }, 'Off. Your password alone opens this account.'),
      actionButton('Set up an authenticator app', async () => begin(), { kind: me.secondFactor.needed ? 'primary' : 'plain', note: wrong }),
      wrong,
    ];
  };

  const begin = async () => {
    const { secret, uri } = await callFresh<{ secret: string; uri: string }>('POST', '/me/totp');
    put(
      h(
        'ol',
        { class: 'numbered' },
        h(
          'li',
          {},
          h('p', {}, 'Scan this with an authenticator app (Aegis, 2FAS, Google Authenticator, a password manager …).'),
          qrCode(uri, 'QR code for the authenticator app; the key below is the same'),
          h(
            'details',
            { class: 'elsewhere' },
            h('summary', {}, 'Type the key instead'),
            h('ul', {}, copyRow('Key', secret.replace(/(.{4})(?=.)/g, '$1 '))),
          ),
        ),
        h('li', {}, h('p', {}, 'Type the code that it shows now.'), confirmForm()),
      ),
    );
  };

  const confirmForm = () =>
    form({
      fields: [codeField('code', 'Code')],
      submit: 'Turn on',
      label: 'Set up',
      beside: [h('button', { type: 'button', class: 'button plain', onclick: () => put(...off()) }, 'Cancel')],
      send: async ({ code }) => {
        const answer = await callFresh<{ recoveryCodes: string[]; accessToken: string; expiresIn: number }>('POST', '/me/totp/confirm', {
          code: code!.trim(),
        });
        take(answer);
        document.querySelector('.banner')?.remove();
        put(...codes(answer.recoveryCodes));
      },
      fieldOf: ({ code }) => (code === 'invalid_credentials' || code === 'bad_request' ? 'code' : undefined),
    });

  const codes = (all: readonly string[]) => [
    h(
      'p',
      { class: 'state' },
      'It is on. With these recovery codes you can sign in when you have lost your phone. Each works once, and they are shown only once.',
    ),
    h('ul', { class: 'codes', 'aria-label': 'Recovery codes' }, ...all.map((code) => h('li', {}, h('code', {}, code)))),
    h(
      'div',
      { class: 'form-end' },
      actionButton('Download', async () => download('veza-recovery-codes.txt', codesFile(all))),
      copyButton('recovery codes', () => copyText(all.join('\n'))),
      h('button', { type: 'button', class: 'button primary', onclick: () => put(...on(all.length)) }, 'I have kept them'),
    ),
  ];

  const codesFile = (all: readonly string[]) =>
    new Blob([`Recovery codes of ${me.email} at ${location.host}\nEach works once.\n\n${all.join('\n')}\n`], { type: 'text/plain' });

  const on = (left: number) => [
    h(
      'p',
      { class: 'state' },
      `On. ${left === 0 ? 'No recovery code is left: make new ones.' : `${left} recovery code${left === 1 ? '' : 's'} left.`}`,
    ),
    h(
      'div',
      { class: 'form-end' },
      h('button', { type: 'button', class: 'button plain', onclick: () => put(...renewal(left)) }, 'New recovery codes'),
      h('button', { type: 'button', class: 'button plain', onclick: () => put(...removal(left)) }, 'Turn off'),
    ),
  ];

  const renewal = (left: number) => [
    form({
      fields: [codeField('code')],
      submit: 'Make new codes',
      label: 'New recovery codes',
      beside: [back(left)],
      send: async ({ code }) => {
        const { recoveryCodes } = await call<{ recoveryCodes: string[] }>('POST', '/me/recovery-codes', { code: code!.trim() });
        put(...codes(recoveryCodes));
      },
      fieldOf: () => 'code',
    }),
  ];

  const removal = (left: number) => {
    const password = field({ name: 'password', label: 'Password', type: 'password', autocomplete: 'current-password' });
    return [
      form({
        fields: [password, codeField('code')],
        submit: 'Turn off',
        kind: 'danger',
        label: 'Turn off',
        beside: [back(left)],
        send: async ({ password, code }) => {
          await call('POST', '/me/totp/remove', { password, code: code!.trim() });
          put(...off());
        },
        fieldOf: ({ message }) => (message.includes('password') ? 'password' : 'code'),
      }),
    ];
  };

  const back = (left: number) => h('button', { type: 'button', class: 'button plain', onclick: () => put(...on(left)) }, 'Cancel');

  body.append(...(me.secondFactor.totp ? on(me.secondFactor.recoveryCodesLeft) : off()));
  return section(
    'Second factor',
    'A code from your phone, in addition to the password. Moderators and administrators must have one.',
    body,
  );
}
