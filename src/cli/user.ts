import { type CallApi, type CommandOutput, everything, Failure } from './command.js';

export const USER_USAGE = `  user create EMAIL [--name TEXT] [--role listener|broadcaster|moderator|admin]
                               prints a link with which the owner chooses a password
  user list [--query TEXT]
  user set-role EMAIL ROLE     ends the account's sessions
  user link EMAIL              a new link to choose a password; older ones are void
  user ban EMAIL [--reason TEXT]
  user unban EMAIL
  user delete EMAIL [--channels keep|delete]
                               keep: the account's channels stay without an owner`;

export const USER_OPTIONS = {
  name: { type: 'string' },
  role: { type: 'string' },
  query: { type: 'string' },
  reason: { type: 'string' },
  channels: { type: 'string' },
} as const;

interface UserValues {
  name?: string | undefined;
  role?: string | undefined;
  query?: string | undefined;
  reason?: string | undefined;
  channels?: string | undefined;
}

interface ShownAccount {
  id: string;
  email: string;
  name: string;
  role: string;
  state: string;
}

interface AccountLinkJson {
  link: string;
  linkExpiresAt: string;
}

interface UserCommand {
  /** The positional arguments. */
  readonly takes: readonly string[];
  run(call: CallApi, args: readonly string[], values: UserValues): Promise<CommandOutput>;
}

export const USER_COMMANDS: Readonly<Record<string, UserCommand>> = {
  'user create': {
    takes: ['EMAIL'],
    async run(call, [email], { name, role }) {
      const body = { email, name: name ?? email!.split('@')[0]!.slice(0, 64), role };
      const { account, link, linkExpiresAt } = await call<{ account: ShownAccount } & AccountLinkJson>('POST', '/accounts', body);
      return { json: { account, link, linkExpiresAt }, text: `${described(account)}\n${toOpen({ link, linkExpiresAt })}` };
    },
  },
  'user list': {
    takes: [],
    async run(call, _args, { query }) {
      const accounts = await everything<ShownAccount>(call, `/accounts${query === undefined ? '' : `?query=${encodeURIComponent(query)}`}`);
      if (accounts.length === 0) return { json: accounts, text: 'There is no such account. Make one: veza user create EMAIL\n' };
      const width = Math.max(...accounts.map(({ email }) => email.length));
      const row = (email: string, role: string, state: string, name: string) =>
        `${email.padEnd(width)}  ${role.padEnd(11)}  ${state.padEnd(11)}  ${name}\n`;
      const rows = accounts.map(({ email, role, state, name }) => row(email, role, state, name));
      return { json: accounts, text: row('e-mail', 'role', 'state', 'name') + rows.join('') };
    },
  },
  'user set-role': {
    takes: ['EMAIL', 'ROLE'],
    async run(call, [email, role]) {
      const account = await call<ShownAccount>('PATCH', await accountPath(call, email!), { role });
      return { json: account, text: described(account) };
    },
  },
  'user link': {
    takes: ['EMAIL'],
    async run(call, [email]) {
      const shown = await call<AccountLinkJson>('POST', `${await accountPath(call, email!)}/link`);
      return { json: shown, text: toOpen(shown) };
    },
  },
  'user ban': {
    takes: ['EMAIL'],
    async run(call, [email], { reason }) {
      const account = await call<ShownAccount>('POST', `${await accountPath(call, email!)}/ban`, { reason });
      return { json: account, text: described(account) };
    },
  },
  'user unban': {
    takes: ['EMAIL'],
    async run(call, [email]) {
      const account = await call<ShownAccount>('POST', `${await accountPath(call, email!)}/unban`);
      return { json: account, text: described(account) };
    },
  },
  'user delete': {
    takes: ['EMAIL'],
    async run(call, [email], { channels }) {
      const path = await accountPath(call, email!);
      await call('DELETE', `${path}${channels === undefined ? '' : `?channels=${encodeURIComponent(channels)}`}`);
      return { json: { email, deleted: true }, text: `${email} is deleted.\n` };
    },
  },
};

/** The API path of the account with this address. Rejects with `Failure` if there is none. */
export async function accountPath(call: CallApi, email: string): Promise<string> {
  if (!email.includes('@')) throw new Failure(2, `"${email}" is not an e-mail address`);
  // A query that is an address returns at most the account with that address.
  const { items } = await call<{ items: ShownAccount[] }>('GET', `/accounts?query=${encodeURIComponent(email)}&limit=1`);
  if (!items[0]) throw new Failure(1, `there is no account with the address ${email}`);
  return `/accounts/${items[0].id}`;
}

const described = ({ email, name, role, state }: ShownAccount) => `${email} (${name}): ${role}, ${state}\n`;

const toOpen = ({ link, linkExpiresAt }: AccountLinkJson) =>
  `This link works once, until ${linkExpiresAt}. The person who opens it chooses the password:\n\n  ${link}\n`;
