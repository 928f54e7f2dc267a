import './style.css';
import { ApiError, type Channel, getChannel, listChannels, repeat } from './api';
import { mountList } from './channel-list';
import { mountChannel } from './channel-page';
import { h } from './dom';

/** `/` and `/c/{channel}`. A link is a page load: a page here is one player, and leaving it ends it. */
const app = document.getElementById('app')!;
const main = h('main');
app.append(h('header', { class: 'masthead' }, h('a', { href: '/', class: 'wordmark' }, 'Veza')), main);

const path = /^\/c\/([^/]+)\/?$/.exec(location.pathname);
if (path) {
  void open(() => getChannel(decodeURIComponent(path[1]!))).then((channel) => {
    if (channel) mountChannel(main, channel, { standalone: true });
    else message('There is no such channel.', 'The address may be old, or the channel private.');
  });
} else {
  void open(listChannels).then((channels) => home(channels ?? []));
}

function home(channels: Channel[]): void {
  const onAir = channels.filter((channel) => channel.state !== 'offline');
  const featured = channels.length === 1 ? channels[0] : onAir.length === 1 ? onAir[0] : undefined;
  if (featured) mountChannel(main, featured, { standalone: channels.length === 1 });
  if (channels.length > 1) mountList(main, channels);
  if (channels.length === 0) message('No channels yet.', 'A channel appears here as soon as one is created.');
}

function message(title: string, text: string): void {
  main.replaceChildren(h('section', { class: 'notice' }, h('h1', {}, title), h('p', {}, text)));
}

/** The first answer of the API; keeps asking while the server cannot be reached. Undefined: it says there is nothing. */
function open<T>(ask: () => Promise<T>): Promise<T | undefined> {
  return new Promise((resolve) => {
    let waitMs = 1_000;
    const stop = repeat(async () => {
      try {
        resolve(await ask());
        queueMicrotask(() => stop());
      } catch (error) {
        if (error instanceof ApiError && error.status === 404) {
          resolve(undefined);
          queueMicrotask(() => stop());
        } else message('Connecting…', 'The server does not answer yet. This page keeps trying.');
      }
      waitMs = Math.min(5_000, waitMs * 1.5);
      return waitMs;
    });
  }).then((value) => {
    main.replaceChildren();
    return value as T | undefined;
  });
}
