import { h } from './dom';

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
    h('ul', {}, ...addresses.map(([label, address]) => row(label, address))),
  );
}

function row(label: string, address: string): HTMLElement {
  const field = h('input', { type: 'text', readonly: true, value: address, 'aria-label': label, onfocus: () => field.select() });
  const button = h('button', { class: 'quiet', type: 'button', 'aria-label': `Copy ${label}` }, 'Copy');
  button.addEventListener('click', () => void copy());
  async function copy(): Promise<void> {
    try {
      await navigator.clipboard.writeText(address);
    } catch {
      // No permission, or not a secure context: the older way needs the field selected.
      field.select();
      document.execCommand('copy');
    }
    button.textContent = 'Copied';
    setTimeout(() => {
      button.textContent = 'Copy';
    }, 1_500);
  }
  return h('li', {}, h('span', { class: 'label' }, label), field, button);
}
