import type { User } from './session';

export const ROLE_TEXTS: Readonly<Record<User['role'], string>> = {
  listener: 'Listener: hears channels.',
  broadcaster: 'Broadcaster: makes their own channels.',
  moderator: 'Moderator: sees every channel, bans accounts.',
  admin: 'Administrator: may do everything.',
};

/** A user agent in words: `Firefox on Linux`; an unknown one as it is. */
export function clientText(agent: string): string {
  const browser = /(Edg|OPR|Firefox|Chrome|Safari)\/[\d.]+/.exec(agent.replace(/HeadlessChrome/, 'Chrome'))?.[1];
  const system = /(Android|iPhone|iPad|Windows|Mac OS X|CrOS|Linux)/.exec(agent)?.[1];
  if (!browser) return agent.slice(0, 60) || 'Unknown program';
  const name = { Edg: 'Edge', OPR: 'Opera' }[browser] ?? browser;
  return system ? `${name} on ${system === 'Mac OS X' ? 'macOS' : system}` : name;
}
