import { actionButton } from '../ui/actions';
import { h, setText } from '../ui/dom';
import { field, form, problemOf } from '../ui/forms';
import { section } from '../ui/page';
import { call } from '../ui/session';
import type { DeskHost } from './list';

interface Terms {
  readonly blocked: readonly string[];
  readonly allowed: readonly string[];
}
interface Trial {
  readonly verdict: 'allow' | 'mask' | 'hold' | 'refuse';
  readonly text: string | null;
  readonly reasons: readonly { readonly rule: string; readonly category: string }[];
}

const VERDICTS: Readonly<Record<Trial['verdict'], string>> = {
  allow: 'It would be published.',
  mask: 'It would be published as',
  hold: 'It would wait for a moderator',
  refuse: 'It would be refused',
};

/** Blocked terms, allowed terms, and a text to try them on. */
export function termsPart(host: DeskHost): HTMLElement {
  const path = `${host.room}/terms`;
  const note = h('p', { class: 'form-note', role: 'status', 'aria-live': 'polite' });
  const list = (label: string) => h('ul', { class: 'terms', 'aria-label': label });
  const lists = { blocked: list('Blocked'), allowed: list('Allowed') };
  const states = { blocked: h('p', { class: 'none' }, 'Loading…'), allowed: h('p', { class: 'none' }, '') };
  const EMPTY = { blocked: 'No words are blocked here. The built-in list still applies.', allowed: 'None.' };

  const show = (terms: Terms) => {
    for (const which of ['blocked', 'allowed'] as const) {
      setText(states[which], terms[which].length === 0 ? EMPTY[which] : '');
      lists[which].replaceChildren(
        ...terms[which].map((term) =>
          h(
            'li',
            {},
            h('bdi', {}, term),
            actionButton(
              'Remove',
              async () => {
                await change((now) => ({ ...now, [which]: now[which].filter((one) => one !== term) }));
                setText(note, `Removed: ${term}`);
                lists[which].closest('section')?.querySelector<HTMLElement>('input')?.focus();
              },
              { kind: 'quiet', note, name: `Remove ${term}` },
            ),
          ),
        ),
      );
    }
  };
  /** Starts from the server's current list: another moderator may have changed it. */
  const change = async (to: (now: Terms) => Terms) => {
    const next = to(await call<Terms>('GET', path));
    await call('PUT', path, next);
    show(next);
  };
  const load = async () => {
    try {
      show(await call<Terms>('GET', path));
    } catch (error) {
      states.blocked.replaceChildren(
        `${problemOf(error).message} `,
        h('button', { type: 'button', class: 'linklike', onclick: () => void load() }, 'Try again'),
      );
    }
  };
  void load();

  const adding = (which: 'blocked' | 'allowed', label: string, hint: string) => {
    const term = field({ name: which, label, hint, maxlength: 2000, spellcheck: false });
    const element = form({
      fields: [term],
      submit: 'Add',
      kind: 'plain',
      label: which === 'blocked' ? 'Block' : 'Allow',
      send: async (values) => {
        const given = values[which]!.split(',')
          .map((one) => one.trim())
          .filter((one) => one !== '');
        await change((now) => ({ ...now, [which]: [...new Set([...now[which], ...given])] }));
        element.reset();
        return `Added: ${given.join(', ')}`;
      },
      // A problem with a list belongs to the field whose terms were added.
      fieldOf: () => which,
    });
    element.classList.add('in-line');
    return element;
  };

  const text = field({ name: 'text', label: 'What somebody might write', maxlength: 8192, spellcheck: false });
  const result = h('p', { class: 'trial', role: 'status', 'aria-live': 'polite', dir: 'auto' });
  const trying = form({
    fields: [text],
    submit: 'Try it',
    kind: 'plain',
    label: 'Try a text',
    send: async (values) => {
      const { verdict, text: shown, reasons } = await call<Trial>('POST', `${path}/try`, { text: values.text });
      result.dataset.verdict = verdict;
      const why = reasons
        .map(({ rule, category }) => (rule === 'term' ? 'a blocked word' : rule === category ? rule : `${rule}: ${category}`))
        .join(', ');
      setText(
        result,
        verdict === 'allow'
          ? VERDICTS.allow
          : verdict === 'mask'
            ? `${VERDICTS.mask} “${shown ?? ''}” (${why}).`
            : `${VERDICTS[verdict]}: ${why}.`,
      );
    },
    fieldOf: () => 'text',
  });
  trying.classList.add('in-line');

  return h(
    'div',
    {},
    section(
      'Blocked words',
      'Messages with these words are refused, also in disguise. Whole words are found; * at an end leaves that end open: spoil* finds “spoiler”.',
      adding('blocked', 'A word or phrase to block', 'Separate several with commas. At most 200.'),
      note,
      lists.blocked,
      states.blocked,
    ),
    section(
      'Allowed words',
      'These words are allowed here, even if the built-in list has them.',
      adding('allowed', 'A word or phrase to allow', 'Separate several with commas.'),
      lists.allowed,
      states.allowed,
    ),
    section(
      'Try a text',
      'What automatic moderation would do with it from a viewer, under the current settings. Nobody sees it.',
      trying,
      result,
    ),
  );
}
