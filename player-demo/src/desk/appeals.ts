import { h } from '../ui/dom';
import { area, form, problemOf } from '../ui/forms';
import { dateText, section } from '../ui/page';
import { call } from '../ui/session';
import { type DeskHost, pagedList, personLink } from './list';

interface Appeal {
  readonly id: string;
  readonly user: { readonly id: string; readonly name: string };
  readonly text: string;
  readonly createdAt: string;
  readonly accepted: boolean | null;
  readonly answer: string | null;
  readonly answeredBy: string | null;
}

/** Appeals against bans, open ones first. */
export function appealsPart(host: DeskHost): HTMLElement {
  const list = (isOpen: boolean, empty: string, label: string) =>
    pagedList<Appeal>({
      path: (cursor) =>
        `${host.room}/appeals?open=${isOpen}&limit=20${cursor === undefined ? '' : `&cursor=${encodeURIComponent(cursor)}`}`,
      row: (appeal) => appealRow(appeal),
      empty,
      label,
    });
  const open = list(true, 'No appeal waits for an answer.', 'Appeals without an answer');
  const answered = list(false, 'None yet.', 'Answered appeals');

  function appealRow(appeal: Appeal): HTMLElement {
    const { user } = appeal;
    const about = h(
      'div',
      { class: 'row-text' },
      h(
        'p',
        { class: 'row-more' },
        personLink(host, user.id, user.name),
        ' · ',
        h('time', { datetime: appeal.createdAt }, dateText(appeal.createdAt)),
      ),
      h('p', { class: 'held-text', dir: 'auto' }, appeal.text),
    );
    if (appeal.accepted !== null) {
      about.append(
        h(
          'p',
          { class: 'row-more', dir: 'auto' },
          h('span', { class: 'tag first' }, appeal.accepted ? 'ban lifted' : 'turned down'),
          ` ${appeal.answeredBy ?? ''}: ${appeal.answer ?? ''}`,
        ),
      );
      return h('li', {}, about);
    }
    const row = h('li', { class: 'stacked' }, about);
    const answer = area({ name: 'answer', label: `Answer to ${user.name}`, maxlength: 1000 });
    let accepted = false;
    const accept = h('button', { type: 'submit', class: 'button primary' }, 'Lift the ban');
    const answering = form({
      fields: [answer],
      submit: 'Turn it down',
      kind: 'plain',
      label: `Appeal of ${user.name}`,
      beside: [accept],
      send: async (values) => {
        const isAccepted = accepted;
        try {
          const done = await call<Appeal>('POST', `${host.room}/appeals/${appeal.id}`, {
            accepted: isAccepted,
            answer: values.answer!.trim(),
          });
          answered.list.prepend(appealRow(done));
          open.say(isAccepted ? `The ban of ${user.name} is lifted.` : `The appeal of ${user.name} is turned down.`);
        } catch (error) {
          if (problemOf(error).status !== 409) throw error;
          open.say('Another moderator has already answered.');
          void answered.reload();
        }
        row.remove();
        host.decided();
        open.element.closest('section')?.querySelector<HTMLElement>('h2')?.focus();
      },
    });
    // Notes which of the two buttons was pressed, before the form sends.
    answering.addEventListener(
      'submit',
      ({ submitter }) => {
        accepted = submitter === accept;
      },
      { capture: true },
    );
    row.append(answering);
    return row;
  }

  return h(
    'div',
    {},
    section('Appeals', 'A banned person may appeal once. Your answer is shown to them.', open.element),
    section('Answered', null, answered.element),
  );
}
