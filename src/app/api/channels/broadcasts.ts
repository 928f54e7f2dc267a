import { z } from 'zod';
import type { Channel } from '../../../access/channels.js';
import { may, type Principal } from '../../../access/roles.js';
import type { BroadcastRecord, Broadcasts } from '../../../library/broadcasts.js';
import { VezaError } from '../../../runtime/errors.js';
import type { PublicReads } from '../../http/public-reads.js';
import { isoOf, type Operation, operation, page, pageOf, pageQuery, positionOf, positionTime } from '../openapi.js';
import { text } from '../request-schemas.js';
import { slugParams, titleSchema, visibilitySchema } from './channels.js';

const broadcastSchema = z
  .strictObject({
    id: z.string(),
    channel: z.string(),
    title: z.string(),
    startedAt: z.iso.datetime(),
    endedAt: z.iso.datetime().nullable().meta({ description: 'Null while it is on air.' }),
    durationMs: z.number().min(0).nullable(),
    asset: z.string().nullable().meta({ description: 'Id of the recording; null when there is none.' }),
  })
  .meta({ id: 'Broadcast' });

const assetSchema = z
  .strictObject({
    id: z.string().meta({ description: 'Id of the recording, which is the id of its broadcast.' }),
    kind: z.literal('recording'),
    channel: z.string(),
    title: z.string(),
    visibility: visibilitySchema,
    createdAt: z.iso.datetime(),
    durationMs: z.number().min(0),
    urls: z.strictObject({ hls: z.url(), dash: z.url() }),
  })
  .meta({ id: 'Asset', description: 'A recording. `visibility` is its own, or else that of its channel.' });

export const assetParams = z.strictObject({ id: text({ max: 64, pattern: '^[A-Za-z0-9_-]{1,64}$' }) });
const position = z.tuple([positionTime, z.string().max(64)]);

export interface BroadcastOperationsOptions {
  /**
   * Returns the channel if the principal may see it; with `asPrivate`, if they might even were it
   * private. Rejects with `not_found`.
   */
  sees: (principal: Principal, slug: string, asPrivate?: boolean) => Promise<Channel>;
  broadcasts: Broadcasts;
  reads: PublicReads;
  /** Reloads who may play what, so that a change is in force before it is answered. */
  rulesChanged: () => Promise<void>;
  /** Base address of media, without a slash at the end. */
  mediaUrl: string;
}

/** Operations on broadcasts and their recordings. */
export function broadcastOperations({ sees, broadcasts, reads, rulesChanged, mediaUrl }: BroadcastOperationsOptions): Operation[] {
  const asset = (broadcast: BroadcastRecord): z.infer<typeof assetSchema> => ({
    id: broadcast.id,
    kind: 'recording',
    channel: broadcast.channel,
    title: broadcast.title,
    visibility: broadcast.visibility,
    createdAt: isoOf(broadcast.startedAtMs),
    durationMs: broadcast.durationMs ?? 0,
    urls: { hls: `${mediaUrl}/vod/${broadcast.id}/master.m3u8`, dash: `${mediaUrl}/vod/${broadcast.id}/manifest.mpd` },
  });

  const listed = async <T>(
    query: { cursor?: string | undefined; limit: number },
    filter: Parameters<Broadcasts['list']>[0],
    shown: (broadcast: BroadcastRecord) => T,
  ): Promise<{ items: T[]; next: string | null }> => {
    if (query.cursor !== undefined) {
      const [startedAtMs, id] = positionOf(query.cursor, position);
      filter.after = { startedAtMs, id };
    }
    const found = await broadcasts.list(filter, query.limit + 1);
    return page(found, query.limit, shown, ({ startedAtMs, id }) => [startedAtMs, id]);
  };

  return [
    operation({
      id: 'listBroadcasts',
      method: 'get',
      path: '/channels/{slug}/broadcasts',
      summary: 'Lists the broadcasts of a channel.',
      description: 'The newest comes first.',
      access: 'anyone',
      params: slugParams,
      query: z.strictObject(pageQuery),
      status: 200,
      answer: pageOf(broadcastSchema),
      errors: ['not_found'],
      async handle({ params, query, principal }) {
        const { slug } = params;
        const isGuest = principal.kind === 'anonymous';
        const seen = () => sees(principal, slug);
        await (isGuest ? reads.channel(slug, seen) : seen());
        const read = async () => {
          // A recording that is not public is listed only for people who may hear it.
          const seesAll = await sees(principal, slug, true).then(
            () => true,
            () => false,
          );
          return listed(query, { channel: slug }, (broadcast) => ({
            id: broadcast.id,
            channel: broadcast.channel,
            title: broadcast.title,
            startedAt: isoOf(broadcast.startedAtMs),
            endedAt: broadcast.endedAtMs === undefined ? null : isoOf(broadcast.endedAtMs),
            durationMs: broadcast.durationMs ?? null,
            asset: isRecorded(broadcast) && (seesAll || broadcast.visibility === 'public') ? broadcast.id : null,
          }));
        };
        return isGuest ? reads.broadcastPage(slug, query, read) : read();
      },
    }),
    operation({
      id: 'listAssets',
      method: 'get',
      path: '/assets',
      summary: 'Lists recordings.',
      description: 'Recordings of public channels, the newest first. Moderators and administrators get those of every channel.',
      access: 'anyone',
      query: z.strictObject(pageQuery),
      status: 200,
      answer: pageOf(assetSchema),
      errors: [],
      handle: ({ query, principal }) =>
        listed(query, may(principal, 'channel.list-all') ? { recorded: true } : { recorded: true, visibilities: ['public'] }, asset),
    }),
    operation({
      id: 'getAsset',
      method: 'get',
      path: '/assets/{id}',
      summary: 'Shows a recording.',
      access: 'anyone',
      params: assetParams,
      status: 200,
      answer: assetSchema,
      errors: ['not_found'],
      async handle({ params, principal }) {
        const read = async () => {
          const broadcast = await recordingOf(broadcasts, params.id);
          if (!broadcast) throw noRecording();
          if (broadcast.visibility === 'private') await sees(principal, broadcast.channel, true).catch(asNoRecording);
          return broadcast;
        };
        return asset(await (principal.kind === 'anonymous' ? reads.asset(params.id, read) : read()));
      },
    }),
    operation({
      id: 'updateAsset',
      method: 'patch',
      path: '/assets/{id}',
      summary: 'Changes a recording.',
      description: 'Members that are left out do not change.',
      access: 'channel.set-recordings',
      params: assetParams,
      body: z.strictObject({
        title: titleSchema.optional(),
        visibility: visibilitySchema.nullable().optional().meta({ description: 'Null: the same as its channel.' }),
      }),
      status: 200,
      answer: assetSchema,
      errors: ['not_found'],
      channelOf: ({ id }) => channelOfRecording(broadcasts, id),
      async handle({ params, body, audit }) {
        audit({ target: `recording:${params.id}`, details: body });
        await broadcasts.update(params.id, body);
        await rulesChanged();
        const broadcast = await recordingOf(broadcasts, params.id);
        if (!broadcast) throw noRecording();
        return asset(broadcast);
      },
    }),
    operation({
      id: 'deleteAsset',
      method: 'delete',
      path: '/assets/{id}',
      summary: 'Deletes a recording.',
      description: 'It cannot be played any more. Its files are deleted by the next sweep.',
      access: 'channel.set-recordings',
      params: assetParams,
      status: 204,
      errors: ['not_found'],
      channelOf: ({ id }) => channelOfRecording(broadcasts, id),
      async handle({ params, audit }) {
        audit({ target: `recording:${params.id}` });
        if (!(await broadcasts.delete(params.id))) throw noRecording();
        await rulesChanged();
      },
    }),
  ];
}

const isRecorded = (broadcast: BroadcastRecord) => broadcast.recording && broadcast.endedAtMs !== undefined;

export const noRecording = () => new VezaError('not_found', 'There is no such recording.');

/**
 * Replaces `not_found` of a channel: the answer must tell neither that the recording exists nor
 * whose it is.
 */
export function asNoRecording(error: unknown): never {
  throw error instanceof VezaError && error.code === 'not_found' ? noRecording() : error;
}

/** Finds the channel for `Operation.channelOf`. */
export async function channelOfRecording(broadcasts: Broadcasts, id: string): Promise<{ slug: string; isPrivate: boolean } | undefined> {
  const recording = await recordingOf(broadcasts, id);
  return recording && { slug: recording.channel, isPrivate: recording.visibility === 'private' };
}

/** Finds a recording. Undefined while the broadcast is on air, and when it was not recorded. */
export async function recordingOf(broadcasts: Broadcasts, id: string): Promise<BroadcastRecord | undefined> {
  const broadcast = await broadcasts.get(id);
  return broadcast && isRecorded(broadcast) ? broadcast : undefined;
}
