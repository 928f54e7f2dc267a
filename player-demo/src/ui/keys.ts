import { h } from './dom';

export interface KeyActions {
  toggle(): void;
  seekBy(seconds: number): void;
  volumeBy(step: number): void;
  live(): void;
  mute(): void;
}

const HELP: readonly (readonly [string, string])[] = [
  ['Space', 'Play or pause'],
  ['←', '10 seconds back'],
  ['→', '10 seconds forward'],
  ['↑ ↓', 'Volume'],
  ['L', 'Back to live'],
  ['M', 'Mute'],
  ['?', 'This list'],
];

/** Keyboard control of the page. A focused control keeps the keys that it uses itself. */
export function bindKeys(actions: KeyActions): { openHelp(): void; unbind(): void } {
  const rows = HELP.map(([key, what]) => h('div', {}, h('dt', {}, ...key.split(' ').map((one) => h('kbd', {}, one))), h('dd', {}, what)));
  const dialog = h(
    'dialog',
    { class: 'keys', 'aria-label': 'Keyboard' },
    h('h2', {}, 'Keyboard'),
    h('dl', {}, ...rows),
    h('form', { method: 'dialog' }, h('button', { class: 'quiet' }, 'Close')),
  );
  document.body.append(dialog);

  const run: Record<string, () => void> = {
    ' ': actions.toggle,
    k: actions.toggle,
    ArrowLeft: () => actions.seekBy(-10),
    ArrowRight: () => actions.seekBy(10),
    ArrowUp: () => actions.volumeBy(0.05),
    ArrowDown: () => actions.volumeBy(-0.05),
    l: actions.live,
    m: actions.mute,
    '?': () => dialog.showModal(),
  };
  const onKey = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const action = run[key];
    const target = event.target instanceof Element ? event.target : null;
    if (!action || target?.closest('input[type="text"], textarea, [contenteditable]')) return;
    if (target?.closest('select')) return;
    if (key === ' ' && target?.closest('button, a, summary')) return;
    if (key.startsWith('Arrow') && target?.closest('input[type="range"]')) return;
    event.preventDefault();
    action();
  };
  document.addEventListener('keydown', onKey);
  return {
    openHelp: () => dialog.showModal(),
    unbind() {
      document.removeEventListener('keydown', onKey);
      dialog.remove();
    },
  };
}
