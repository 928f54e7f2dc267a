import { h } from '../ui/dom';

export type VisibilityJson = 'public' | 'unlisted' | 'private';

const TEXTS: Readonly<Record<VisibilityJson, string>> = {
  public: 'Public: everybody can find and hear it.',
  unlisted: 'Unlisted: not in the list; everybody with the address can hear it.',
  private: 'Private: only members and people with a playback link can hear it.',
};

let made = 0;

export function visibilityChoice(now: VisibilityJson): { element: HTMLElement; value(): VisibilityJson } {
  const name = `visibility-${++made}`;
  const inputs = (Object.keys(TEXTS) as VisibilityJson[]).map((value) =>
    h('input', { type: 'radio', name, value, checked: value === now }),
  );
  const labels = inputs.map((input) => h('label', { class: 'check' }, input, h('span', {}, TEXTS[input.value as VisibilityJson])));
  return {
    element: h('fieldset', { class: 'checks' }, h('legend', {}, 'Who can hear it?'), ...labels),
    value: () => inputs.find(({ checked }) => checked)!.value as VisibilityJson,
  };
}
