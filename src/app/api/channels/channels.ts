import { z } from 'zod';
import { type Channel, type ChannelChanges, type Channels, MAX_TITLE_CHARS, SLUG, VISIBILITIES } from '../../../access/channels.js';
import { COUNTRIES } from '../../../access/playback/countries.js';
import { may, type Principal } from '../../../access/roles.js';
import { isSeen } from '../../../access/shown-text.js';
import { VezaError } from '../../../runtime/errors.js';
import type { PublicReads } from '../../http/public-reads.js';
import { isoOf, type Operation, operation, page, pageOf, pageQuery, positionOf } from '../openapi.js';
import { PATTERNS, text } from '../request-schemas.js';
import { channelRoleSchema } from '../role-schemas.js';

/** The part of the live room that the API uses. */
export interface LiveStatus {
  status(slug: string): ChannelStatusAnswer;
  /** Ends the broadcast for good, even with a broadcaster connected. False: there was none. */
  end(slug: string): Promise<boolean>;
  /** Sets the title that listeners are shown from now on. False: the channel is off air. */
  nowPlaying(slug: string, update: { title: string; artist?: string }): Promise<boolean> | boolean;
}

export interface ChannelStatusAnswer {
  /** `holding`: the broadcaster's connection is lost, and listeners hear the fill. */
  readonly state: 'offline' | 'live' | 'holding';
  /** Estimated number of listeners. */
  readonly listeners: number;
  readonly nowPlaying: { readonly title: string; readonly artist?: string; readonly startWallMs: number } | undefined;
  /** Start of the broadcast; undefined when offline. */
  readonly startWallMs?: number | undefined;
  readonly broadcastId?: string | undefined;
}

/** The addresses at which broadcasters and listeners find this service. */
export interface Addresses {
  /** Has no slash at the end. */
  publicUrl: string;
  /** Base address of media: `publicUrl`, unless media comes from a CDN. */
  mediaUrl: string;
  rtmpPort: number;
  rtmpsPort: number | undefined;
  ingestPort: number;
}

export const slugSchema = text({ min: 2, max: 63, pattern: SLUG.source });
export const slugParams = z.strictObject({ slug: slugSchema });
export const titleSchema = text({
  max: MAX_TITLE_CHARS,
  pattern: PATTERNS.plainLine,
  trimmed: true,
  also: { isGood: isSeen, message: 'has no visible character' },
  description: 'One line with at least one visible character, without characters that change the direction of text.',
});
/**
 * Titles come from tags of music files, where direction marks are common; they are in no list of
 * channels.
 */
const songSchema = text({ max: MAX_TITLE_CHARS, pattern: PATTERNS.song, trimmed: true });
export const visibilitySchema = z.enum(VISIBILITIES).meta({
  id: 'Visibility',
  description:
    '`public`: in the list of channels; `unlisted`: for everybody who knows the address; `private`: only for people with the right or a playback link.',
});
export const countrySchema = z
  .enum(COUNTRIES as [string, ...string[]])
  .meta({ id: 'Country', description: 'Country code of ISO 3166-1: two capital letters.' });

const channelShape = {
  slug: z.string(),
  title: z.string(),
  visibility: visibilitySchema,
  recording: z.boolean(),
  countriesAllowed: z.array(countrySchema).nullable(),
  countriesDenied: z.array(countrySchema).nullable(),
  createdAt: z.iso.datetime(),
  state: z
    .enum(['offline', 'live', 'holding'])
    .meta({ description: '`holding`: the broadcaster has lost the connection and may come back.' }),
  listeners: z.int().min(0),
  startedAt: z.iso.datetime().nullable().meta({ description: 'Start of the current broadcast; null off air.' }),
  broadcastId: z.string().nullable(),
  nowPlaying: z
    .strictObject({ title: z.string(), artist: z.string().nullable(), startedAt: z.iso.datetime() })
    .meta({ id: 'NowPlaying' })
    .nullable(),
  urls: z.strictObject({ page: z.url(), hls: z.url(), dash: z.url(), listen: z.url() }),
};
export const channelSchema = z.strictObject(channelShape).meta({ id: 'Channel' });
/** A channel, with the principal's role in it. */
export const myChannelSchema = z.strictObject({ ...channelShape, role: channelRoleSchema }).meta({ id: 'MyChannel' });

/** A longer list than that of all countries must be a mistake. */
const countriesSchema = z.array(countrySchema).min(1).max(COUNTRIES.length).nullable();

const ingestSchema = z
  .strictObject({
    rtmp: z.string().meta({ description: 'Enter it as the server in OBS; the stream key has a field of its own.' }),
    rtmps: z.string().nullable(),
    icecast: z.string().meta({ description: 'The user is `source`, the password is the stream key.' }),
    post: z.string().meta({ description: 'Send the header `Authorization: Bearer {stream key}`.' }),
  })
  .meta({ id: 'IngestAddresses' });

const withKeySchema = z
  .strictObject({ channel: channelSchema, streamKey: z.string().meta({ description: 'Shown only once.' }), ingest: ingestSchema })
  .meta({ id: 'NewChannel' });

export interface ChannelOperationsOptions {
  channels: Channels;
  /** Returns the channel if the principal may see it; rejects with `not_found`. */
  sees: (principal: Principal, slug: string) => Promise<Channel>;
  reads: PublicReads;
  live: LiveStatus;
  addresses: Addresses;
  /** Reloads who may play what, so that a change is in force before it is answered. */
  rulesChanged: () => Promise<void>;
}

/** Returns a function that makes the API's form of a channel, with its live status. */
export function channelView({ live, addresses }: Pick<ChannelOperationsOptions, 'live' | 'addresses'>) {
  const { publicUrl, mediaUrl } = addresses;
  return (channel: Channel): z.infer<typeof channelSchema> => {
    const { slug } = channel;
    const { state, listeners, nowPlaying, startWallMs, broadcastId } = live.status(slug);
    return {
      slug,
      title: channel.title,
      visibility: channel.visibility,
      recording: channel.recording,
      countriesAllowed: channel.countries.allowed?.slice() ?? null,
      countriesDenied: channel.countries.denied?.slice() ?? null,
      createdAt: isoOf(channel.createdAtMs),
      state,
      listeners,
      startedAt: startWallMs === undefined ? null : isoOf(startWallMs),
      broadcastId: broadcastId ?? null,
      nowPlaying: nowPlaying
        ? { title: nowPlaying.title, artist: nowPlaying.artist ?? null, startedAt: isoOf(nowPlaying.startWallMs) }
        : null,
      urls: {
        page: `${publicUrl}/c/${slug}`,
        hls: `${mediaUrl}/live/${slug}/master.m3u8`,
        dash: `${mediaUrl}/live/${slug}/manifest.mpd`,
        listen: `${publicUrl}/listen/${slug}.mp3`,
      },
    };
  };
}

export function channelOperations({ channels, sees, reads, live, addresses, rulesChanged }: ChannelOperationsOptions): Operation[] {
  const { publicUrl } = addresses;
  const shown = channelView({ live, addresses });
  const ingestOf = (slug: string): z.infer<typeof ingestSchema> => {
    const { hostname } = new URL(publicUrl);
    return {
      rtmp: `rtmp://${hostname}:${addresses.rtmpPort}/live`,
      rtmps: addresses.rtmpsPort === undefined ? null : `rtmps://${hostname}:${addresses.rtmpsPort}/live`,
      icecast: `http://${hostname}:${addresses.ingestPort}/${slug}`,
      post: `http://${hostname}:${addresses.ingestPort}/ingest/${slug}`,
    };
  };
  const isOnAir = (slug: string) => live.status(slug).state !== 'offline';

  return [
    operation({
      id: 'listChannels',
      method: 'get',
      path: '/channels',
      summary: 'Lists channels.',
      description: 'Public channels, sorted by slug. Moderators and administrators get every channel.',
      access: 'anyone',
      query: z.strictObject(pageQuery),
      status: 200,
      answer: pageOf(channelSchema),
      errors: [],
      async handle({ query, principal }) {
        const after = query.cursor === undefined ? '' : positionOf(query.cursor, z.tuple([z.string().max(63)]))[0];
        const read = async () => {
          const found = await channels.list(may(principal, 'channel.list-all') ? VISIBILITIES : ['public'], after, query.limit + 1);
          return page(
            found,
            query.limit,
            (channel) => channel,
            ({ slug }) => [slug],
          );
        };
        const { items, next } = await (principal.kind === 'anonymous' ? reads.channelPage(query, read) : read());
        return { items: items.map(shown), next };
      },
    }),
    operation({
      id: 'createChannel',
      method: 'post',
      path: '/channels',
      summary: 'Creates a channel.',
      description: 'The answer has the channel’s stream key, which is shown only once.',
      access: 'channel.create',
      body: z.strictObject({
        slug: slugSchema.meta({
          ...slugSchema.meta(),
          description: 'Part of every address; it cannot be changed. Some are reserved (409).',
        }),
        title: titleSchema.optional().meta({ description: 'Default: the slug.' }),
        visibility: visibilitySchema.default('public'),
        recording: z.boolean().default(true).meta({ description: 'Whether broadcasts are recorded.' }),
      }),
      status: 201,
      answer: withKeySchema,
      errors: ['conflict', 'quota_exceeded'],
      async handle({ body, principal, audit, created }) {
        const { slug, visibility, recording } = body;
        // Such a channel would have no owner: its maker could neither change nor delete it.
        if (principal.accountId === undefined && principal.kind !== 'admin-token')
          throw new VezaError(
            'forbidden',
            'A channel belongs to an account of this service, and a gateway’s user has none: register an account.',
          );
        const { channel, streamKey } = await channels.create(
          slug,
          { title: body.title ?? slug, visibility, recording },
          principal.accountId,
        );
        audit({ target: `channel:${slug}`, details: { visibility } });
        created(`/channels/${slug}`);
        return { channel: shown(channel), streamKey, ingest: ingestOf(slug) };
      },
    }),
    operation({
      id: 'getChannel',
      method: 'get',
      path: '/channels/{slug}',
      summary: 'Shows a channel and what is on air.',
      access: 'anyone',
      params: slugParams,
      status: 200,
      answer: channelSchema,
      errors: ['not_found'],
      async handle({ params: { slug }, principal }) {
        const read = () => sees(principal, slug);
        return shown(await (principal.kind === 'anonymous' ? reads.channel(slug, read) : read()));
      },
    }),
    operation({
      id: 'updateChannel',
      method: 'patch',
      path: '/channels/{slug}',
      summary: 'Changes a channel.',
      description:
        'Members that are left out do not change. `recording` applies from the next broadcast. `countriesAllowed` and `countriesDenied` cannot both be lists.',
      access: 'channel.update',
      params: slugParams,
      body: z
        .strictObject({
          title: titleSchema.optional(),
          visibility: visibilitySchema.optional(),
          recording: z.boolean().optional(),
          countriesAllowed: countriesSchema
            .optional()
            .meta({ description: 'The only countries where the channel may be heard (ISO 3166-1). Null: no rule.' }),
          countriesDenied: countriesSchema
            .optional()
            .meta({ description: 'Countries where the channel may not be heard; replaces `countriesAllowed`.' }),
        })
        .refine((given) => !(given.countriesAllowed && given.countriesDenied), 'either countriesAllowed or countriesDenied is a list')
        .meta({
          not: {
            required: ['countriesAllowed', 'countriesDenied'],
            properties: { countriesAllowed: { type: 'array' }, countriesDenied: { type: 'array' } },
          },
        }),
      status: 200,
      answer: channelSchema,
      errors: ['not_found'],
      async handle({ params, body, audit }) {
        audit({ details: body });
        const channel = await channels.update(params.slug, body as ChannelChanges);
        await rulesChanged();
        return shown(channel);
      },
    }),
    operation({
      id: 'deleteChannel',
      method: 'delete',
      path: '/channels/{slug}',
      summary: 'Deletes a channel with its recordings.',
      description:
        'A current broadcast ends. The slug can be used again once no playback link to the channel can be good any more: at once, or after 30 days.',
      access: 'channel.delete',
      params: slugParams,
      status: 204,
      errors: ['not_found'],
      async handle({ params }) {
        // Deleting comes first: a disconnected encoder reconnects at once, and must find no
        // channel.
        await channels.delete(params.slug);
        await rulesChanged();
        await endGone(live, params.slug);
      },
    }),
    operation({
      id: 'getIngest',
      method: 'get',
      path: '/channels/{slug}/ingest',
      summary: 'Shows the addresses for broadcasting to a channel.',
      description: 'The stream key is not in the answer: it is shown only when it is made.',
      access: 'channel.stream-key',
      params: slugParams,
      status: 200,
      answer: ingestSchema,
      errors: ['not_found'],
      handle: async ({ params }) => ingestOf(params.slug),
    }),
    operation({
      id: 'rotateStreamKey',
      method: 'post',
      path: '/channels/{slug}/stream-key',
      summary: 'Makes a new stream key.',
      description:
        'A current broadcast may go on with the old key. The new key is good for as long as the account that made it may make keys.',
      access: 'channel.stream-key',
      wantsFreshSignIn: true,
      params: slugParams,
      status: 201,
      answer: z.strictObject({ streamKey: z.string(), ingest: ingestSchema }).meta({ id: 'StreamKey' }),
      errors: ['not_found'],
      async handle({ params, principal, created }) {
        const streamKey = await channels.rotateKey(params.slug, isOnAir(params.slug), principal.accountId);
        created(`/channels/${params.slug}/ingest`);
        return { streamKey, ingest: ingestOf(params.slug) };
      },
    }),
    operation({
      id: 'endBroadcast',
      method: 'post',
      path: '/channels/{slug}/end',
      summary: 'Ends the current broadcast.',
      access: 'channel.end',
      params: slugParams,
      status: 204,
      errors: ['not_found', 'conflict'],
      async handle({ params }) {
        if (!(await live.end(params.slug))) throw new VezaError('conflict', 'The channel is off air.');
      },
    }),
    operation({
      id: 'setNowPlaying',
      method: 'post',
      path: '/channels/{slug}/now-playing',
      summary: 'Sets what is playing.',
      description: 'Listeners see the title when they hear the sound of this moment.',
      access: 'channel.now-playing',
      params: slugParams,
      body: z.strictObject({ title: songSchema, artist: songSchema.optional() }),
      status: 204,
      errors: ['not_found', 'conflict'],
      async handle({ params, body }) {
        const update = body.artist === undefined ? { title: body.title } : { title: body.title, artist: body.artist };
        if (!(await live.nowPlaying(params.slug, update))) throw new VezaError('conflict', 'The channel is off air.');
      },
    }),
  ];
}

/**
 * Ends the broadcast of a channel that was just deleted. A worker that cannot be reached looks for
 * deleted channels itself, every few seconds.
 */
export async function endGone(live: Pick<LiveStatus, 'end'>, slug: string): Promise<void> {
  await live.end(slug).catch((error) => {
    if (!(error instanceof VezaError && error.code === 'unavailable')) throw error;
  });
}
