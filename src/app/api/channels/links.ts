import { z } from 'zod';
import type { Channel, Channels } from '../../../access/channels.js';
import { type CloudFrontKey, cloudFrontCookies } from '../../../access/playback/cloudfront.js';
import { admitsCountry, type CountryRule } from '../../../access/playback/countries.js';
import type { LinkRight } from '../../../access/playback/ended-links.js';
import { DEFAULT_LINK_S, MAX_LINK_S, MIN_LINK_S, type PlaybackLink, type PlaybackLinks } from '../../../access/playback/playback-links.js';
import type { PlaybackKind } from '../../../access/playback/playback-token.js';
import type { Principal } from '../../../access/roles.js';
import type { Broadcasts } from '../../../library/broadcasts.js';
import { VezaError } from '../../../runtime/errors.js';
import { cookieName } from '../../playback/admission.js';
import { isoOf, type Operation, operation, type RequestOrigin } from '../openapi.js';
import { text } from '../request-schemas.js';
import { asNoRecording, assetParams, channelOfRecording, noRecording, recordingOf } from './broadcasts.js';
import { type Addresses, countrySchema, type LiveStatus, slugParams } from './channels.js';

const linkBody = z.strictObject({
  expiresInS: z.int().min(MIN_LINK_S).max(MAX_LINK_S).default(DEFAULT_LINK_S).meta({ description: 'Seconds until the link expires.' }),
  bind: z
    .strictObject({
      address: z
        .union([z.ipv4(), z.ipv6()])
        .optional()
        .meta({ description: 'The listener’s address; of an IPv6 address only the first 64 bits count.' }),
      country: countrySchema.optional(),
    })
    .optional()
    .meta({ description: 'The link works only from the address and in the country given here.' }),
  listener: text({ max: 128 }).optional().meta({
    description: 'Your own name for the listener. All links with the same name count as one listener (MAX_LISTENERS_PER_STREAM).',
  }),
});

/**
 * A link of at most a day needs no fresh sign-in: it ends by itself, and broadcasters' programs
 * issue many. A longer one is a right that nobody takes back.
 */
const MAX_UNASKED_LINK_S = 86_400;
const longLived = {
  when: 'the link is to last longer than a day',
  of: ({ expiresInS }: z.infer<typeof linkBody>) => expiresInS > MAX_UNASKED_LINK_S,
};

const cookieSchema = z
  .strictObject({
    name: z.string(),
    value: z.string(),
    path: z.string(),
    maxAgeS: z.int(),
    setCookie: z.array(z.string()).meta({ description: '`Set-Cookie` lines, for a page on the same site as the media.' }),
    cloudFront: z
      .array(z.strictObject({ name: z.string(), value: z.string() }))
      .nullable()
      .meta({ description: 'Signed cookies of CloudFront; null unless CloudFront is set up (CLOUDFRONT_KEY_PAIR_ID).' }),
  })
  .meta({
    id: 'PlaybackCookie',
    description: 'The same right as a cookie. The address has no token, so that a CDN keeps one copy for all listeners.',
  });

const channelUrls = z.strictObject({ hls: z.url(), dash: z.url(), listen: z.url() });
const assetUrls = z.strictObject({ hls: z.url(), dash: z.url() });
const linkSchema = <T extends z.ZodType>(urls: T) =>
  z.strictObject({
    token: z.string().meta({ description: 'Put it before a path: `/t/{token}/live/…`.' }),
    expiresAt: z.iso.datetime(),
    urls,
    cookie: cookieSchema,
  });
const channelLinkSchema = linkSchema(channelUrls).meta({ id: 'ChannelLink' });
const assetLinkSchema = linkSchema(assetUrls).meta({ id: 'AssetLink' });
const expiresAt = z.iso.datetime().nullable().meta({ description: 'When the addresses stop working; null: never.' });

/** Settings of playback links for the whole service. */
export interface LinkSettings {
  readonly maxListenersPerStream?: number | undefined;
  readonly cloudFront?: CloudFrontKey | undefined;
  /** Finds the country of an address, when there is a database for that. */
  readonly countryOfAddress?: ((address: string) => string | undefined) | undefined;
}

export interface LinkOperationsOptions {
  readonly channels: Pick<Channels, 'willBeLinked'>;
  readonly links: Pick<PlaybackLinks, 'issue'>;
  readonly broadcasts: Broadcasts;
  readonly live: LiveStatus;
  readonly addresses: Addresses;
  /**
   * Returns the channel if the principal may see it; with `asPrivate`, if they might even were it
   * private. Rejects with `not_found`.
   */
  readonly sees: (principal: Principal, slug: string, asPrivate?: boolean) => Promise<Channel>;
  readonly settings: LinkSettings;
}

/** Operations that issue playback links, to others and to oneself. */
export function linkOperations({ channels, links, broadcasts, live, addresses, sees, settings }: LinkOperationsOptions): Operation[] {
  const { publicUrl, mediaUrl } = addresses;
  const { maxListenersPerStream, cloudFront, countryOfAddress } = settings;

  const channelUrlsOf = (slug: string, token?: string) => {
    const prefix = token === undefined ? '' : `/t/${token}`;
    return {
      hls: `${mediaUrl}${prefix}/live/${slug}/master.m3u8`,
      dash: `${mediaUrl}${prefix}/live/${slug}/manifest.mpd`,
      listen: `${publicUrl}${prefix}/listen/${slug}.mp3`,
    };
  };
  const assetUrlsOf = (id: string, token?: string) => {
    const prefix = token === undefined ? '' : `/t/${token}`;
    return { hls: `${mediaUrl}${prefix}/vod/${id}/master.m3u8`, dash: `${mediaUrl}${prefix}/vod/${id}/manifest.mpd` };
  };

  /** The limit of listeners to put into a link. Throws `busy` when the channel has reached it. */
  const placesOf = (slug: string): number | undefined => {
    if (maxListenersPerStream !== undefined && live.status(slug).listeners >= maxListenersPerStream)
      throw new VezaError('busy', 'The channel has reached its limit of listeners (MAX_LISTENERS_PER_STREAM). Try again in a minute.');
    return maxListenersPerStream;
  };

  const cookieOf = (
    kind: PlaybackKind,
    name: string,
    { token, expiresAtMs }: PlaybackLink,
    maxAgeS: number,
    address: string | undefined,
  ) => {
    const path = `/${kind}/${name}/`;
    const ofCloudFront = cloudFront
      ? cloudFrontCookies(cloudFront, {
          resource: `${mediaUrl}${path}*`,
          expiresAtMs,
          // CloudFront knows IPv4 only; an IPv6 listener is bound by the token alone.
          address: address?.includes(':') ? undefined : address,
        })
      : undefined;
    const terms = `; Path=${path}; Max-Age=${maxAgeS}${mediaUrl.startsWith('https:') ? '; Secure' : ''}; HttpOnly; SameSite=Lax`;
    const cookies = [{ name: cookieName(kind, name), value: token }, ...(ofCloudFront ?? [])];
    return {
      name: cookieName(kind, name),
      value: token,
      path,
      maxAgeS,
      setCookie: cookies.map((cookie) => `${cookie.name}=${cookie.value}${terms}`),
      cloudFront: ofCloudFront ?? null,
    };
  };

  const blocked = () =>
    new VezaError('country_blocked', 'The channel is restricted by country, and the listener’s country is not allowed or unknown.');
  /**
   * Refuses a link for a listener who is known to be in a blocked country. When the country is
   * unknown, it is checked at playback.
   */
  const checkBound = (rule: CountryRule, bind: z.infer<typeof linkBody>['bind']) => {
    if (bind?.country !== undefined && !admitsCountry(rule, bind.country)) throw blocked();
    if (bind?.address !== undefined && countryOfAddress && !admitsCountry(rule, countryOfAddress(bind.address))) throw blocked();
  };
  const checkHere = (rule: CountryRule, client: RequestOrigin) => {
    if (!admitsCountry(rule, client.country)) throw blocked();
  };
  /** All links of one session count as one listener. */
  const listenerOf = (principal: Principal) => `principal:${principal.sessionId ?? principal.id}`;
  const makerOf = ({ accountId }: Principal, right: LinkRight) => (accountId === undefined ? undefined : { accountId, right });
  const ownOf = (principal: Principal) => ({ listener: listenerOf(principal), maker: makerOf(principal, 'play') });

  return [
    operation({
      id: 'issueChannelLink',
      method: 'post',
      path: '/channels/{slug}/links',
      summary: 'Issues a playback link to a channel for one listener.',
      description: 'With the addresses (or the cookie) in the answer, the listener hears the channel until the link expires.',
      access: 'channel.links',
      wantsFreshSignIn: longLived,
      params: slugParams,
      body: linkBody,
      status: 201,
      answer: channelLinkSchema,
      errors: ['not_found', 'busy', 'country_blocked'],
      async handle({ body, channel, principal, audit, created }) {
        const { slug, countries } = channel;
        const { expiresInS, bind } = body;
        const listener = body.listener === undefined ? undefined : `named:${body.listener}`;
        checkBound(countries, bind);
        const limit = placesOf(slug);
        await channels.willBeLinked(channel, expiresInS);
        const link = await links.issue({ kind: 'live', name: slug, expiresInS, bind, listener, limit, maker: makerOf(principal, 'links') });
        audit({ details: { expiresAt: isoOf(link.expiresAtMs), ...(bind && { bind }) } });
        const urls = channelUrlsOf(slug, link.token);
        created(urls.hls);
        return {
          token: link.token,
          expiresAt: isoOf(link.expiresAtMs),
          urls,
          cookie: cookieOf('live', slug, link, expiresInS, bind?.address),
        };
      },
    }),
    operation({
      id: 'issueAssetLink',
      method: 'post',
      path: '/assets/{id}/links',
      summary: 'Issues a playback link to a recording for one listener.',
      access: 'channel.links',
      wantsFreshSignIn: longLived,
      params: assetParams,
      body: linkBody,
      status: 201,
      answer: assetLinkSchema,
      errors: ['not_found', 'country_blocked'],
      channelOf: ({ id }) => channelOfRecording(broadcasts, id),
      async handle({ params, body, channel, principal, audit, created }) {
        const { expiresInS, bind } = body;
        const listener = body.listener === undefined ? undefined : `named:${body.listener}`;
        checkBound(channel.countries, bind);
        const link = await links.issue({ kind: 'vod', name: params.id, expiresInS, bind, listener, maker: makerOf(principal, 'links') });
        audit({ target: `recording:${params.id}`, details: { expiresAt: isoOf(link.expiresAtMs), ...(bind && { bind }) } });
        const urls = assetUrlsOf(params.id, link.token);
        created(urls.hls);
        return {
          token: link.token,
          expiresAt: isoOf(link.expiresAtMs),
          urls,
          cookie: cookieOf('vod', params.id, link, expiresInS, bind?.address),
        };
      },
    }),
    operation({
      id: 'playChannel',
      method: 'post',
      path: '/channels/{slug}/play',
      summary: 'Gives the caller addresses for listening to a channel.',
      description: 'The addresses of a private channel expire; ask again before that.',
      access: 'anyone',
      params: slugParams,
      status: 200,
      answer: z.strictObject({ ...channelUrls.shape, expiresAt }),
      errors: ['not_found', 'busy', 'country_blocked'],
      unaudited: true,
      async handle({ params, principal, client }) {
        const { slug, visibility, countries } = await sees(principal, params.slug);
        checkHere(countries, client);
        if (visibility !== 'private') return { ...channelUrlsOf(slug), expiresAt: null };
        const request = { kind: 'live', name: slug, expiresInS: DEFAULT_LINK_S, ...ownOf(principal) } as const;
        const link = await links.issue({ ...request, limit: placesOf(slug) });
        return { ...channelUrlsOf(slug, link.token), expiresAt: isoOf(link.expiresAtMs) };
      },
    }),
    operation({
      id: 'playAsset',
      method: 'post',
      path: '/assets/{id}/play',
      summary: 'Gives the caller addresses for listening to a recording.',
      access: 'anyone',
      params: assetParams,
      status: 200,
      answer: z.strictObject({ ...assetUrls.shape, expiresAt }),
      errors: ['not_found', 'country_blocked'],
      unaudited: true,
      async handle({ params, principal, client }) {
        const recording = await recordingOf(broadcasts, params.id);
        if (!recording) throw noRecording();
        const isPrivate = recording.visibility === 'private';
        // A public recording of a private channel still has the channel's country rule.
        const channel = await (isPrivate ? sees(principal, recording.channel, true).catch(asNoRecording) : undefined);
        const countries = channel?.countries ?? recording.countries;
        checkHere(countries, client);
        if (!isPrivate) return { ...assetUrlsOf(params.id), expiresAt: null };
        const link = await links.issue({ kind: 'vod', name: params.id, expiresInS: DEFAULT_LINK_S, ...ownOf(principal) });
        return { ...assetUrlsOf(params.id, link.token), expiresAt: isoOf(link.expiresAtMs) };
      },
    }),
  ];
}
