import { z } from 'zod';
import { RULES } from '../../../chat/automod/classifier.js';
import { type Operation, operation } from '../openapi.js';
import { text } from '../request-schemas.js';
import { type RoomOperationsOptions, roomAccess, roomParams } from './room-access.js';

const MAX_TRIED_CHARS = 8192;

/**
 * The operation for people who set a room's terms: they can try them on a text before anybody
 * writes it.
 */
export function roomTrialOperations(options: RoomOperationsOptions): Operation[] {
  const { here, channelOf, roomOf, within } = roomAccess(options);
  return [
    operation({
      id: 'tryRoomText',
      method: 'post',
      path: '/rooms/{slug}/terms/try',
      summary: 'Shows what automatic moderation would make of a text.',
      description: 'Judges the text as if a viewer had written it. Nothing is published, and the remote classifier is not asked.',
      access: 'channel.moderate',
      channelOf,
      params: roomParams,
      body: z.strictObject({ text: text({ max: MAX_TRIED_CHARS }) }),
      status: 200,
      answer: z.strictObject({
        verdict: z.enum(['allow', 'mask', 'hold', 'refuse']),
        text: z.string().nullable().meta({ description: 'With `mask`: the text that would be published instead.' }),
        reasons: z.array(z.strictObject({ rule: z.enum(RULES), category: z.string(), score: z.number() })),
      }),
      errors: ['not_found'],
      unaudited: true,
      async handle({ body, channel }) {
        return within(await roomOf(channel), async ({ id }) => {
          const verdict = here().tryText(id, body.text) ?? { action: 'allow' };
          return {
            verdict: verdict.action,
            text: verdict.action === 'mask' ? verdict.text : null,
            reasons: verdict.action === 'allow' ? [] : verdict.reasons,
          };
        });
      },
    }),
  ];
}
