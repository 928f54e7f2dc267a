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
  ['unique', 'Nothing twice within an hour.'],
  ['emoteOnly', 'Emoji only.'],
  ['shield', 'Shield, against a raid: slow mode, accounts of at least a day, nothing twice, and what is in doubt waits.'],
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
    label: 'Only accounts older than so many minutes',
    value: String(modes.followersMin),
    hint: '0: everybody. 1,440 are a day.',
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
  const parts: (Node | null)[] = [section('Modes', 'For everybody but those who moderate. They hold within a second.', modesForm)];
  if (host.mayConfigure) parts.push(modes.shield ? shielded() : rulesPart(host, settings), exportPart(host));
  return h('div', {}, ...parts.filter((part) => part !== null));
}

const shielded = () =>
  section(
    'Rules',
    null,
    h(
      'p',
      { class: 'state' },
      'The shield is on and stricter than what is set here. Turn it off, and load this page again, to change the rest.',
    ),
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
      ['read', 'Read along'],
      ['none', 'See nothing of the chat'],
    ]),
    pick('profanity', 'Rude words', [
      ['allow', 'Let them pass'],
      ['mask', 'Replace them by *'],
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
      hint: 'A host a line, such as example.org.',
    }),
    pick('spam', 'What looks like spam', DO),
    pick('remote', 'A remote judge, where the service has one', [
      ['off', 'Is not asked'],
      ['hold', 'Is asked first; what it flags is held'],
      ['retract', 'Is asked once others see it; what it flags is taken back'],
    ]),
    pick('remoteFails', 'When it does not answer', [
      ['open', 'Nothing is against the message'],
      ['closed', 'The message is held, or taken back'],
    ]),
    number('perS', 'Messages a second of one person', 100),
    number('burst', 'At once', 100),
    number('roomPerS', 'Messages a second of all together', 1000),
  ];
  return section(
    'Rules',
    'For who runs the channel.',
    form({
      fields,
      more: [
        h(
          'label',
          { class: 'check' },
          moderated,
          h('span', {}, 'Automatic moderation. Without it only the length of a message is looked at.'),
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
    'Everything that is in the room, in order, an entry a line (JSON Lines). It is in the audit log that you took it.',
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
