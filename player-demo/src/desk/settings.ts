import { actionButton } from '../ui/actions';
import { h } from '../ui/dom';
import { area, choice, field, form } from '../ui/forms';
import { download, section } from '../ui/page';
import { call, callRaw } from '../ui/session';
import type { DeskHost } from './list';

interface Settings {
  readonly slowS: number;
  readonly followersMin: number;
  readonly unique: boolean;
  readonly emoteOnly: boolean;
  readonly shield: boolean;
  readonly guests: string;
  readonly perS: number;
  readonly burst: number;
  readonly roomPerS: number;
  readonly moderated: boolean;
  readonly links: string;
  readonly allowedHosts: readonly string[];
  readonly profanity: string;
  readonly spam: string;
  readonly remote: string;
  readonly remoteFails: string;
}

type Choices = readonly (readonly [string, string])[];
const DO: Choices = [
  ['allow', 'Let them pass'],
  ['hold', 'Hold them for a moderator'],
  ['refuse', 'Refuse them'],
];
const MODES = [
  ['unique', 'No text twice within an hour.'],
  ['emoteOnly', 'Emoji only.'],
  ['shield', 'Shield, against a raid: slow mode, only accounts older than a day, no text twice, and doubtful messages wait.'],
] as const;

const whole = (label: string, least: number, most: number) => (value: string) =>
  /^\d+$/.test(value.trim()) && Number(value) >= least && Number(value) <= most
    ? undefined
    : `${label}: a whole number from ${least} to ${most}.`;

/** The room's settings. Moderators set the modes; hosts and the owner set the rest. */
export async function settingsPart(host: DeskHost): Promise<HTMLElement> {
  const { settings } = await call<{ settings: Settings }>('GET', host.room);
  const modes = await call<Pick<Settings, 'slowS' | 'followersMin' | 'unique' | 'emoteOnly' | 'shield'>>('POST', `${host.room}/modes`, {});
  const slow = field({
    name: 'slowS',
    label: 'Slow mode: seconds between two messages of one person',
    value: String(modes.slowS),
    hint: '0: off. At most 3,600.',
    inputmode: 'numeric',
    check: whole('Slow mode', 0, 3600),
  });
  const age = field({
    name: 'followersMin',
    label: 'Least age of an account, in minutes',
    value: String(modes.followersMin),
    hint: '0: everybody may write. A day has 1,440.',
    inputmode: 'numeric',
    check: whole('Minutes', 0, 525_600),
  });
  const boxes = MODES.map(([name, text]) => {
    const input = h('input', { type: 'checkbox', name, checked: modes[name] });
    return { name, input, label: h('label', { class: 'check' }, input, h('span', {}, text)) };
  });
  const modesForm = form({
    fields: [slow, age],
    more: [h('div', { class: 'checks' }, ...boxes.map(({ label }) => label))],
    submit: 'Save the modes',
    kind: 'plain',
    label: 'Modes',
    send: async (values) => {
      const body = {
        slowS: Number(values.slowS),
        followersMin: Number(values.followersMin),
        ...Object.fromEntries(boxes.map(({ name, input }) => [name, input.checked])),
      };
      await call('POST', `${host.room}/modes`, body);
      return 'Saved. It holds at once.';
    },
  });
  const parts: (Node | null)[] = [section('Modes', 'For everybody but moderators. A change is in force within a second.', modesForm)];
  if (host.mayConfigure) parts.push(modes.shield ? shielded() : rulesPart(host, settings), exportPart(host));
  return h('div', {}, ...parts.filter((part) => part !== null));
}

const shielded = () =>
  section(
    'Rules',
    null,
    h('p', { class: 'state' }, 'The shield is on and is stricter than these settings. To change them, turn it off and reload this page.'),
  );

function rulesPart(host: DeskHost, settings: Settings): HTMLElement {
  const before: Record<string, unknown> = { ...settings };
  const pick = (name: keyof Settings, label: string, choices: Choices, hint?: string) =>
    choice({ name, label, value: String(settings[name]), choices, ...(hint === undefined ? {} : { hint }) });
  const number = (name: keyof Settings, label: string, most: number) =>
    field({ name, label, value: String(settings[name]), inputmode: 'numeric', check: whole(label, 1, most), hint: `1 to ${most}.` });
  const moderated = h('input', { type: 'checkbox', name: 'moderated', checked: settings.moderated });
  const fields = [
    pick('guests', 'People who are not signed in', [
      ['read', 'May read the chat'],
      ['none', 'May not read the chat'],
    ]),
    pick('profanity', 'Rude words', [
      ['allow', 'Let them pass'],
      ['mask', 'Replace them with *'],
      ['hold', 'Hold them for a moderator'],
      ['refuse', 'Refuse them'],
    ]),
    pick('links', 'Links', DO),
    area({
      name: 'allowedHosts',
      label: 'Where links may always lead',
      value: settings.allowedHosts.join('\n'),
      maxlength: 26_000,
      required: false,
      hint: 'One host per line, such as example.org.',
    }),
    pick('spam', 'Messages that look like spam', DO),
    pick('remote', 'Remote classifier, if the service has one', [
      ['off', 'Is not asked'],
      ['hold', 'Is asked first; what it flags is held'],
      ['retract', 'Is asked after publishing; what it flags is taken back'],
    ]),
    pick('remoteFails', 'When it does not answer', [
      ['open', 'The message passes'],
      ['closed', 'The message is held, or taken back'],
    ]),
    number('perS', 'Messages per second of one person', 100),
    number('burst', 'Messages that one person may send at once', 100),
    number('roomPerS', 'Messages per second of all people together', 1000),
  ];
  return section(
    'Rules',
    'For hosts and the owner of the channel.',
    form({
      fields,
      more: [
        h(
          'label',
          { class: 'check' },
          moderated,
          h('span', {}, 'Automatic moderation. Without it only the length of a message is checked.'),
        ),
      ],
      submit: 'Save the rules',
      kind: 'plain',
      label: 'Rules',
      send: async (values) => {
        const now: Record<string, unknown> = {
          ...values,
          perS: Number(values.perS),
          burst: Number(values.burst),
          roomPerS: Number(values.roomPerS),
          allowedHosts: values.allowedHosts!.split(/[\s,]+/).filter((one) => one !== ''),
          moderated: moderated.checked,
        };
        const changes = Object.fromEntries(
          Object.entries(now).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(before[name])),
        );
        if (Object.keys(changes).length === 0) return 'Nothing has changed.';
        Object.assign(before, await call<Settings>('PATCH', host.room, changes));
        return 'Saved. It holds at once.';
      },
    }),
  );
}

function exportPart(host: DeskHost): HTMLElement {
  const note = h('p', { class: 'form-note', role: 'status', 'aria-live': 'polite' });
  return section(
    'Export',
    'All entries of the room in order, one per line (JSON Lines). The export is recorded in the audit log.',
    actionButton(
      'Download',
      async () => {
        const response = await callRaw('GET', `${host.room}/export`);
        download(`${host.slug}-chat.jsonl`, await response.blob());
      },
      { note },
    ),
    note,
  );
}
