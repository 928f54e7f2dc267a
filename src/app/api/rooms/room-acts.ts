import { z } from 'zod';
import type { ModerationAct } from '../../../chat/moderation/acts.js';
import { isoOf } from '../openapi.js';
import { personSchema } from './room-moderating.js';

/** A moderation act, as the API shows it. */
export const actSchema = z
  .strictObject({
    id: z.int(),
    at: z.iso.datetime(),
    action: z.string(),
    by: personSchema,
    userId: z.string().nullable(),
    userName: z.string().nullable(),
    details: z.record(z.string(), z.unknown()),
  })
  .meta({ id: 'RoomAct' });

export const actView = (act: ModerationAct): z.infer<typeof actSchema> => ({
  id: act.id,
  at: isoOf(act.atMs),
  action: act.action,
  by: { id: act.byId, name: act.byName },
  userId: act.userId ?? null,
  userName: act.userName ?? null,
  details: act.details,
});
