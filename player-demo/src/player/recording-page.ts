import './player.css';
import '../chat/place.css';
import '../chat/panel.css';
import './recording.css';
import Hls from 'hls.js';
import type { Entry } from '../../../src/chat-client/index';
import { MessageList } from '../chat/list';
import { ChatReplay } from '../chat/replay';
import { itemRow, type RowHost } from '../chat/row';
import { ApiError, getJson } from '../ui/api';
import { h } from '../ui/dom';
import { dateText } from '../ui/page';
import { accessToken } from '../ui/session';

interface Asset {
  readonly id: string;
  readonly channel: string;
  readonly title: string;
  readonly createdAt: string;
  readonly durationMs: number;
  readonly urls: { readonly hls: string };
}

const TICK_MS = 250;

/** Shows `/r/{id}`: a recording, and beside it the chat as it was during the broadcast. */
export async function mountRecording(main: HTMLElement, id: string): Promise<void> {
  let asset: Asset;
  try {
    asset = await getJson<Asset>(`/api/v1/assets/${encodeURIComponent(id)}`);
  } catch (error) {
    const isThere = !(error instanceof ApiError) || error.status === 0;
    const title = isThere ? 'The server does not answer.' : 'There is no such recording.';
    const text = isThere ? 'Reload this page in a moment.' : 'It may be private, or deleted.';
    main.replaceChildren(h('section', { class: 'notice' }, h('h1', {}, title), h('p', {}, text)));
    return;
  }
  document.title = asset.title;
  const audio = h('audio', { controls: true, preload: 'metadata', 'aria-label': asset.title });
  const place = h('div', { class: 'chat-place' });
  main.replaceChildren(
    h(
      'div',
      { class: 'channel' },
      h(
        'section',
        { class: 'player recording', 'aria-label': 'Player' },
        h('p', { class: 'head' }, h('a', { href: `/c/${encodeURIComponent(asset.channel)}` }, asset.channel)),
        h('h1', { class: 'title' }, asset.title),
        h('p', { class: 'artist' }, `On air ${dateText(asset.createdAt)}`),
        audio,
      ),
      place,
    ),
  );
  const startedAtMs = Date.parse(asset.createdAt);
  // Media is played from the page's own origin unless it comes from a CDN: the service may not know
  // the name under which the page was loaded.
  const media = new URL(asset.urls.hls);
  const path =
    asset.urls.hls.includes('/vod/') && media.hostname !== location.hostname && !isElsewhere(media) ? media.pathname : media.href;
  let hls: Hls | undefined;
  if (Hls.isSupported()) {
    hls = new Hls({ backBufferLength: 60 });
    hls.loadSource(path);
    hls.attachMedia(audio);
  } else audio.src = path;
  await mountReplay(place, asset.channel, audio, () => hls?.playingDate?.getTime() ?? startedAtMs + audio.currentTime * 1000);
}

/** A CDN has a host of its own; a name of this machine means the service itself. */
const isElsewhere = ({ hostname }: URL): boolean => hostname !== 'localhost' && hostname !== '127.0.0.1' && hostname !== '[::1]';

async function mountReplay(place: HTMLElement, slug: string, audio: HTMLAudioElement, momentMs: () => number): Promise<void> {
  const room = `/api/v1/rooms/${encodeURIComponent(slug)}`;
  const empty = h('p', { class: 'chat-empty' }, 'No messages up to this moment.');
  const rowHost: RowHost = {
    names: [],
    me: undefined,
    get: (mid) => replay?.timeline.get(mid),
    hasReacted: () => false,
    mayReact: () => false,
    mayAct: false,
    react: () => undefined,
    openMenu: () => undefined,
    showReplied: (mid) => {
      const item = replay?.timeline.get(mid);
      if (item) list.show(item);
    },
  };
  const newer = h('button', { type: 'button', class: 'chat-newer', hidden: true, onclick: () => list.followEnd() }, 'Follow the recording');
  const list = new MessageList(
    {
      row: (item) => itemRow(item, rowHost),
      older: () => Promise.resolve(),
      hasOlder: false,
      onUnseen: () => undefined,
      onFollow: (follows) => {
        newer.hidden = follows;
      },
    },
    'Messages',
  );
  place.append(
    h(
      'section',
      { class: 'chat-panel chat-replay', 'aria-label': 'Chat' },
      h('header', { class: 'chat-head' }, h('h2', {}, 'Chat'), h('span', { class: 'chat-count' }, 'as it was')),
      h('div', { class: 'chat-middle' }, list.element, empty, newer),
    ),
  );
  let replay: ChatReplay | undefined;
  // Members may read the log of a private room.
  const token = await accessToken(false).catch(() => undefined);
  const asMember = token === undefined ? {} : { authorization: `Bearer ${token}` };
  try {
    const { offset } = await getJson<{ offset: number }>(room, asMember);
    const before = async (from: number, limit: number) =>
      (await getJson<{ items: Entry[] }>(`${room}/messages?before=${from}&limit=${limit}`, asMember)).items;
    replay = new ChatReplay(offset, before, (event) => {
      if (event.type === 'added') list.append(event.items);
      else if (event.type === 'removed') list.remove(event.items);
      else list.change(event.items);
      empty.hidden = !list.isEmpty;
    });
  } catch {
    empty.textContent = 'This recording has no chat.';
    return;
  }
  const shown = replay;
  const follow = () => void shown.at(momentMs(), performance.now());
  audio.addEventListener('seeked', follow);
  setInterval(() => {
    if (!audio.paused) follow();
  }, TICK_MS);
  follow();
}
