import { askBan } from '../chat/ban';
import { actionButton } from '../ui/actions';
import { confirmed } from '../ui/dialogs';
import { h, setText } from '../ui/dom';
import { choice, field, form, problemOf } from '../ui/forms';
import { dateText, section } from '../ui/page';
import { call } from '../ui/session';
import { actionText, type RoomAct } from './acts';
import { type DeskHost, pagedList, personLink, untilText } from './list';

interface Sanction {
  readonly user: { readonly id: string; readonly name: string };
  readonly reason: string | null;
  readonly by: { readonly id: string; readonly name: string };
  readonly createdAt: string;
  readonly until: string | null;
}
interface Ban extends Sanction {
  readonly shadow: boolean;
  readonly addressUntil: string | null;
}
interface Known {
  readonly ban: Ban | null;
  readonly timeout: Sanction | null;
  readonly warnings: readonly {
    readonly id: string;
    readonly text: string;
    readonly by: string;
    readonly at: string;
    readonly seenAt: string | null;
  }[];
  readonly acts: readonly RoomAct[];
}

const TIMEOUTS: readonly (readonly [string, string])[] = [
  ['60', 'A minute'],
  ['600', '10 minutes'],
  ['3600', 'An hour'],
  ['86400', 'A day'],
  ['604800', 'A week'],
  ['1209600', 'Two weeks'],
];

const userPath = (host: DeskHost, what: string, id: string) => `${host.room}/${what}/${encodeURIComponent(id)}`;

/** Banned and timed-out people, and until when. */
export function peoplePart(host: DeskHost): HTMLElement {
  const lists = {
    timeouts: pagedList<Sanction>({
      path: (cursor) => `${host.room}/timeouts?limit=50${cursor === undefined ? '' : `&cursor=${encodeURIComponent(cursor)}`}`,
      row: (one) => sanctionRow(one, 'timeouts'),
      empty: 'Nobody has a timeout.',
      label: 'Timeouts',
    }),
    bans: pagedList<Ban>({
      path: (cursor) => `${host.room}/bans?limit=50${cursor === undefined ? '' : `&cursor=${encodeURIComponent(cursor)}`}`,
      row: (one) => sanctionRow(one, 'bans'),
      empty: 'Nobody is banned.',
      label: 'Bans',
    }),
  };
  function sanctionRow(one: Sanction | Ban, what: 'timeouts' | 'bans'): HTMLElement {
    const { note, say } = lists[what];
    const row = h(
      'li',
      {},
      h(
        'div',
        { class: 'row-text' },
        h('p', { class: 'row-title' }, personLink(host, one.user.id, one.user.name), ...banTags(one)),
        sanctionLine(one),
      ),
      actionButton(
        what === 'bans' ? 'Lift' : 'End',
        async () => {
          await call('DELETE', userPath(host, what, one.user.id)).catch((error) => {
            // The sanction has ended by itself, or another moderator was first.
            if (problemOf(error).status !== 404) throw error;
          });
          row.remove();
          say(what === 'bans' ? `The ban of ${one.user.name} is lifted.` : `The timeout of ${one.user.name} is over.`);
        },
        { note, name: what === 'bans' ? `Lift the ban of ${one.user.name}` : `End the timeout of ${one.user.name}` },
      ),
    );
    return row;
  }
  return h(
    'div',
    {},
    section('Timeouts', 'These people can read but not write. The timeout that ends first comes first.', lists.timeouts.element),
    section('Bans', 'These people cannot join the room. The newest ban comes first.', lists.bans.element),
  );
}

const banTags = (one: Sanction | Ban): HTMLElement[] => [
  ...('shadow' in one && one.shadow ? [h('span', { class: 'tag' }, 'not told')] : []),
  ...('addressUntil' in one && one.addressUntil !== null
    ? [h('span', { class: 'tag' }, `address until ${dateText(one.addressUntil)}`)]
    : []),
];

const sanctionLine = ({ until, by, createdAt, reason }: Sanction): HTMLElement =>
  h(
    'p',
    { class: 'row-more', dir: 'auto' },
    [untilText(until), `by ${by.name}, ${dateText(createdAt)}`, ...(reason === null ? [] : [reason])].join(' · '),
  );

/** A person's record as moderators see it, with the actions that they may take. */
export function personPart(host: DeskHost, id: string): HTMLElement {
  const place = h('div', {}, h('p', { class: 'none', role: 'status' }, 'Loading…'));
  const note = h('p', { class: 'form-note', role: 'status', 'aria-live': 'polite' });
  let said = '';

  const load = async () => {
    try {
      show(await call<Known>('GET', userPath(host, 'users', id)));
    } catch (error) {
      place.replaceChildren(
        h(
          'p',
          { class: 'none', role: 'alert' },
          `${problemOf(error).message} `,
          h('button', { type: 'button', class: 'linklike', onclick: () => void load() }, 'Try again'),
        ),
      );
    }
  };
  const done = async (text: string) => {
    said = text;
    await load();
    host.decided();
  };

  function show({ ban, timeout, warnings, acts }: Known): void {
    const name =
      ban?.user.name ?? timeout?.user.name ?? acts.find(({ userName }) => userName)?.userName ?? host.names.get(id) ?? 'Somebody';
    host.names.set(id, name);
    const stands = [
      ...(ban ? [h('div', {}, h('p', { class: 'row-title' }, 'Banned', ...banTags(ban)), sanctionLine(ban))] : []),
      ...(timeout ? [h('div', {}, h('p', { class: 'row-title' }, 'Timeout'), sanctionLine(timeout))] : []),
      ...(!ban && !timeout ? [h('p', { class: 'state' }, 'May read and write here.')] : []),
    ];
    const length = choice({ name: 'seconds', label: 'How long?', value: '600', choices: TIMEOUTS });
    const reason = field({
      name: 'reason',
      label: 'Reason',
      maxlength: 300,
      required: false,
      hint: 'Shown to this person and to moderators.',
    });
    const warning = field({ name: 'text', label: 'Warning', maxlength: 500, hint: 'Shown only to this person, until they confirm it.' });
    setText(note, said);
    said = '';
    place.replaceChildren(
      section(
        name,
        id,
        ...stands,
        note,
        h(
          'div',
          { class: 'form-end' },
          timeout
            ? actionButton(
                'End the timeout',
                async () => {
                  await call('DELETE', userPath(host, 'timeouts', id));
                  await done('The timeout is over.');
                },
                { note },
              )
            : null,
          ban
            ? actionButton(
                'Lift the ban',
                async () => {
                  await call('DELETE', userPath(host, 'bans', id));
                  await done('The ban is lifted.');
                },
                { note },
              )
            : actionButton(
                'Ban…',
                async () => {
                  const chosen = await askBan(name);
                  if (!chosen) return;
                  const { purge, ...more } = chosen.more;
                  await call('PUT', userPath(host, 'bans', id), {
                    ...more,
                    shadow: chosen.action === 'shadowBan',
                    deleteMessages: purge === true,
                  });
                  await done(`${name} is banned.`);
                },
                { kind: 'danger', note },
              ),
          actionButton(
            'Delete all messages…',
            async () => {
              const text = 'All messages of this person in this chat are deleted for everybody.';
              if (!(await confirmed({ title: `Delete all messages of ${name}?`, text, action: 'Delete' }))) return;
              await call('DELETE', `${userPath(host, 'users', id)}/messages`);
              await done('All messages are deleted.');
            },
            { note },
          ),
        ),
      ),
      section(
        'Give a timeout',
        null,
        form({
          fields: [length, reason],
          submit: 'Give the timeout',
          kind: 'plain',
          label: 'Give a timeout',
          send: async (values) => {
            const text = values.reason!.trim();
            await call('PUT', userPath(host, 'timeouts', id), { seconds: Number(values.seconds), ...(text !== '' && { reason: text }) });
            await done(`${name} has a timeout.`);
          },
          fieldOf: () => 'reason',
        }),
      ),
      section(
        'Warn',
        null,
        form({
          fields: [warning],
          submit: 'Warn',
          kind: 'plain',
          label: 'Warn',
          send: async (values) => {
            await call('POST', `${userPath(host, 'users', id)}/warnings`, { text: values.text!.trim() });
            await done(`${name} is warned.`);
          },
        }),
        h(
          'ul',
          { class: 'rows' },
          ...warnings.map(({ text, by, at, seenAt }) =>
            h(
              'li',
              {},
              h(
                'div',
                { class: 'row-text' },
                h('p', { dir: 'auto' }, text),
                h(
                  'p',
                  { class: 'row-more' },
                  `by ${by}, ${dateText(at)} · ${seenAt === null ? 'not seen yet' : `seen ${dateText(seenAt)}`}`,
                ),
              ),
            ),
          ),
        ),
      ),
      section(
        'What was done',
        'The newest comes first.',
        acts.length === 0
          ? h('p', { class: 'none' }, 'No moderator has acted on this person here.')
          : h(
              'ul',
              { class: 'rows' },
              ...acts.map((act) =>
                h(
                  'li',
                  {},
                  h('div', { class: 'row-text' }, h('p', {}, ...actionText(act, host)), h('p', { class: 'row-more' }, dateText(act.at))),
                ),
              ),
            ),
      ),
    );
  }
  void load();
  return h('div', {}, h('p', { class: 'crumb' }, h('a', { href: '#people' }, 'People')), place);
}
