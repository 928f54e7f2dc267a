import './account.css';
import { besideChat } from '../chat/beside-chat';
import { actionButton, copyRow } from '../ui/actions';
import { type ChannelJson, repeat } from '../ui/api';
import { confirmed } from '../ui/dialogs';
import { h, setText } from '../ui/dom';
import { choice, field, form } from '../ui/forms';
import { callFresh } from '../ui/fresh-sign-in';
import { dateText, section, show } from '../ui/page';
import { call, callAll, currentUser } from '../ui/session';
import { type ChannelMemberJson, type ChannelRoleJson, membersPart } from './channel-members';
import { type VisibilityJson, visibilityChoice } from './channel-visibility';

export interface Managed extends ChannelJson {
  readonly visibility: VisibilityJson;
  readonly recording: boolean;
}

export interface IngestJson {
  readonly rtmp: string;
  readonly rtmps: string | null;
  readonly icecast: string;
  readonly post: string;
}

/** A new stream key, kept only while the page is open. */
export interface StreamKey {
  readonly streamKey: string;
  readonly ingest: IngestJson;
}

const STATE_POLL_MS = 5_000;

/**
 * Shows `/channels/{slug}`, with the parts that the role allows. `fresh` is the key of a channel
 * that was just made.
 */
export async function mountManaged(main: HTMLElement, slug: string, fresh?: StreamKey): Promise<void> {
  const path = `/channels/${encodeURIComponent(slug)}`;
  const [channel, members, me, known] = await Promise.all([
    call<Managed>('GET', path),
    callAll<ChannelMemberJson>(`${path}/members`),
    call<{ id: string; channels: { slug: string; role: ChannelRoleJson }[] }>('GET', '/me'),
    // Moderators may not read the ingest addresses.
    fresh ? fresh.ingest : call<IngestJson>('GET', `${path}/ingest`).catch(() => undefined),
  ]);
  const role = currentUser()?.role === 'admin' ? 'owner' : me.channels.find((one) => one.slug === slug)?.role;
  const isOwner = role === 'owner';
  const broadcasts = isOwner || role === 'host';
  let latest = channel;

  const title = h('h1', { tabindex: -1 }, channel.title);
  const dot = h('span', { class: 'dot' });
  const state = h('span', {});
  const visibility = h('span', {});
  const sayState = (now: Managed) => {
    const onAir = now.state !== 'offline';
    dot.classList.toggle('on', onAir);
    setText(title, now.title);
    setText(visibility, now.visibility);
    setText(
      state,
      now.state === 'live'
        ? `On air, ${now.listeners} listening`
        : now.state === 'holding'
          ? 'On air, waiting for the broadcaster'
          : 'Off air',
    );
  };
  document.title = `${channel.title} · Veza`;
  sayState(channel);
  show(
    main,
    h(
      'div',
      { class: 'page-head' },
      h('p', { class: 'crumb' }, h('a', { href: '/channels' }, 'My channels')),
      title,
      h('p', { class: 'facts-line' }, dot, state, ' · ', visibility, ' · ', h('a', { href: `/c/${slug}` }, `${location.host}/c/${slug}`)),
    ),
    broadcasts && known ? keyPart(path, () => latest, known, fresh) : null,
    isOwner ? settingsPart(path, channel, (changed) => learn(changed)) : null,
    deskPart(slug),
    membersPart(path, members, isOwner),
    broadcasts ? linkPart(path) : null,
    isOwner ? deletePart(path, slug) : null,
  );

  besideChat(main, slug);

  const learn = (now: Managed) => {
    latest = now;
    sayState(now);
    main.querySelector<HTMLElement>('#playback-links')?.toggleAttribute('hidden', now.visibility !== 'private');
  };
  learn(channel);
  const stop = repeat(async () => {
    if (!title.isConnected) stop();
    else if (document.visibilityState === 'visible') await call<Managed>('GET', path).then(learn, () => undefined);
    return STATE_POLL_MS;
  });
}

/** The channel's chat is beside this page; moderation has its own page. */
const deskPart = (slug: string): HTMLElement =>
  section(
    'Chat',
    'Messages that wait for a moderator, bans and appeals, blocked words, and the rules of the room.',
    h('p', {}, h('a', { href: `/channels/${encodeURIComponent(slug)}/chat`, class: 'button plain' }, 'Open the desk')),
  );

function keyPart(path: string, latest: () => Managed, known: IngestJson, fresh: StreamKey | undefined): HTMLElement {
  const body = h('div', { class: 'steps', role: 'status', 'aria-live': 'polite' });
  const rotate = (label: string) =>
    actionButton(label, async () => {
      const onAir = latest().state !== 'offline';
      const sure = await confirmed({
        title: 'Make a new stream key?',
        text: onAir
          ? 'The show on air goes on, with the old key, until it ends. Whoever connects from now on needs the new one: type it into your program after the show.'
          : 'The old key stops working. Type the new one into every program that you broadcast with.',
        action: 'Make a new key',
        danger: false,
      });
      if (!sure) return;
      put(await callFresh<StreamKey>('POST', `${path}/stream-key`), onAir);
      body.querySelector<HTMLElement>('input')?.focus();
    });
  const put = ({ streamKey, ingest }: StreamKey, onAir = false) => {
    body.replaceChildren(
      h(
        'p',
        { class: 'said' },
        onAir ? 'Here is the new key. The show on air goes on with the old one. ' : '',
        'Copy the key now: it is shown only once. If you lose it, make a new one.',
      ),
      h('ul', { class: 'elsewhere' }, copyRow('Stream key', streamKey)),
      programs(ingest),
      rotate('Make a new key'),
    );
  };
  if (fresh) put(fresh);
  else {
    body.append(
      h('p', { class: 'state' }, 'The key was shown when it was made and cannot be shown again. If you have lost it, make a new one.'),
      programs(known),
      rotate('Make a new key'),
    );
  }
  return section('Stream key', 'Anybody who has it can broadcast on your channel. Keep it secret.', body);
}

/** Says which address and key goes into which field of the usual broadcasting programs. */
function programs(ingest: IngestJson): HTMLElement {
  const icecast = new URL(ingest.icecast);
  const port = icecast.port || (icecast.protocol === 'https:' ? '443' : '80');
  const table = (rows: readonly (readonly [string, string])[]) =>
    h('ul', { class: 'elsewhere' }, ...rows.map(([label, value]) => copyRow(label, value)));
  const program = (name: string, open: boolean, ...children: HTMLElement[]) =>
    h('details', { class: 'program', open }, h('summary', {}, name), ...children);
  return h(
    'div',
    { class: 'programs' },
    program(
      'OBS Studio',
      true,
      h('p', {}, 'Settings → Stream. Service: Custom. The stream key goes into “Stream Key”.'),
      table([['Server', ingest.rtmp], ...(ingest.rtmps ? ([['Server, encrypted', ingest.rtmps]] as const) : [])]),
    ),
    program(
      'BUTT',
      false,
      h('p', {}, 'Settings → Main → Server → Add. Type: Icecast. The stream key is the password, the user is “source”.'),
      table([
        ['Address', icecast.hostname],
        ['Port', port],
        ['Icecast mountpoint', icecast.pathname],
      ]),
    ),
    program(
      'Mixxx',
      false,
      h('p', {}, 'Preferences → Live Broadcasting. Type: Icecast 2. The stream key is the password.'),
      table([
        ['Mount', icecast.pathname],
        ['Host', icecast.hostname],
        ['Port', port],
        ['Login', 'source'],
      ]),
    ),
    program(
      'ffmpeg',
      false,
      table([
        [
          'Command',
          `ffmpeg -re -i show.mp3 -c:a libmp3lame -b:a 256k -f mp3 icecast://source:STREAM_KEY@${icecast.host}${icecast.pathname}`,
        ],
      ]),
    ),
  );
}

function settingsPart(path: string, channel: Managed, changed: (channel: Managed) => void): HTMLElement {
  const title = field({ name: 'title', label: 'Title', maxlength: 200, value: channel.title, spellcheck: true });
  const visibility = visibilityChoice(channel.visibility);
  const recording = h('input', { type: 'checkbox', name: 'recording', checked: channel.recording });
  return section(
    'Settings',
    null,
    form({
      fields: [title],
      more: [visibility.element, h('label', { class: 'check' }, recording, h('span', {}, 'Record every broadcast, from the next one on.'))],
      submit: 'Save',
      kind: 'plain',
      label: 'Settings',
      send: async (values) => {
        const body = { title: values.title!.trim(), visibility: visibility.value(), recording: recording.checked };
        changed(await call<Managed>('PATCH', path, body));
        return 'Saved.';
      },
    }),
  );
}

const LINK_LIVES: readonly (readonly [string, string])[] = [
  ['3600', 'An hour'],
  ['21600', 'Six hours'],
  ['86400', 'A day'],
  ['604800', 'A week'],
  ['2592000', '30 days'],
];

/** Playback links, for listeners of a private channel who have no account. */
function linkPart(path: string): HTMLElement {
  const made = h('div', { class: 'made', role: 'status', 'aria-live': 'polite' });
  const life = choice({ name: 'expiresInS', label: 'How long does it work?', value: '86400', choices: LINK_LIVES });
  const part = section(
    'Playback links',
    'For people without an account. Anybody who has the link can listen until it expires; it cannot be revoked.',
    form({
      fields: [life],
      submit: 'Make a link',
      kind: 'plain',
      label: 'Playback links',
      send: async (values) => {
        const link = await callFresh<{ expiresAt: string; urls: { hls: string; dash: string; listen: string } }>('POST', `${path}/links`, {
          expiresInS: Number(values.expiresInS),
        });
        made.replaceChildren(
          h('p', {}, `It works until ${dateText(link.expiresAt)}.`),
          h(
            'ul',
            { class: 'elsewhere' },
            copyRow('For every player', link.urls.listen),
            copyRow('HLS', link.urls.hls),
            copyRow('DASH', link.urls.dash),
          ),
        );
      },
    }),
    made,
  );
  return part;
}

function deletePart(path: string, slug: string): HTMLElement {
  return section(
    'Delete',
    null,
    h('p', { class: 'state' }, 'Ends the broadcast and deletes the channel with all its recordings. This cannot be undone.'),
    actionButton(
      'Delete the channel',
      async () => {
        const sure = await confirmed({
          title: 'Delete the channel?',
          text: 'The broadcast ends, and the channel and its recordings are deleted. This cannot be undone.',
          action: 'Delete',
          word: slug,
        });
        if (!sure) return;
        await call('DELETE', path);
        location.assign('/channels');
      },
      { kind: 'danger' },
    ),
  );
}
