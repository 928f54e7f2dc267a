import { h } from '../ui/dom';

export type Visibility = 'public' | 'unlisted' | 'private';

const TEXTS: Readonly<Record<Visibility, string>> = {
  public: 'Public: everybody finds and hears it.',
  unlisted: 'Unlisted: in no list; who has the address hears it.',
  private: 'Private: members alone, and whoever has a playback link from you.',
};

let made = 0;

export function visibilityChoice(now: Visibility): { element: HTMLElement; value(): Visibility } {
  const name = `visibility-${++made}`;
  const inputs = (Object.keys(TEXTS) as Visibility[]).map((value) => h('input', { type: 'radio', name, value, checked: value === now }));
  const labels = inputs.map((input) => h('label', { class: 'check' }, input, h('span', {}, TEXTS[input.value as Visibility])));
  return {
    element: h('fieldset', { class: 'checks' }, h('legend', {}, 'Who hears it?'), ...labels),
    value: () => inputs.find(({ checked }) => checked)!.value as Visibility,
  };
}
