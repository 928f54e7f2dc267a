import { h } from './dom';
import { copyRow } from './forms';

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
