import { askLine } from '../chat/ban';
import { type ModerationQueueJson, watchWaiting } from '../chat/waiting';
import { actionButton } from '../ui/actions';
import { h } from '../ui/dom';
import { problemOf } from '../ui/forms';
import { dateText, section } from '../ui/page';
import { call } from '../ui/session';
import { type DeskHost, pagedList, personLink } from './list';

interface Held {
  readonly mid: string;
  readonly user: { readonly id: string; readonly name: string };
  readonly body: { readonly text: string };
  readonly why: string;
  readonly at: string;
}

const WHY_TEXTS: Readonly<Record<string, string>> = { loud: 'loud', link: 'a link', spam: 'looks like spam', profanity: 'rude words' };

/**
 * Held messages, oldest first. The keys A and D approve and deny the one that has the focus; the
 * focus then moves to the next.
 */
export function heldPart(host: DeskHost): HTMLElement {
  const queue = pagedList<Held>({
    path: (cursor) => `${host.room}/held?limit=50${cursor === undefined ? '' : `&cursor=${encodeURIComponent(cursor)}`}`,
    row: heldRow,
    empty: 'Nothing waits. Messages that automatic moderation is unsure about appear here by themselves.',
    label: 'Messages that wait',
  });
  const { list } = queue;
  const rows = () => [...list.querySelectorAll<HTMLElement>(':scope > li')];
  /** Messages decided here: an answer that was requested earlier must not bring them back. */
  const decided = new Set<string>();
  const acts = new WeakMap<HTMLElement, Record<'approve' | 'deny' | 'reason', () => void>>();

  function heldRow({ mid, user, body, why, at }: Held): HTMLElement {
    const whose = `the message of ${user.name}`;
    const decide = async (way: 'approve' | 'deny', reason?: string) => {
      if (row.dataset.deciding) return;
      row.dataset.deciding = 'yes';
      try {
        await call('POST', `${host.room}/held/${mid}/${way}`, way === 'approve' ? undefined : reason === undefined ? {} : { reason });
        queue.say(way === 'approve' ? `Approved: ${whose}. It is in the chat now.` : `Denied: ${whose}.`);
        decided.add(mid);
        leave();
      } catch (error) {
        const problem = problemOf(error);
        // Another moderator was first, or the message does not exist any more.
        if (problem.status === 409 || problem.status === 404) {
          queue.say('Another moderator has already decided.');
          decided.add(mid);
          leave();
        } else queue.say(problem.message);
      } finally {
        delete row.dataset.deciding;
        host.decided();
      }
    };
    const withReason = () =>
      void askLine({
        title: 'Deny with a reason',
        label: 'Reason',
        hint: 'Shown to the person who wrote it.',
        action: 'Deny',
        required: false,
      }).then((reason) => (reason === undefined ? undefined : decide('deny', reason === '' ? undefined : reason)));
    const leave = () => {
      const all = rows();
      const next = all[all.indexOf(row) + 1] ?? all[all.indexOf(row) - 1];
      const hadFocus = row.contains(document.activeElement) || document.activeElement === document.body;
      row.remove();
      if (hadFocus) focusRow(next);
    };
    const row = h(
      'li',
      { class: 'held-row', tabindex: -1, 'data-mid': mid, 'aria-label': `${user.name}: ${body.text}` },
      h(
        'div',
        { class: 'row-text' },
        h(
          'p',
          { class: 'row-more' },
          personLink(host, user.id, user.name),
          ' · ',
          h('time', { datetime: at }, dateText(at)),
          h(
            'span',
            { class: 'tag wrong' },
            why
              .split(', ')
              .map((one) => WHY_TEXTS[one] ?? one)
              .join(', '),
          ),
        ),
        h('p', { class: 'held-text', dir: 'auto' }, body.text),
      ),
      h(
        'div',
        { class: 'row-acts' },
        actionButton('Approve', () => decide('approve'), { kind: 'primary', name: `Approve ${whose}` }),
        actionButton('Deny', () => decide('deny'), { name: `Deny ${whose}` }),
        actionButton('Deny…', async () => withReason(), { name: `Deny ${whose} with a reason` }),
      ),
    );
    acts.set(row, { approve: () => void decide('approve'), deny: () => void decide('deny'), reason: withReason });
    return row;
  }

  function focusRow(row: HTMLElement | undefined): void {
    for (const one of rows()) one.tabIndex = one === row ? 0 : -1;
    (row ?? list.closest('section')?.querySelector<HTMLElement>('h2'))?.focus();
  }

  list.addEventListener('focusin', (event) => {
    const row = (event.target as Element).closest<HTMLElement>('.held-row');
    for (const one of rows()) one.tabIndex = one === row ? 0 : -1;
  });
  list.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const row = (event.target as Element).closest<HTMLElement>('.held-row');
    const all = rows();
    const at = row ? all.indexOf(row) : -1;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      if (all[to]) focusRow(all[to]);
      return;
    }
    const way = ({ a: 'approve', d: 'deny', r: 'reason' } as const)[event.key.toLowerCase() as 'a' | 'd' | 'r'];
    if (!way || !row) return;
    event.preventDefault();
    acts.get(row)?.[way]();
  });

  /**
   * Adds new messages at the end and removes those that others have decided; nothing else moves.
   */
  const refresh = async ({ held }: ModerationQueueJson) => {
    if (!queue.element.isConnected) return;
    const limit = Math.min(200, Math.max(50, list.childElementCount + 20));
    const page = await call<{ items: Held[]; next: string | null }>('GET', `${host.room}/held?limit=${limit}`).catch(() => undefined);
    if (!page) return;
    const there = new Map(page.items.map((item) => [item.mid, item]));
    const isWhole = page.next === null;
    for (const mid of decided) there.delete(mid);
    for (const row of rows()) {
      const isThere = there.delete(row.dataset.mid!);
      if (!isThere && isWhole && !row.dataset.deciding) row.remove();
    }
    if (isWhole) list.append(...[...there.values()].map(heldRow));
    const first = rows()[0];
    if (first && !rows().some(({ tabIndex }) => tabIndex === 0)) first.tabIndex = 0;
    document.title = `${held > 0 ? `(${held}) ` : ''}${document.title.replace(/^\(\d+\) /, '')}`;
  };
  watchWaiting(host.slug, (waiting) => void refresh(waiting));

  return section(
    'Waiting',
    'Messages that automatic moderation is unsure about. Nobody sees them until a moderator approves them.',
    h(
      'p',
      { class: 'none keys-line' },
      h('kbd', {}, '↑'),
      h('kbd', {}, '↓'),
      ' to a message, ',
      h('kbd', {}, 'A'),
      ' approve, ',
      h('kbd', {}, 'D'),
      ' deny, ',
      h('kbd', {}, 'R'),
      ' deny with a reason.',
    ),
    queue.element,
  );
}
