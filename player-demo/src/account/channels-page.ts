import './account.css';
import type { ChannelJson } from '../ui/api';
import { h } from '../ui/dom';
import { type Field, field, form } from '../ui/forms';
import { pageHead, section, show } from '../ui/page';
import { call, callAll, currentUser } from '../ui/session';
import { type Managed, mountManaged, type StreamKey } from './channel-manage';
import { type VisibilityJson, visibilityChoice } from './channel-visibility';

interface MyChannel extends ChannelJson {
  readonly role: 'owner' | 'host' | 'moderator';
  readonly visibility: VisibilityJson;
}

const ROLE_WORDS = { owner: 'yours', host: 'you are a host', moderator: 'you moderate' } as const;

/** Shows `/channels`: the channels in which the person has a role, and a form for a new one. */
export async function mountChannels(main: HTMLElement): Promise<void> {
  const channels = await callAll<MyChannel>('/me/channels');
  const user = currentUser();
  const mayMake = user?.role === 'broadcaster' || user?.role === 'admin';
  const rows = channels.map((channel) => {
    const onAir = channel.state !== 'offline';
    return h(
      'li',
      {},
      h(
        'a',
        { href: `/channels/${channel.slug}` },
        h('span', { class: onAir ? 'dot on' : 'dot' }),
        h('span', { class: 'channels-title' }, channel.title),
        h('span', { class: 'channels-now' }, `${onAir ? 'On air' : 'Off air'} · ${channel.visibility} · ${ROLE_WORDS[channel.role]}`),
        h('span', { class: 'channels-listeners' }, onAir ? `${channel.listeners} listening` : ''),
      ),
    );
  });
  const empty = mayMake
    ? 'No channel yet. Make one below: you get a stream key, type it into OBS, BUTT or Mixxx, and are on air.'
    : 'No channel yet. Your account can only listen: ask an administrator to make you a broadcaster, or the owner of a channel to add you to it.';
  show(
    main,
    pageHead('My channels'),
    rows.length > 0 ? h('ul', { class: 'channels' }, ...rows) : h('p', { class: 'none' }, empty),
    mayMake ? newChannelPart(main) : null,
  );
}

function newChannelPart(main: HTMLElement): HTMLElement {
  const title = field({ name: 'title', label: 'Title', maxlength: 200, spellcheck: true });
  const slug: Field = field({
    name: 'slug',
    label: 'Address',
    maxlength: 63,
    spellcheck: false,
    hint: `${location.host}/c/… · lower-case letters, digits, hyphens; it cannot be changed.`,
    check: (value) =>
      /^[a-z0-9][a-z0-9-]{1,62}$/.test(value) ? undefined : '2 to 63 lower-case letters, digits and hyphens, with a letter or digit first.',
  });
  // The address is made from the title until the person types one.
  let own = false;
  slug.input.addEventListener('input', () => {
    own = slug.value() !== '';
  });
  title.input.addEventListener('input', () => {
    if (!own) slug.input.value = slugOf(title.value());
  });
  const visibility = visibilityChoice('public');
  return section(
    'A new channel',
    'Its stream key is shown only once, as soon as it is made.',
    form({
      fields: [title, slug],
      more: [visibility.element],
      submit: 'Make the channel',
      label: 'A new channel',
      send: async (values) => {
        const made = await call<{ channel: Managed; streamKey: string; ingest: StreamKey['ingest'] }>('POST', '/channels', {
          slug: values.slug,
          title: values.title!.trim(),
          visibility: visibility.value(),
        });
        history.pushState(null, '', `/channels/${made.channel.slug}`);
        window.addEventListener('popstate', () => location.reload(), { once: true });
        await mountManaged(main, made.channel.slug, { streamKey: made.streamKey, ingest: made.ingest });
      },
      fieldOf: ({ code }) => (code === 'conflict' ? 'slug' : undefined),
    }),
  );
}

/** "Café del Mar" → "cafe-del-mar". */
const slugOf = (title: string): string =>
  title
    .normalize('NFKD')
    .toLowerCase()
    .replaceAll(/\p{M}/gu, '')
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replaceAll(/^-+|-+$/g, '')
    .slice(0, 63);
