import './player.css';
import './history.css';
import '../chat/place.css';
import { ChannelWatch } from '../chat/channel-watch';
import { ApiError, type ChannelJson, getChannel, measureClockOffset, repeat } from '../ui/api';
import { clockText, h, icon, setText } from '../ui/dom';
import { earlier, elsewhere } from '../ui/elsewhere';
import { bindKeys } from '../ui/keys';
import type { MemberAccess, SignedAddress } from './member-access';
import { createRibbon } from './meter';
import { Player, type PlayerState, type Quality } from './player';

const HISTORY_ROWS = 5;
/** How long the answer about how far back rewind reaches is used. */
const WINDOW_STALE_MS = 60_000;
/** Shortest time between two requests for a signed address. */
const RENEW_AGAIN_MS = 10_000;
/** Longest timer; browsers count milliseconds in 31 bits. */
const LONGEST_TIMER_MS = 86_400_000;

const QUALITIES: readonly (readonly [Quality, string])[] = [
  ['auto', 'Auto'],
  ['aac-64', '64 kbit/s AAC'],
  ['aac-128', '128 kbit/s AAC'],
  ['aac-256', '256 kbit/s AAC'],
  ['opus-96', '96 kbit/s Opus'],
];

export interface ChannelPageOptions {
  /** The page is about this channel only. */
  readonly standalone: boolean;
  /** For a private channel: how to ask for it, and its signed address. */
  readonly member?: MemberAccess;
  readonly address?: SignedAddress;
}

/** Shows the player of one channel and all that belongs to it. */
export function mountChannel(parent: HTMLElement, first: ChannelJson, options: ChannelPageOptions): void {
  const player = new Player(first.slug, options.address?.base);
  const ribbon = createRibbon(player.audio);
  let channel = first;
  /** Wall clock of the oldest sample that rewind reaches. */
  let reachesBackToMs: number | undefined;
  let windowAskedMs = 0;

  // Every text has an element of fixed size, so that a change moves nothing else.
  const status = h('p', { class: 'status', role: 'status', 'aria-live': 'polite' });
  const dot = h('span', { class: 'dot' });
  const listeners = h('span', { class: 'listeners' });
  const title = h('p', { class: 'title' });
  const artist = h('p', { class: 'artist' });
  const playButton = h('button', { class: 'play', type: 'button', onclick: () => gesture(() => player.toggle()) });
  const position = h('input', { type: 'range', class: 'seek', min: -1, max: 0, step: 1, value: 0, 'aria-label': 'Rewind' });
  const from = h('span', { class: 'seek-from' });
  const liveButton = h(
    'button',
    { class: 'live', type: 'button', onclick: () => gesture(() => player.goLive()) },
    h('span', { class: 'dot' }),
    'Live',
  );
  const back = h(
    'button',
    { class: 'round', type: 'button', 'aria-label': '10 seconds back', onclick: () => gesture(() => seekBy(-10)) },
    icon('back'),
  );
  const forward = h(
    'button',
    { class: 'round', type: 'button', 'aria-label': '10 seconds forward', onclick: () => gesture(() => seekBy(10)) },
    icon('forward'),
  );
  const muteButton = h('button', { class: 'round', type: 'button', onclick: () => setVolume(player.audio.volume, !player.audio.muted) });
  const volume = h('input', { type: 'range', class: 'volume', min: 0, max: 1, step: 0.01, 'aria-label': 'Volume' });
  const delay = h('dd', { class: 'number' });
  const buffer = h('dd', { class: 'number' });
  const heard = h('span', { class: 'heard' });
  const quality = h(
    'select',
    { 'aria-label': 'Quality', onchange: () => player.setQuality(quality.value as Quality) },
    ...QUALITIES.filter(([value]) => value !== 'opus-96' || player.canOpus).map(([value, label]) => h('option', { value }, label)),
  );
  const history = Array.from({ length: HISTORY_ROWS }, () => ({
    time: h('time'),
    title: h('span', { class: 'title-line' }),
    artist: h('span', { class: 'artist-line' }),
  }));
  const keys = bindKeys({
    toggle: () => gesture(() => player.toggle()),
    seekBy: (seconds) => gesture(() => seekBy(seconds)),
    volumeBy: (step) => setVolume(Math.min(1, Math.max(0, player.audio.volume + step)), false),
    live: () => gesture(() => player.goLive()),
    mute: () => setVolume(player.audio.volume, !player.audio.muted),
  });

  const chatPlace = h('div', { class: 'chat-place' });
  const heading = options.standalone
    ? h('h1', {}, channel.title)
    : h('h1', {}, h('a', { href: `/c/${encodeURIComponent(channel.slug)}` }, channel.title));
  parent.append(
    h(
      'div',
      { class: 'channel' },
      h(
        'section',
        { class: 'player', 'aria-label': 'Player' },
        h('div', { class: 'head' }, heading, listeners),
        h('div', { class: 'now' }, h('div', { class: 'eyebrow' }, dot, status), title, artist),
        h('div', { class: 'stage' }, playButton, ribbon.canvas),
        h('div', { class: 'timeline' }, from, position, liveButton),
        h(
          'div',
          { class: 'controls' },
          h('div', { class: 'jump' }, back, forward),
          h('div', { class: 'loudness' }, muteButton, volume),
          h('label', { class: 'quality' }, h('span', {}, 'Quality'), quality),
          h(
            'dl',
            { class: 'facts' },
            h('div', {}, h('dt', {}, 'Delay'), delay),
            h('div', {}, h('dt', {}, 'Buffer'), buffer),
            h('div', {}, h('dt', {}, 'Heard'), h('dd', {}, heard)),
          ),
        ),
      ),
      chatPlace,
      h(
        'aside',
        { class: 'side' },
        h(
          'section',
          { class: 'history', 'aria-label': 'Played before' },
          h('h2', {}, 'Played before'),
          h('p', { class: 'none-yet' }, 'Titles appear here once you have heard them.'),
          h('ol', {}, ...history.map((row) => h('li', {}, row.time, row.title, row.artist))),
        ),
        h(
          'section',
          { class: 'more' },
          // The addresses of a private channel are for one listener and expire, so they are not
          // offered.
          options.member ? null : elsewhere(channel.slug, channel.title),
          earlier(channel.slug),
          h('button', { class: 'quiet', type: 'button', onclick: () => keys.openHelp() }, 'Keyboard ', h('kbd', {}, '?')),
        ),
      ),
    ),
  );
  // The chat is another file, loaded after the player: sound comes first.
  void import('../chat/panel').then(({ mountChat }) =>
    mountChat(chatPlace, channel.slug, (news) => {
      watch.tell(news);
      if (news) learn({ ...channel, ...news });
    }),
  );

  /** Every action that starts sound goes through here: the meter needs a user's gesture too. */
  function gesture(action: () => void): void {
    ribbon.listen();
    action();
    show();
  }

  function seekBy(seconds: number): void {
    player.rewindTo(Math.min(Math.max(reach(), 10), Math.max(0, player.placeS - seconds)));
  }

  function setVolume(value: number, muted: boolean): void {
    player.audio.volume = value;
    player.audio.muted = muted;
    volume.value = String(muted ? 0 : value);
    volume.style.setProperty('--filled', `${(muted ? 0 : value) * 100}%`);
    muteButton.replaceChildren(icon(muted || value === 0 ? 'muted' : 'volume'));
    muteButton.setAttribute('aria-label', muted ? 'Sound on' : 'Mute');
    remember('veza.volume', String(value));
  }

  /** Finds how far rewind reaches; called at the start of playing and when the control is used. */
  async function measureWindow(): Promise<void> {
    const nowMs = performance.now();
    if (nowMs - windowAskedMs < WINDOW_STALE_MS && windowAskedMs > 0) return;
    windowAskedMs = nowMs;
    reachesBackToMs = await player.rewindStartMs();
    show();
  }

  /** Seconds that rewind reaches back. */
  function reach(): number {
    return reachesBackToMs === undefined ? 0 : Math.max(0, (player.serverNowMs - reachesBackToMs) / 1000);
  }

  function statusText(state: PlayerState): string {
    switch (state) {
      case 'offAir':
        return 'Off air';
      case 'blocked':
        return 'On air · press play to listen';
      case 'stopped':
        return channel.state === 'holding' ? 'On air · waiting for the broadcaster' : 'On air';
      case 'connecting':
        return 'Connecting…';
      case 'reconnecting':
        return 'Reconnecting…';
      case 'playing':
        if (!player.isLive) return 'Rewound';
        return channel.state === 'holding' ? 'Live · waiting for the broadcaster' : 'Live';
    }
  }

  function show(): void {
    const { state } = player;
    const sounding = state === 'playing' || state === 'reconnecting';
    const busy = player.wanted && state !== 'offAir';
    const onAir = state !== 'offAir';
    parent.dataset.state = state;
    setText(status, statusText(state));
    dot.classList.toggle('on', onAir);
    setText(listeners, onAir ? `${channel.listeners} listening` : '');

    const dateMs = player.playingDateMs;
    const entry = dateMs === undefined ? undefined : player.titles.at(dateMs);
    const now = entry && sounding ? entry : channel.nowPlaying;
    const waits = player.wanted
      ? 'The sound starts by itself when the broadcast begins.'
      : 'Press play, and it starts when the broadcast begins.';
    setText(title, onAir ? now?.title || channel.title : 'Nothing on air');
    setText(artist, onAir ? (now?.artist ?? '') : waits);
    showMediaSession(title.textContent ?? '', artist.textContent ?? '', busy);

    const past = dateMs === undefined ? [] : player.titles.before(dateMs, HISTORY_ROWS);
    history.forEach((row, i) => {
      const played = past[i];
      setText(
        row.time,
        played ? new Date(played.startMs).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' }) : '',
      );
      setText(row.title, played?.title ?? '');
      setText(row.artist, played?.artist ?? '');
      row.time.parentElement?.classList.toggle('empty', !played);
    });

    const name = busy ? 'Pause' : 'Play';
    if (playButton.getAttribute('aria-label') !== name) {
      playButton.setAttribute('aria-label', name);
      playButton.replaceChildren(icon(busy ? 'pause' : 'play'));
    }
    const delayS = player.delayS;
    setText(delay, sounding && delayS !== undefined && delayS > 0 ? (delayS < 100 ? `${delayS.toFixed(1)} s` : clockText(delayS)) : '–');
    setText(buffer, sounding ? `${player.bufferS.toFixed(1)} s` : '–');
    setText(heard, sounding ? renditionText(player.rendition) : '–');

    const behindS = player.isLive ? 0 : Math.max(0, player.placeS);
    const reachS = Math.max(reach(), Math.ceil(behindS));
    const canRewind = onAir && reachS > 10;
    position.disabled = !canRewind;
    back.disabled = !canRewind;
    forward.disabled = !canRewind || player.isLive;
    if (document.activeElement !== position || !dragging) {
      position.min = String(-Math.max(1, Math.floor(reachS)));
      position.value = String(-behindS);
    }
    const aimS = dragging ? -Number(position.value) : behindS;
    position.style.setProperty('--filled', `${reachS > 0 ? 100 - (aimS / reachS) * 100 : 100}%`);
    position.setAttribute('aria-valuetext', aimS < 6 ? 'Live' : `${clockText(aimS)} behind live`);
    setText(from, canRewind ? `−${clockText(aimS >= 6 ? aimS : reachS)}` : '');
    from.classList.toggle('aimed', aimS >= 6);
    liveButton.disabled = !onAir;
    liveButton.classList.toggle('on', onAir && player.isLive && busy);
    liveButton.setAttribute('aria-pressed', String(onAir && player.isLive && busy));
    ribbon.setActive(state === 'playing');
  }

  function showMediaSession(now: string, by: string, busy: boolean): void {
    if (!('mediaSession' in navigator)) return;
    const { mediaSession } = navigator;
    mediaSession.playbackState = busy ? 'playing' : 'paused';
    const known = mediaSession.metadata;
    if (known?.title === now && known.artist === by) return;
    mediaSession.metadata = new MediaMetadata({ title: now, artist: by, album: channel.title });
    document.title = busy && now !== channel.title ? `${now} · ${channel.title}` : channel.title;
  }

  let dragging = false;
  position.addEventListener('pointerdown', () => {
    dragging = true;
  });
  position.addEventListener('pointerenter', () => void measureWindow());
  position.addEventListener('focus', () => void measureWindow());
  position.addEventListener('input', () => {
    dragging = true;
    show();
  });
  position.addEventListener('change', () => {
    dragging = false;
    gesture(() => player.rewindTo(-Number(position.value)));
  });
  position.addEventListener('pointerup', () => {
    dragging = false;
  });
  volume.addEventListener('input', () => setVolume(Number(volume.value), false));
  if ('mediaSession' in navigator) {
    const handle = (action: MediaSessionAction, run: () => void) => {
      try {
        navigator.mediaSession.setActionHandler(action, run);
      } catch {
        // A browser may not know every action.
      }
    };
    handle('play', () => player.play());
    handle('pause', () => player.pause());
    handle('stop', () => player.pause());
    handle('seekbackward', () => seekBy(-10));
    handle('seekforward', () => seekBy(10));
  }

  player.onState = (state) => {
    if (state === 'playing') {
      ribbon.listen();
      void measureWindow();
    }
    if (state === 'offAir') watch.ended();
    show();
  };
  setVolume(Number(recall('veza.volume') ?? 1), false);
  setInterval(show, 250);

  const learn = (latest: ChannelJson) => {
    channel = latest;
    player.setOnAir(latest.state !== 'offline');
    show();
  };
  const watch = new ChannelWatch(first.state !== 'offline', {
    ask: async () => {
      try {
        learn(await (options.member?.getChannel() ?? getChannel(channel.slug)));
      } catch (error) {
        if (!(error instanceof ApiError && error.status === 404)) throw error;
        learn({ ...channel, state: 'offline', nowPlaying: null });
      }
      return channel.state !== 'offline';
    },
  });
  learn(first);
  // If the browser wants a click first, the player says so at once, and the button waits.
  player.play();
  show();
  const { member } = options;
  if (member && options.address) {
    let { untilMs } = options.address;
    // The address is renewed long before it expires, so that nobody hears it. A player that was
    // refused meanwhile tries again with the new one.
    const waitMs = () => Math.min(LONGEST_TIMER_MS, Math.max(RENEW_AGAIN_MS, (untilMs - Date.now()) * 0.75));
    let first = true;
    repeat(async () => {
      if (first) first = false;
      else
        try {
          const address = await member.address();
          untilMs = address.untilMs;
          player.base = address.base;
        } catch {
          return RENEW_AGAIN_MS;
        }
      return waitMs();
    });
  }
  repeat(async () => {
    try {
      player.clockOffsetMs = await measureClockOffset();
      return 600_000;
    } catch {
      return 10_000;
    }
  });
}

/** `aac-256` → "256 kbit/s AAC", as in the choice of quality. */
function renditionText(name: string | undefined): string {
  return QUALITIES.find(([value]) => value === name)?.[1] ?? '–';
}

function remember(name: string, value: string): void {
  try {
    localStorage.setItem(name, value);
  } catch {
    // The browser may forbid storage; then the volume is forgotten.
  }
}

function recall(name: string): string | null {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}
