import { actionButton } from './ui/actions';
import { h } from './ui/dom';
import { problemOf } from './ui/forms';
import { pageHead, show } from './ui/page';
import { call, currentUser, onSession, type Problem, signOut } from './ui/session';

const FIRST_WAIT_MS = 2_000;
const LONGEST_WAIT_MS = 10_000;

/**
 * Mounts a page that needs a session. Without one it leads to the sign-in page and back; while the
 * server cannot be reached it keeps trying; without the right it says so and links on.
 */
export async function guarded(main: HTMLElement, mount: () => Promise<void>): Promise<void> {
  const isAccount = location.pathname.startsWith('/account');
  const whose = currentUser()?.email;
  const signIn = async () => {
    if (isAccount) (await import('./account/page')).mountSignIn(main);
    else location.replace(`/account?to=${encodeURIComponent(location.pathname)}`);
  };
  // The session changed: a sign-in, a sign-out, or another account, here or in another tab.
  onSession(() => {
    const now = currentUser()?.email;
    if (now === whose) return;
    if (now === undefined) void signIn();
    else if (whose === undefined) location.assign(pathAfter() ?? '/account');
    else location.reload();
  });
  if (whose === undefined) return signIn();

  for (let waitMs = FIRST_WAIT_MS; ; waitMs = Math.min(LONGEST_WAIT_MS, waitMs * 1.5)) {
    try {
      await mount();
      return;
    } catch (error) {
      const problem = problemOf(error);
      if (problem.status === 401) return;
      if (problem.status >= 400 && problem.status < 500 && problem.status !== 429) return refused(main, problem);
      const text =
        problem.status === 429 ? 'Too many requests. This page tries again in a moment.' : `${problem.message} This page keeps trying.`;
      main.replaceChildren(h('section', { class: 'notice', role: 'status' }, h('h1', {}, 'Connecting…'), h('p', {}, text)));
      await new Promise((resolve) => setTimeout(resolve, Math.max(waitMs, (problem.retryAfterS ?? 0) * 1000)));
    }
  }
}

/** The page to open after a sign-in: only a path of this site, whatever the address contains. */
function pathAfter(): string | undefined {
  const to = new URLSearchParams(location.search).get('to');
  return to !== null && /^\/(?:channels|admin|account|c)(?:\/[a-z0-9-]+){0,2}$/.test(to) ? to : undefined;
}

async function refused(main: HTMLElement, problem: Problem): Promise<void> {
  if (problem.code !== 'second_factor_missing') {
    const title = problem.status === 404 ? 'There is no such channel.' : 'This is not for your account.';
    const text = problem.status === 404 ? 'It may have been deleted, or you have no role in it. ' : 'If it should, ask an administrator. ';
    show(main, pageHead(title, h('p', {}, text, h('a', { href: '/channels' }, 'My channels'))));
    return;
  }
  const me = await call<{ secondFactor: { needed: boolean } }>('GET', '/me').catch(() => undefined);
  if (me?.secondFactor.needed !== false) {
    show(
      main,
      pageHead(
        'A second factor first',
        h('p', {}, 'Your role needs more than a password. Setting it up takes a minute and an authenticator app.'),
      ),
      h('p', {}, h('a', { href: '/account#second-factor', class: 'button primary' }, 'Set it up')),
    );
    return;
  }
  show(
    main,
    pageHead(
      'Sign in with your second factor',
      h('p', {}, 'You have signed in with your password only. This page also needs your passkey or a code.'),
    ),
    h(
      'p',
      {},
      actionButton(
        'Sign in again',
        async () => {
          const here = location.pathname;
          await signOut();
          location.assign(`/account?to=${encodeURIComponent(here)}`);
        },
        { kind: 'primary' },
      ),
    ),
  );
}
