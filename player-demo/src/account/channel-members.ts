import { actionButton } from '../ui/actions';
import { confirmed, tell } from '../ui/dialogs';
import { h } from '../ui/dom';
import { choice, field, form, problemOf } from '../ui/forms';
import { callFresh } from '../ui/fresh-sign-in';
import { section } from '../ui/page';
import { call, callAll } from '../ui/session';

export type ChannelRoleJson = 'owner' | 'host' | 'moderator';

export interface ChannelMemberJson {
  readonly accountId: string;
  readonly name: string;
  readonly role: ChannelRoleJson;
}

const ROLES: readonly (readonly [ChannelRoleJson, string])[] = [
  ['host', 'Host'],
  ['moderator', 'Moderator'],
  ['owner', 'Owner …'],
];

/** The members of a channel and their roles. */
export function membersPart(path: string, members: readonly ChannelMemberJson[], mayChange: boolean): HTMLElement {
  const list = h('ul', { class: 'rows' });
  const update = (all: readonly ChannelMemberJson[]) => list.replaceChildren(...all.map(row));
  const refetch = async () => update(await callAll<ChannelMemberJson>(`${path}/members`));

  const set = async (member: ChannelMemberJson, role: ChannelRoleJson): Promise<void> => {
    const sure =
      role !== 'owner' ||
      (await confirmed({
        title: `Hand the channel over to ${member.name}?`,
        text: 'The new owner decides about the channel. The previous owner becomes a host.',
        action: 'Hand over',
      }));
    if (sure) await callFresh('PUT', `${path}/members/${member.accountId}`, { role });
    if (sure && role === 'owner') location.reload();
    else await refetch();
  };

  const row = (member: ChannelMemberJson) => {
    const name = h('div', { class: 'row-text' }, h('p', { class: 'row-title' }, member.name));
    if (member.role === 'owner' || !mayChange) return h('li', {}, name, h('span', { class: 'row-role' }, member.role));
    const select = h(
      'select',
      { 'aria-label': `Role of ${member.name}` },
      ...ROLES.map(([value, label]) => h('option', { value, selected: value === member.role }, label)),
    );
    select.addEventListener('change', async () => {
      select.disabled = true;
      await set(member, select.value as ChannelRoleJson).catch(async (error) => {
        await tell('That did not work', problemOf(error).message);
        await refetch().catch(() => undefined);
      });
      select.disabled = false;
    });
    return h(
      'li',
      {},
      name,
      select,
      actionButton(
        'Remove',
        async () => {
          const text =
            'If the channel is private, this account cannot hear it any more. A stream key and links that it knows still work: make a new stream key.';
          if (!(await confirmed({ title: `Remove ${member.name}?`, text, action: 'Remove' }))) return;
          await call('DELETE', `${path}/members/${member.accountId}`);
          await refetch();
        },
        { name: `Remove ${member.name}` },
      ),
    );
  };
  update(members);

  const email = field({ name: 'email', label: 'E-mail of an account here', type: 'email', maxlength: 254, spellcheck: false });
  const role = choice({ name: 'role', label: 'Role', value: 'host', choices: ROLES.slice(0, 2) });
  const add = form({
    fields: [email, role],
    submit: 'Add',
    kind: 'plain',
    label: 'Add a member',
    send: async (values) => {
      await callFresh('POST', `${path}/members`, { email: values.email!.trim(), role: values.role });
      add.reset();
      await refetch();
      return 'Added.';
    },
    fieldOf: ({ code }) => (code === 'not_found' || code === 'conflict' ? 'email' : undefined),
  });
  return section(
    'Members',
    'Hosts broadcast and make stream keys and playback links. Moderators can listen, and moderate the chat.',
    list,
    mayChange ? add : null,
  );
}
