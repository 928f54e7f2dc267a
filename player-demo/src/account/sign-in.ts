import { actionButton } from '../ui/actions';
import { h } from '../ui/dom';
import { codeField, type Field, field, form, newPassword } from '../ui/forms';
import { pageHead, show } from '../ui/page';
import { begin, callOpenly, type Problem, type User } from '../ui/session';
import { passkeysWork, signInWithPasskey } from './passkeys';

const emailField = (value = ''): Field =>
  field({
    name: 'email',
    label: 'E-mail',
    type: 'email',
    autocomplete: 'username',
    inputmode: 'email',
    maxlength: 254,
    value,
    spellcheck: false,
  });

/** The page for somebody who is not signed in. After a sign-in `guarded` leads on. */
export class SignIn {
  readonly #main: HTMLElement;
  #email = '';

  constructor(main: HTMLElement) {
    this.#main = main;
  }

  /**
   * Shows the form that the address asks for: a mail's link, `#register`, `#forgotten`, or signing
   * in.
   */
  open(): void {
    const given = new URLSearchParams(location.hash.slice(1));
    const token = given.get('token');
    if (token !== null) {
      // Keeps the token out of the history and off a shared screen. It stays good until it is used.
      history.replaceState(null, '', location.pathname + location.search);
      if (given.get('for') === 'confirmation') this.#confirmation(token);
      else this.#choosePassword(token, given.get('for') === 'invitation');
    } else if (given.has('register')) this.#register();
    else if (given.has('forgotten')) this.#forgotten();
    else this.signIn();
    window.addEventListener('hashchange', () => this.open(), { once: true });
  }

  /** Shows the form for signing in; `text` says what has just happened. */
  signIn(text = ''): void {
    const email = emailField(this.#email);
    const password = field({ name: 'password', label: 'Password', type: 'password', autocomplete: 'current-password' });
    const code = codeField('code', 'Code', 'Six digits of your authenticator app, or a recovery code.');
    code.element.hidden = true;
    const note = h('p', { class: 'form-note wrong', role: 'status', 'aria-live': 'polite' });
    const signIn = form({
      fields: [email, password, code],
      submit: 'Sign in',
      label: 'Sign in',
      beside: [this.#link('#forgotten', 'Forgotten password')],
      send: async (values) => {
        this.#email = values.email!.trim();
        const wantsCode = !code.element.hidden;
        const body = { email: this.#email, password: values.password, ...(wantsCode ? { code: values.code!.trim() } : {}) };
        begin(await callOpenly<{ accessToken: string; expiresIn: number; refreshToken: string; user: User }>('POST', '/auth/login', body));
      },
      fieldOf: ({ code }) => (code === 'invalid_credentials' ? 'password' : undefined),
      onProblem: (problem) => this.#askForCode(problem, code),
    });
    const passkey = passkeysWork()
      ? h('div', { class: 'or' }, actionButton('Sign in with a passkey', signInWithPasskey, { note }), note)
      : null;
    show(
      this.#main,
      pageHead('Sign in', text === '' ? null : h('p', { class: 'said', role: 'status' }, text)),
      h('div', { class: 'narrow' }, signIn, passkey, h('p', { class: 'aside' }, 'No account yet? ', this.#link('#register', 'Register'))),
    );
    (this.#email === '' ? email : password).input.focus({ preventScroll: true });
  }

  /** Adds a field for the code. The form stays, and with it what was typed. */
  #askForCode(problem: Problem, code: Field): boolean {
    if (problem.code !== 'second_factor_required') return false;
    const again = !code.element.hidden;
    code.element.hidden = false;
    if (again) code.error(problem.message);
    if (again) (code.input as HTMLInputElement).select();
    code.input.focus();
    return true;
  }

  #register(): void {
    const name = field({ name: 'name', label: 'Name', autocomplete: 'name', maxlength: 100, hint: 'Other people see this name.' });
    const email = emailField(this.#email);
    const password = newPassword('password', 'Password');
    show(
      this.#main,
      pageHead('Register'),
      h(
        'div',
        { class: 'narrow' },
        form({
          fields: [name, email, password],
          submit: 'Make an account',
          label: 'Register',
          send: async (values) => {
            this.#email = values.email!.trim();
            await callOpenly('POST', '/auth/register', { name: values.name, email: this.#email, password: values.password });
            this.#to('');
            this.signIn('Your account is made. If you get a mail from us, follow the link in it first; then sign in.');
          },
          fieldOf: ({ code }) => (code === 'bad_request' ? 'password' : undefined),
        }),
        h('p', { class: 'aside' }, 'You have an account? ', this.#link('#', 'Sign in')),
      ),
    );
    name.input.focus({ preventScroll: true });
  }

  #forgotten(): void {
    const email = emailField(this.#email);
    show(
      this.#main,
      pageHead('Forgotten password', h('p', {}, 'We send you a link for choosing a new one. It works for an hour.')),
      h(
        'div',
        { class: 'narrow' },
        form({
          fields: [email],
          submit: 'Send the link',
          label: 'Forgotten password',
          send: async (values) => {
            this.#email = values.email!.trim();
            const { message } = await callOpenly<{ message: string }>('POST', '/auth/recover', { email: this.#email });
            return `${message} No mail? Look in your spam folder, or ask an administrator for a link.`;
          },
        }),
        h('p', { class: 'aside' }, this.#link('#', 'Back to sign in')),
      ),
    );
    email.input.focus({ preventScroll: true });
  }

  #choosePassword(token: string, isInvitation: boolean): void {
    const password = newPassword('newPassword', isInvitation ? 'Password' : 'New password');
    const text = isInvitation
      ? 'Choose a password to open your account. Then sign in with it and the e-mail address that got this link.'
      : 'This signs you out everywhere else.';
    show(
      this.#main,
      pageHead(isInvitation ? 'Welcome' : 'A new password', h('p', {}, text)),
      h(
        'div',
        { class: 'narrow' },
        form({
          fields: [password],
          submit: 'Set the password',
          label: 'Set a password',
          send: async ({ newPassword }) => {
            await callOpenly('POST', '/auth/reset', { token, newPassword });
            this.signIn('Your password is set. Sign in with it.');
          },
          fieldOf: ({ code }) => (code === 'bad_request' ? 'newPassword' : undefined),
          onProblem: (problem) => this.#isOver(problem),
        }),
      ),
    );
    password.input.focus({ preventScroll: true });
  }

  /** Confirming needs a click: programs that scan mail follow links too. */
  #confirmation(token: string): void {
    const password = field({ name: 'password', label: 'Password', type: 'password', autocomplete: 'current-password' });
    show(
      this.#main,
      pageHead('One more step', h('p', {}, 'To confirm your e-mail address, type the password that you chose when you registered.')),
      h(
        'div',
        { class: 'narrow' },
        form({
          fields: [password],
          submit: 'Confirm my address',
          label: 'Confirm',
          beside: [this.#link('#forgotten', 'Forgotten password')],
          send: async (values) => {
            await callOpenly('POST', '/auth/confirm', { token, password: values.password });
            this.signIn('Your address is confirmed. Sign in.');
          },
          fieldOf: ({ code }) => (code === 'invalid_credentials' ? 'password' : undefined),
          onProblem: (problem) => this.#isOver(problem),
        }),
      ),
    );
    password.input.focus({ preventScroll: true });
  }

  #isOver(problem: Problem): boolean {
    if (problem.code !== 'not_found') return false;
    show(
      this.#main,
      pageHead('This link is over', h('p', {}, 'It was used, it has expired, or a newer link was sent.')),
      h('div', { class: 'narrow' }, h('p', {}, this.#link('#forgotten', 'Get a new link'), ' or ', this.#link('#', 'sign in'), '.')),
    );
    return true;
  }

  #link(hash: string, text: string): HTMLAnchorElement {
    const link = h('a', { href: hash }, text);
    link.addEventListener('click', (event) => {
      event.preventDefault();
      this.#email = this.#main.querySelector<HTMLInputElement>('input[name="email"]')?.value.trim() ?? this.#email;
      this.#to(hash);
      if (hash === '#register') this.#register();
      else if (hash === '#forgotten') this.#forgotten();
      else this.signIn();
    });
    return link;
  }

  #to(hash: string): void {
    history.pushState(null, '', location.pathname + location.search + (hash === '#' ? '' : hash));
  }
}
