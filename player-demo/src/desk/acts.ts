import { h } from '../ui/dom';
import { dateText, section } from '../ui/page';
import { type DeskHost, pagedList, personLink } from './list';

export interface RoomAct {
  readonly id: number;
  readonly at: string;
  readonly action: string;
  readonly by: { readonly id: string; readonly name: string };
  readonly userId: string | null;
  readonly userName: string | null;
  readonly details: Readonly<Record<string, unknown>>;
}

type ActTextPart = string | Node;

/** A moderation act as a sentence. */
export function actionText(act: RoomAct, host: DeskHost): ActTextPart[] {
  const { details } = act;
  const by = h('b', {}, act.by.name);
  const whom = act.userId === null ? 'somebody' : personLink(host, act.userId, act.userName);
  const until = typeof details.until === 'string' ? `, until ${dateText(details.until)}` : '';
  const said = typeof details.reason === 'string' ? `: ${details.reason}` : typeof details.text === 'string' ? `: ${details.text}` : '';
  const sentence = (...pieces: ActTextPart[]): ActTextPart[] => [by, ' ', ...pieces];
  switch (act.action) {
    case 'delete':
      return sentence('deleted a message of ', whom, '.');
    case 'retract':
      return sentence('took a message of ', whom, ` back${said}`);
    case 'purge':
      return sentence('deleted all messages of ', whom, '.');
    case 'timeout':
      return sentence('gave ', whom, ` a timeout${until}${said}`);
    case 'untimeout':
      return sentence('ended the timeout of ', whom, '.');
    case 'ban':
      return sentence(
        'banned ',
        whom,
        `${until === '' ? ', for good' : until}${typeof details.addressUntil === 'string' ? ', with the address' : ''}${said}`,
      );
    case 'shadowBan':
      return sentence('banned ', whom, ` without telling${until}${said}`);
    case 'unban':
      return sentence('lifted the ban of ', whom, '.');
    case 'warn':
      return sentence('warned ', whom, said);
    case 'approve':
      return sentence('approved a message of ', whom, '.');
    case 'deny':
      return sentence('denied a message of ', whom, said);
    case 'pin':
      return sentence(details.mid === null ? 'unpinned the message.' : 'pinned a message.');
    case 'terms':
      return sentence(`changed the words: ${String(details.blocked)} blocked, ${String(details.allowed)} allowed.`);
    case 'appeal':
      return sentence('appealed against the ban.');
    case 'answerAppeal':
      return sentence(details.accepted === true ? 'accepted the appeal of ' : 'turned down the appeal of ', whom, '.');
    default:
      return sentence(
        `changed ${
          Object.entries(details)
            .map(([name, value]) => `${name} to ${Array.isArray(value) ? value.join(', ') : String(value)}`)
            .join('; ') || act.action
        }.`,
      );
  }
}

/** Every moderation act in the room, newest first. */
export function actsPart(host: DeskHost): HTMLElement {
  const acts = pagedList<RoomAct>({
    path: (cursor) => `${host.room}/acts?limit=50${cursor === undefined ? '' : `&cursor=${encodeURIComponent(cursor)}`}`,
    row: (act) =>
      h(
        'li',
        {},
        h('time', { datetime: act.at }, dateText(act.at)),
        h('div', { class: 'row-text' }, h('p', { dir: 'auto' }, ...actionText(act, host))),
      ),
    empty: 'No moderator has acted here yet.',
    label: 'What was done',
  });
  acts.list.classList.add('audit');
  return section('Who did what', 'The newest comes first. Acts are kept for a year and cannot be changed.', acts.element);
}
