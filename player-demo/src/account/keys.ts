import type { Scope } from '../../../src/access/roles';
import { actionButton, copyRow } from '../ui/actions';
import { confirmed } from '../ui/dialogs';
import { h } from '../ui/dom';
import { choice, field, form } from '../ui/forms';
import { callFresh } from '../ui/fresh-sign-in';
import { dateText, section } from '../ui/page';
import { call } from '../ui/session';

interface ApiKeyJson {
  readonly id: string;
  readonly name: string;
  readonly hint: string;
  readonly scopes: readonly Scope[];
  readonly expiresAt: string | null;
  readonly lastUsedAt: string | null;
}

const DAY_MS = 86_400_000;
const LIVES: readonly (readonly [string, string])[] = [
  ['30', '30 days'],
  ['90', '90 days'],
  ['365', 'A year'],
  ['', 'It does not expire'],
];

/** A scope's text for people says what a program may do with it. */
const SCOPE_TEXTS: Readonly<Record<Scope, string>> = {
  'channels:read': 'See your private channels, their members and recordings',
  'channels:write': 'Make, change and delete channels, members, recordings and stream keys',
  broadcast: 'End a broadcast and set what is playing',
  links: 'Make playback links for private channels and recordings',
  webhooks: 'Manage webhooks',
  moderate: 'Moderate chat',
  admin: 'Manage accounts, the audit log and the keys of the service',
};

/** API keys: lists and deletes them, makes new ones and shows each once. */
export function apiKeysPart(keys: readonly ApiKeyJson[]): HTMLElement {
  const list = h('ul', { class: 'rows' });
  const none = h('p', { class: 'none' }, 'No API key yet. Make one for a script or site of your own; it can do only what you choose here.');
  const update = (all: readonly ApiKeyJson[]) => {
    list.replaceChildren(...all.map(row));
    none.hidden = all.length > 0;
    list.hidden = all.length === 0;
  };
  const refetch = async () => update((await call<{ items: ApiKeyJson[] }>('GET', '/me/api-keys')).items);
  const row = (key: ApiKeyJson) => {
    const until = key.expiresAt === null ? 'does not expire' : `until ${dateText(key.expiresAt)}`;
    return h(
      'li',
      {},
      h(
        'div',
        { class: 'row-text' },
        h('p', { class: 'row-title' }, key.name, ' ', h('code', {}, `${key.hint}…`)),
        h('p', { class: 'row-more' }, `${key.scopes.join(', ')} · ${until} · last used ${dateText(key.lastUsedAt)}`),
      ),
      actionButton(
        'Delete',
        async () => {
          const text = 'Programs that use it are refused within five seconds.';
          if (!(await confirmed({ title: `Delete “${key.name}”?`, text, action: 'Delete' }))) return;
          await call('DELETE', `/me/api-keys/${key.id}`);
          await refetch();
        },
        { name: `Delete the key ${key.name}` },
      ),
    );
  };
  update(keys);

  const made = h('div', { class: 'made', role: 'status', 'aria-live': 'polite' });
  const name = field({ name: 'name', label: 'What is it for?', maxlength: 100, spellcheck: true });
  const life = choice({ name: 'life', label: 'How long does it work?', value: '90', choices: LIVES });
  const boxes = Object.entries(SCOPE_TEXTS).map(([scope, text]) => ({
    scope,
    input: h('input', { type: 'checkbox', name: 'scope', value: scope }),
    text,
  }));
  const scopes = h(
    'fieldset',
    { class: 'checks' },
    h('legend', {}, 'What may it be used for?'),
    ...boxes.map(({ scope, input, text }) => h('label', { class: 'check' }, input, h('span', {}, h('code', {}, scope), ` ${text}`))),
  );
  const element = form({
    fields: [name, life],
    more: [scopes],
    submit: 'Make the key',
    kind: 'plain',
    label: 'A new API key',
    send: async (values) => {
      const chosen = boxes.filter(({ input }) => input.checked).map(({ scope }) => scope);
      if (chosen.length === 0) return 'Choose at least one use.';
      const expiresAt = values.life === '' ? undefined : new Date(Date.now() + Number(values.life) * DAY_MS).toISOString();
      const answer = await callFresh<{ apiKey: ApiKeyJson; secret: string }>('POST', '/me/api-keys', {
        name: values.name!.trim(),
        scopes: chosen,
        ...(expiresAt === undefined ? {} : { expiresAt }),
      });
      made.replaceChildren(
        h('p', {}, `“${answer.apiKey.name}” is made. Copy it now: it is shown only once.`),
        h('ul', { class: 'elsewhere' }, copyRow('API key', answer.secret)),
      );
      element.reset();
      await refetch();
    },
  });
  const wrapped = h('details', { class: 'more-form' }, h('summary', {}, 'Make an API key'), element);
  return section('API keys', 'For programs that act in your name.', none, list, made, wrapped);
}
