import './ui/base.css';
import './ui/page.css';
import './ui/forms.css';
import './ui/rows.css';
import { accountMenu } from './account/menu';
import { guarded } from './guarded';
import { mountList } from './player/channel-list';
import { mountChannel } from './player/channel-page';
import { memberAccess } from './player/member-access';
import { ApiError, type ChannelJson, getChannel, listChannels, repeat } from './ui/api';
import { h } from './ui/dom';
import { currentUser } from './ui/session';

/** Statuses that asking again would not change. */
const FINAL_STATUS = new Set([401, 403, 404, 451]);
let refusedWith = 0;

/**
 * One document serves every path. A link loads a page: a page is one player, and leaving it ends
 * it.
 */
const app = document.getElementById('app')!;
const main = h('main');
app.append(h('header', { class: 'masthead' }, h('a', { href: '/', class: 'wordmark' }, 'Veza'), accountMenu()), main);

const path = location.pathname.replace(/\/$/, '');
const channel = /^\/c\/([^/]+)$/.exec(path)?.[1];
const recording = /^\/r\/([^/]+)$/.exec(path)?.[1];
const managed = /^\/channels\/([^/]+)$/.exec(path)?.[1];
const desk = /^\/channels\/([^/]+)\/chat$/.exec(path)?.[1];
app.classList.toggle('wide', managed !== undefined || desk !== undefined);
if (channel !== undefined) void onePage(decodeURIComponent(channel));
else if (recording !== undefined)
  void import('./player/recording-page').then(({ mountRecording }) => mountRecording(main, decodeURIComponent(recording)));
// The pages of listeners load none of these modules.
else if (path === '/account') void guarded(main, async () => (await import('./account/page')).mountAccount(main));
else if (path === '/channels') void guarded(main, async () => (await import('./account/channels-page')).mountChannels(main));
else if (desk !== undefined) void guarded(main, async () => (await import('./desk/page')).mountDesk(main, decodeURIComponent(desk)));
else if (managed !== undefined)
  void guarded(main, async () => (await import('./account/channel-manage')).mountManaged(main, decodeURIComponent(managed)));
else if (path === '/admin' || path === '/admin/audit') void guarded(main, async () => (await import('./admin/page')).mountAdmin(main));
else void open(listChannels).then((channels) => home(channels ?? []));

/**
 * Shows one channel. The API hides a private channel from requests without a member's token, so the
 * page of a signed-in person asks again with theirs.
 */
async function onePage(slug: string): Promise<void> {
  const heardByAll = await open(() => getChannel(slug));
  if (heardByAll) return mountChannel(main, heardByAll, { standalone: true });
  if (currentUser()) {
    const member = memberAccess(slug);
    const found = await open(member.getChannel);
    const address = found && (await open(member.address));
    if (found && address) return mountChannel(main, found, { standalone: true, member, address });
  }
  if (refusedWith === 451) return message('You cannot listen in your country.', 'This channel is available only in some countries.');
  message('There is no such channel.', 'The address may be old, or the channel may be private: then sign in as one of its members.');
}

function home(channels: ChannelJson[]): void {
  const onAir = channels.filter((channel) => channel.state !== 'offline');
  const featured = channels.length === 1 ? channels[0] : onAir.length === 1 ? onAir[0] : undefined;
  if (featured) mountChannel(main, featured, { standalone: channels.length === 1 });
  if (channels.length > 1) mountList(main, channels);
  if (channels.length === 0) message('No channels yet.', 'A channel appears here as soon as one is created.');
}

function message(title: string, text: string): void {
  main.replaceChildren(h('section', { class: 'notice' }, h('h1', {}, title), h('p', {}, text)));
}

/**
 * Gets the first answer of the API and retries while the server cannot be reached. Undefined: the
 * API says that there is nothing.
 */
function open<T>(ask: () => Promise<T>): Promise<T | undefined> {
  return new Promise((resolve) => {
    let waitMs = 1_000;
    const stop = repeat(async () => {
      try {
        resolve(await ask());
        queueMicrotask(() => stop());
      } catch (error) {
        if (error instanceof ApiError && FINAL_STATUS.has(error.status)) {
          refusedWith = error.status;
          resolve(undefined);
          queueMicrotask(() => stop());
        } else if (error instanceof ApiError && (error.status === 503 || error.status === 429))
          message('One moment.', 'The server or this channel is full right now. This page keeps trying.');
        else message('Connecting…', 'The server does not answer yet. This page keeps trying.');
      }
      waitMs = Math.min(5_000, waitMs * 1.5);
      return waitMs;
    });
  }).then((value) => {
    main.replaceChildren();
    return value as T | undefined;
  });
}
