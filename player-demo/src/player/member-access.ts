import { ApiError, type ChannelJson } from '../ui/api';
import { call, Problem } from '../ui/session';

/** The address at which one listener can play a private channel, and its expiry. */
export interface SignedAddress {
  /** Address without the final `/master.m3u8`. */
  readonly base: string;
  readonly untilMs: number;
}

/**
 * Access to a private channel for a person with a role in it. Both methods reject with `ApiError`.
 */
export interface MemberAccess {
  getChannel(): Promise<ChannelJson>;
  address(): Promise<SignedAddress>;
}

export function memberAccess(slug: string): MemberAccess {
  const path = `/channels/${encodeURIComponent(slug)}`;
  const asMember = <T>(method: string, at: string) =>
    call<T>(method, at).catch((error) => {
      throw error instanceof Problem ? new ApiError(error.status, at) : error;
    });
  return {
    getChannel: () => asMember<ChannelJson>('GET', path),
    async address() {
      const { hls, listen, expiresAt } = await asMember<{ hls: string; listen: string; expiresAt: string | null }>('POST', `${path}/play`);
      return { base: baseOf(hls, listen), untilMs: expiresAt === null ? Number.POSITIVE_INFINITY : Date.parse(expiresAt) };
    },
  };
}

/**
 * Media is played from the page's own origin unless it comes from a CDN: the service may not know
 * the name under which the page was loaded.
 */
function baseOf(hls: string, listen: string): string {
  const media = new URL(hls);
  const path = media.pathname.replace(/\/master\.m3u8$/, '');
  return media.origin === new URL(listen).origin ? path : media.origin + path;
}
