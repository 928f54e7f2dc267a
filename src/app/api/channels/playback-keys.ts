import { z } from 'zod';
import type { PlaybackKeys } from '../../../access/playback/playback-keys.js';
import { isoOf, type Operation, operation, pageOf } from '../openapi.js';

const keySchema = z
  .strictObject({
    id: z.string().meta({ description: 'Every token that the key signs begins with this id.' }),
    createdAt: z.iso.datetime(),
    signsFrom: z.iso.datetime(),
  })
  .meta({ id: 'PlaybackKey' });

const MAX_SIGNS_IN_S = 86_400;
/**
 * Every process knows a new key within a second; an edge server on another machine has to be given
 * it.
 */
const DEFAULT_SIGNS_IN_S = 60;

/** Operations on the keys that sign playback links. */
export function playbackKeyOperations(keys: PlaybackKeys): Operation[] {
  const shown = () => ({
    items: keys.list().map(({ id, createdAtMs, signsFromMs }) => ({ id, createdAt: isoOf(createdAtMs), signsFrom: isoOf(signsFromMs) })),
    next: null,
  });
  return [
    operation({
      id: 'listPlaybackKeys',
      method: 'get',
      path: '/service/playback-keys',
      summary: 'Lists the keys that playback links are signed with.',
      description: 'There are at most two; the newer one comes first.',
      access: 'service.keys',
      status: 200,
      answer: pageOf(keySchema),
      errors: [],
      handle: async () => shown(),
    }),
    operation({
      id: 'replacePlaybackKey',
      method: 'post',
      path: '/service/playback-keys',
      summary: 'Makes a new key for playback links.',
      description:
        'If there are two keys, it replaces the older one, and links signed with that key end. Doing it twice in a row ends all links.',
      access: 'service.keys',
      body: z.strictObject({
        signsInS: z
          .int()
          .min(0)
          .max(MAX_SIGNS_IN_S)
          .default(DEFAULT_SIGNS_IN_S)
          .meta({ description: 'Seconds until the key begins to sign: by then every edge server must know it.' }),
      }),
      status: 201,
      answer: pageOf(keySchema),
      errors: [],
      async handle({ body, audit, created }) {
        await keys.replace(body.signsInS * 1000);
        audit({ target: `playback-key:${keys.list()[0]?.id}` });
        created('/service/playback-keys');
        return shown();
      },
    }),
    operation({
      id: 'exportPlaybackKeys',
      method: 'post',
      path: '/service/playback-keys/export',
      summary: 'Exports the keys of playback links.',
      description: 'In the format of an edge server’s key file. The keys are secret.',
      access: 'service.keys',
      wantsFreshSignIn: true,
      status: 200,
      answer: z.strictObject({ keys: z.record(z.string(), z.string()) }),
      errors: [],
      handle: async () => keys.export(),
    }),
  ];
}
