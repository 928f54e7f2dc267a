import { copyRow } from './actions';
import { getJson } from './api';
import { h } from './dom';
import { dateText } from './page';

/** The channel's addresses for other players, each with a button that copies it. */
export function elsewhere(slug: string, title: string): HTMLElement {
  const { origin } = location;
  const name = encodeURIComponent(slug);
  const escaped = title.replace(/[&<>"]/g, (char) => `&#${char.charCodeAt(0)};`);
  const addresses: readonly (readonly [string, string])[] = [
    ['HLS', `${origin}/live/${name}/master.m3u8`],
    ['DASH', `${origin}/live/${name}/manifest.mpd`],
    ['MP3 stream', `${origin}/listen/${name}.mp3`],
    ['Embed', `<audio controls preload="none" title="${escaped}" src="${origin}/listen/${name}.mp3"></audio>`],
  ];
  return h(
    'details',
    { class: 'elsewhere' },
    h('summary', {}, 'Listen elsewhere'),
    h('ul', {}, ...addresses.map(([label, address]) => copyRow(label, address))),
  );
}

interface BroadcastJson {
  readonly title: string;
  readonly startedAt: string;
  readonly asset: string | null;
}

/** Recordings of earlier broadcasts, loaded when the person opens the list. */
export function earlier(slug: string): HTMLElement {
  const list = h('ul', {}, h('li', {}, 'Loading…'));
  const element = h('details', { class: 'earlier' }, h('summary', {}, 'Earlier broadcasts'), list);
  element.addEventListener('toggle', async () => {
    if (!element.open) return;
    try {
      const { items } = await getJson<{ items: BroadcastJson[] }>(`/api/v1/channels/${encodeURIComponent(slug)}/broadcasts?limit=50`);
      const recorded = items.filter(({ asset }) => asset !== null).slice(0, 10);
      list.replaceChildren(
        ...recorded.map(({ asset, title, startedAt }) =>
          h(
            'li',
            {},
            h('a', { href: `/r/${encodeURIComponent(asset!)}` }, title),
            ' ',
            h('time', { datetime: startedAt }, dateText(startedAt)),
          ),
        ),
      );
      if (recorded.length === 0) list.replaceChildren(h('li', {}, 'No recordings yet.'));
    } catch {
      list.replaceChildren(h('li', {}, 'The server does not answer. Try again in a moment.'));
    }
  });
  return element;
}
