import './modes.css';
import { h } from '../ui/dom';

const SLOW: readonly (readonly [number, string])[] = [
  [0, 'Off'],
  [3, '3 s'],
  [10, '10 s'],
  [30, '30 s'],
  [60, '1 min'],
  [300, '5 min'],
];
const FOLLOWERS: readonly (readonly [number, string])[] = [
  [0, 'Everybody'],
  [10, '10 minutes'],
  [1_440, 'A day'],
  [10_080, 'A week'],
];
const SWITCHES: readonly (readonly [string, string])[] = [
  ['unique', 'Nothing twice'],
  ['emoteOnly', 'Emoji only'],
  ['shield', 'Shield, against a raid'],
];

/** The modes of the room, for moderators, who may set them. */
export function roomModes(moderate: (action: string, more: Readonly<Record<string, unknown>>) => void): {
  readonly element: HTMLElement;
  show(settings: Readonly<Record<string, unknown>>): void;
} {
  const pick = (label: string, choices: readonly (readonly [number, string])[], set: (value: number) => void) => {
    const select = h(
      'select',
      { onchange: () => set(Number(select.value)) },
      ...choices.map(([value, text]) => h('option', { value }, text)),
    );
    return { select, label: h('label', {}, h('span', {}, label), select) };
  };
  const slow = pick('Slow mode', SLOW, (seconds) => moderate('slow', { seconds }));
  const followers = pick('Accounts older than', FOLLOWERS, (minutes) => moderate('followers', { minutes }));
  const boxes = SWITCHES.map(([action, label]) => {
    const input = h('input', { type: 'checkbox', onchange: () => moderate(action, { on: input.checked }) });
    return { action, input, label: h('label', {}, h('span', {}, label), input) };
  });
  const element = h(
    'details',
    { class: 'chat-modes' },
    h('summary', {}, 'Modes'),
    h('div', {}, slow.label, followers.label, ...boxes.map(({ label }) => label)),
  );
  document.addEventListener('pointerdown', (event) => {
    if (element.open && event.target instanceof Node && !element.contains(event.target)) element.open = false;
  });
  element.addEventListener('keydown', (event) => {
    event.stopPropagation();
    if (event.key !== 'Escape' || !element.open) return;
    element.open = false;
    element.querySelector('summary')?.focus();
  });
  return {
    element,
    show(settings) {
      choose(slow.select, settings.slowS);
      choose(followers.select, settings.followersMin);
      for (const { action, input } of boxes) input.checked = settings[action] === true;
    },
  };
}

/** Selects a value; one that the list does not offer is added. */
function choose(select: HTMLSelectElement, value: unknown): void {
  const text = String(typeof value === 'number' ? value : 0);
  if (![...select.options].some((option) => option.value === text)) select.append(h('option', { value: text }, text));
  if (document.activeElement !== select) select.value = text;
}
