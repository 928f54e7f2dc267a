import { ApiError, type Channel } from '../ui/api';
import { call, Problem } from '../ui/session';

/** Where a private channel plays for one listener, and until when. */
export interface SignedAddress {
  /** Before `/master.m3u8`. */
  readonly base: string;
  readonly untilMs: number;
}

/** A private channel as somebody with a role in it hears it. Both reject with `ApiError`. */
export interface MemberAccess {
  getChannel(): Promise<Channel>;
  address(): Promise<SignedAddress>;
}

export function memberAccess(slug: string): MemberAccess {
  const path = `/channels/${encodeURIComponent(slug)}`;
  const asMember = <T>(method: string, at: string) =>
    call<T>(method, at).catch((error) => {
      throw error instanceof Problem ? new ApiError(error.status, at) : error;
    });
  return {
    getChannel: () => asMember<Channel>('GET', path),
    async address() {
      const { hls, listen, expiresAt } = await asMember<{ hls: string; listen: string; expiresAt: string | null }>('POST', `${path}/play`);
      return { base: baseOf(hls, listen), untilMs: expiresAt === null ? Number.POSITIVE_INFINITY : Date.parse(expiresAt) };
    },
  };
}

/** Unless media comes from somewhere else (a CDN), from where the page came: that may have a name which the service does not know. */
function baseOf(hls: string, listen: string): string {
  const media = new URL(hls);
  const path = media.pathname.replace(/\/master\.m3u8$/, '');
  return media.origin === new URL(listen).origin ? path : media.origin + path;
}
