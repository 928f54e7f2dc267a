import './audit.css';
import { actionButton } from '../ui/actions';
import { h, setText } from '../ui/dom';
import { type Field, field, form } from '../ui/forms';
import { dateText, download, pageHead, section, show } from '../ui/page';
import { call, callRaw } from '../ui/session';

interface AuditRecordJson {
  readonly id: number;
  readonly at: string;
  readonly actor: string;
  readonly actorName: string | null;
  readonly address: string | null;
  readonly action: string;
  readonly target: string | null;
  readonly channel: string | null;
  readonly requestId: string | null;
  readonly details: Readonly<Record<string, unknown>>;
}

interface AuditPageJson {
  readonly items: AuditRecordJson[];
  readonly next: string | null;
}

const DAY_MS = 86_400_000;

/** The audit log: newest first, with filters and an export. */
export async function mountAudit(main: HTMLElement, nav: HTMLElement): Promise<void> {
  const path = (filter: string, cursor?: string) => `/audit?limit=50${filter}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ''}`;
  const first = await call<AuditPageJson>('GET', path(''));

  const list = h('ol', { class: 'rows audit' });
  const none = h('p', { class: 'none', role: 'status' });
  const more = h('div', { class: 'form-end' });
  let filter = '';
  const add = (page: AuditPageJson) => {
    list.append(...page.items.map((entry) => entryRow(entry, narrow)));
    setText(none, list.childElementCount > 0 ? '' : 'Nothing like that has happened.');
    more.replaceChildren();
    const { next } = page;
    if (next !== null) more.append(actionButton('Show more', async () => add(await call<AuditPageJson>('GET', path(filter, next)))));
  };
  const text = (name: string, label: string, hint: string): Field =>
    field({ name, label, required: false, maxlength: 200, spellcheck: false, hint });
  const fields = [
    text('action', 'What was done', 'createChannel, banAccount, signInFailed …'),
    text('actor', 'By whom', 'account:…, api-key:…, admin-token'),
    text('target', 'To what', 'account:…, channel:…'),
    text('channel', 'Channel', ''),
    field({ name: 'from', label: 'From', type: 'date', required: false }),
    field({ name: 'to', label: 'To', type: 'date', required: false }),
  ];
  const searching = form({
    fields,
    submit: 'Filter',
    kind: 'plain',
    label: 'Filter',
    beside: [
      actionButton('Download', async () => {
        const response = await callRaw('GET', `/audit/export?${filter.slice(1)}`);
        download('veza-audit.jsonl', await response.blob());
      }),
    ],
    send: async (values) => {
      filter = filterOf(values);
      const page = await call<AuditPageJson>('GET', path(filter));
      list.replaceChildren();
      add(page);
    },
  });
  searching.classList.add('grid');
  const filters = h('details', { class: 'more-form' }, h('summary', {}, 'Filter and download'), searching);
  /** A click on a value in a row filters by it. */
  const narrow = (name: string, value: string) => {
    filters.open = true;
    for (const one of fields) one.input.value = one.name === name ? value : '';
    searching.requestSubmit();
  };
  add(first);
  show(
    main,
    pageHead('Administration', nav),
    section(
      'Audit log',
      'The newest entries come first. Entries cannot be changed. Click a name or an action to filter by it.',
      filters,
      list,
      none,
      more,
    ),
  );
}

function filterOf(values: Readonly<Record<string, string>>): string {
  const given = Object.entries(values).filter(([, value]) => value.trim() !== '');
  return given
    .map(([name, value]) => {
      // Days are in the reader's time zone; the last day is included.
      const atMs = name === 'from' || name === 'to' ? new Date(`${value}T00:00`).getTime() + (name === 'to' ? DAY_MS : 0) : 0;
      return `&${name}=${encodeURIComponent(atMs > 0 ? new Date(atMs).toISOString() : value.trim())}`;
    })
    .join('');
}

function entryRow(entry: AuditRecordJson, narrow: (name: string, value: string) => void): HTMLElement {
  const by = (name: string, value: string, shown = value) =>
    h('button', { type: 'button', class: 'linklike', title: `Only ${value}`, onclick: () => narrow(name, value) }, shown);
  const details = Object.keys(entry.details).length > 0 ? JSON.stringify(entry.details) : '';
  return h(
    'li',
    {},
    h('time', { datetime: entry.at }, dateText(entry.at)),
    h(
      'div',
      { class: 'row-text' },
      h('p', { class: 'row-title' }, by('action', entry.action), ' by ', by('actor', entry.actor, entry.actorName ?? entry.actor)),
      h(
        'p',
        { class: 'row-more' },
        ...(entry.target === null ? [] : [by('target', entry.target), ' ']),
        [entry.address === null ? '' : `from ${entry.address}`, details].filter(Boolean).join(' · '),
      ),
    ),
  );
}
