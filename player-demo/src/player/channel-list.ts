import './channel-list.css';
import { type ChannelJson, listChannels, repeat } from '../ui/api';
import { h, setText } from '../ui/dom';

/** About this long, varied per page: pages that were opened together do not ask together. */
const REFRESH_MS = 40_000;

/**
 * Public channels in rows of one height. They are updated in place, so that nothing moves under a
 * finger.
 */
export function mountList(parent: HTMLElement, channels: readonly ChannelJson[]): void {
  const rows = new Map<string, (channel: ChannelJson) => void>();
  const list = h('ul', { class: 'channels' });
  const add = (channel: ChannelJson) => {
    const what = h('span', { class: 'channels-now' });
    const who = h('span', { class: 'channels-listeners' });
    const dot = h('span', { class: 'dot' });
    const name = h('span', { class: 'channels-title' });
    list.append(h('li', {}, h('a', { href: `/c/${encodeURIComponent(channel.slug)}` }, dot, name, what, who)));
    const update = (now: ChannelJson) => {
      const onAir = now.state !== 'offline';
      dot.classList.toggle('on', onAir);
      setText(name, now.title);
      setText(what, onAir ? nowPlayingText(now) || 'On air' : 'Off air');
      setText(who, onAir ? `${now.listeners} listening` : '');
    };
    rows.set(channel.slug, update);
    update(channel);
  };
  channels.forEach(add);
  parent.append(h('section', { class: 'list', 'aria-label': 'Channels' }, h('h2', {}, 'Channels'), list));
  repeat(async () => {
    const latest = await listChannels().catch(() => []);
    for (const channel of latest) {
      const update = rows.get(channel.slug);
      if (update) update(channel);
      else add(channel);
    }
    return REFRESH_MS * (0.85 + 0.3 * Math.random());
  });
}

function nowPlayingText(channel: ChannelJson): string {
  const { nowPlaying } = channel;
  return [nowPlaying?.artist, nowPlaying?.title].filter(Boolean).join(' – ');
}
