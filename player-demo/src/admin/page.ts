import { actionButton, copyRow } from '../ui/actions';
import { confirmed, open, tell } from '../ui/dialogs';
import { h, setText } from '../ui/dom';
import { choice, type Field, field, form, problemOf } from '../ui/forms';
import { callFresh } from '../ui/fresh-sign-in';
import { dateText, pageHead, section, show } from '../ui/page';
import { call, currentUser, type User } from '../ui/session';
import { mountAudit } from './audit';

type RoleJson = User['role'];

interface AccountJson {
  readonly id: string;
  readonly email: string;
  readonly name: string;
  readonly role: RoleJson;
  readonly state: 'active' | 'invited' | 'unconfirmed' | 'banned';
  readonly createdAt: string;
  readonly banReason: string | null;
}

interface AccountPageJson {
  readonly items: AccountJson[];
  readonly next: string | null;
}

const ROLES: readonly (readonly [RoleJson, string])[] = [
  ['listener', 'Listener'],
  ['broadcaster', 'Broadcaster'],
  ['moderator', 'Moderator'],
  ['admin', 'Administrator'],
];
const STATE_TEXTS: Readonly<Record<AccountJson['state'], string>> = {
  active: '',
  invited: 'invited, not here yet',
  unconfirmed: 'address not confirmed',
  banned: 'banned',
};

/**
 * Shows `/admin` and `/admin/audit`. The answer to the first request decides whether the person may
 * see the page.
 */
export async function mountAdmin(main: HTMLElement): Promise<void> {
  if (location.pathname === '/admin/audit') await mountAudit(main, adminNav());
  else await mountAccounts(main);
}

function adminNav(): HTMLElement {
  const here = location.pathname;
  const link = (href: string, text: string) => h('a', { href, ...(href === here ? { 'aria-current': 'page' } : {}) }, text);
  return h(
    'nav',
    { class: 'tabs', 'aria-label': 'Administration' },
    link('/admin', 'Accounts'),
    currentUser()?.role === 'admin' ? link('/admin/audit', 'Audit log') : null,
  );
}

async function mountAccounts(main: HTMLElement): Promise<void> {
  const isAdmin = currentUser()?.role === 'admin';
  const path = (query: string, cursor?: string) =>
    `/accounts?limit=50${query === '' ? '' : `&query=${encodeURIComponent(query)}`}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ''}`;
  const first = await call<AccountPageJson>('GET', path(''));

  const list = h('ul', { class: 'rows accounts' });
  const none = h('p', { class: 'none', role: 'status' });
  const more = h('div', { class: 'form-end' });
  let query = '';
  const add = (page: AccountPageJson) => {
    list.append(...page.items.map(accountRow));
    setText(
      none,
      list.childElementCount > 0 ? '' : query === '' ? 'No accounts yet. Invite somebody above.' : 'No account matches this search.',
    );
    more.replaceChildren();
    const { next } = page;
    if (next !== null) more.append(actionButton('Show more', async () => add(await call<AccountPageJson>('GET', path(query, next)))));
  };
  const search = field({ name: 'query', label: 'Name or e-mail', type: 'search', required: false, maxlength: 254, spellcheck: false });
  const searching = form({
    fields: [search],
    submit: 'Search',
    kind: 'plain',
    label: 'Search accounts',
    send: async (values) => {
      query = values.query!.trim();
      const page = await call<AccountPageJson>('GET', path(query));
      list.replaceChildren();
      add(page);
    },
    fieldOf: () => 'query',
  });
  searching.classList.add('in-line');
  searching.setAttribute('role', 'search');
  add(first);
  show(
    main,
    pageHead('Administration', adminNav()),
    isAdmin ? invitePart((account) => list.prepend(accountRow(account))) : null,
    section('Accounts', 'The newest accounts come first.', searching, list, none, more),
  );
}

function invitePart(made: (account: AccountJson) => void): HTMLElement {
  const email = field({ name: 'email', label: 'E-mail', type: 'email', maxlength: 254, spellcheck: false });
  const name = field({ name: 'name', label: 'Name', maxlength: 100 });
  const role = choice({ name: 'role', label: 'Role', value: 'broadcaster', choices: ROLES });
  const link = h('div', { class: 'made', role: 'status', 'aria-live': 'polite' });
  const element = form({
    fields: [email, name, role],
    submit: 'Invite',
    label: 'Invite somebody',
    send: async (values) => {
      const body = { email: values.email!.trim(), name: values.name!.trim(), role: values.role };
      const answer = await callFresh<{ account: AccountJson; link: string; linkExpiresAt: string }>('POST', '/accounts', body);
      link.replaceChildren(...linkShown(answer, answer.account.name));
      element.reset();
      made(answer.account);
    },
    fieldOf: ({ code }) => (code === 'conflict' ? 'email' : undefined),
  });
  return section('Invite somebody', 'You get a link that opens the account once. Send it in a way that you trust.', element, link);
}

const linkShown = ({ link, linkExpiresAt }: { link: string; linkExpiresAt: string }, name: string): HTMLElement[] => [
  h(
    'p',
    {},
    `For ${name}, works once, until ${dateText(linkExpiresAt)}. Anybody who has it can choose the password. It is shown only once.`,
  ),
  h('ul', { class: 'elsewhere' }, copyRow('Link', link)),
];

function accountRow(given: AccountJson): HTMLElement {
  const { id } = given;
  let account = given;
  const isAdmin = currentUser()?.role === 'admin';
  const isMe = account.email === currentUser()?.email;
  const name = h('p', { class: 'row-title' });
  const about = h('p', { class: 'row-more' });
  const select = h(
    'select',
    { 'aria-label': `Role of ${account.name}`, disabled: isMe },
    ...ROLES.map(([value, label]) => h('option', { value }, label)),
  );
  const role = h('span', { class: 'row-role' });
  const row = h(
    'li',
    {},
    h('div', { class: 'row-text' }, name, about),
    isAdmin ? select : role,
    h('button', { type: 'button', class: 'button plain', 'aria-label': `More about ${account.name}`, onclick: () => openMore() }, 'More'),
  );
  const update = (now: AccountJson) => {
    account = now;
    const word = STATE_TEXTS[now.state];
    name.replaceChildren(now.name, ...(word === '' ? [] : [h('span', { class: now.state === 'banned' ? 'tag wrong' : 'tag' }, word)]));
    setText(about, [now.email, now.banReason].filter(Boolean).join(' · '));
    select.value = now.role;
    setText(role, now.role);
  };
  update(account);
  select.addEventListener('change', async () => {
    const wanted = select.value as RoleJson;
    select.value = account.role;
    const sure = await confirmed({
      title: `${account.name}: ${ROLES.find(([value]) => value === wanted)![1].toLowerCase()}?`,
      text: 'The account is signed out everywhere. It has the new role from the next sign-in.',
      action: 'Change the role',
      danger: false,
    });
    if (!sure) return;
    await callFresh<AccountJson>('PATCH', `/accounts/${id}`, { role: wanted }).then(update, (error) =>
      tell('That did not work', problemOf(error).message),
    );
  });

  const openMore = () => {
    const note = h('p', { class: 'form-note', role: 'status', 'aria-live': 'polite' });
    const made = h('div', { class: 'made' });
    const act = (label: string, run: () => Promise<unknown>, kind: 'plain' | 'danger' = 'plain') =>
      actionButton(label, run, { kind, note });
    const reason: Field = field({
      name: 'reason',
      label: 'Reason',
      maxlength: 300,
      required: false,
      spellcheck: true,
      hint: 'Shown to this person when they try to sign in.',
    });
    const banned = account.state === 'banned';
    const dialog = h(
      'dialog',
      { class: 'confirm', 'aria-labelledby': 'more-title' },
      h('h2', { id: 'more-title' }, account.name),
      h('p', {}, `${account.email} · since ${dateText(account.createdAt)}`),
      banned || isMe
        ? null
        : form({
            fields: [reason],
            submit: 'Ban',
            kind: 'danger',
            label: 'Ban',
            send: async (values) => {
              const text = values.reason!.trim();
              update(await call<AccountJson>('POST', `/accounts/${id}/ban`, text === '' ? {} : { reason: text }));
              dialog.close();
            },
            fieldOf: () => 'reason',
          }),
      h(
        'div',
        { class: 'stack' },
        banned
          ? act('Lift the ban', async () => {
              update(await callFresh<AccountJson>('POST', `/accounts/${id}/unban`));
              dialog.close();
            })
          : null,
        isAdmin && !banned && !isMe
          ? act('Link for a new password', async () => {
              const link = await callFresh<{ link: string; linkExpiresAt: string }>('POST', `/accounts/${id}/link`);
              made.replaceChildren(...linkShown(link, account.name));
            })
          : null,
        isAdmin && !isMe
          ? act('Remove the second factor', async () => {
              const text =
                'For a person who has lost their phone and codes. First make sure who is asking. The account is signed out everywhere.';
              if (!(await confirmed({ title: `Remove the second factor of ${account.name}?`, text, action: 'Remove' }))) return;
              await callFresh('DELETE', `/accounts/${id}/second-factor`);
              setText(note, 'Removed.');
            })
          : null,
        isAdmin && !isMe
          ? act(
              'Delete the account',
              async () => {
                const text = 'This cannot be undone. Its channels stay, without an owner.';
                if (!(await confirmed({ title: `Delete ${account.name}?`, text, action: 'Delete', word: account.email }))) return;
                await call('DELETE', `/accounts/${id}`);
                row.remove();
                dialog.close();
              },
              'danger',
            )
          : null,
        isMe ? h('p', { class: 'none' }, 'This is you. ', h('a', { href: '/account' }, 'Your account')) : null,
        h('button', { type: 'button', class: 'button plain', onclick: () => dialog.close() }, 'Close'),
      ),
      note,
      made,
    );
    open(dialog);
  };
  return row;
}
