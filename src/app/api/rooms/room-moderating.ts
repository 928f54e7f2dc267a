import { z } from 'zod';
import type { ModAction } from '../../../chat/moderation/mod-actions.js';
import { type Operation, type OperationCall, operation, page, pageOf, pageQuery, positionOf } from '../openapi.js';
import { PATTERNS, text } from '../request-schemas.js';
import { type RoomOperationsOptions, roomAccess, roomParams } from './room-access.js';

/** The permission, in the room's channel, that all these operations need. */
const ACCESS = 'channel.moderate';

/** A text for people, on one line. */
export const line = (max: number) => text({ max, pattern: PATTERNS.line, trimmed: true });
export const personSchema = z.strictObject({ id: z.string(), name: z.string() }).meta({ id: 'RoomPerson' });

const toldSchema = z
  .strictObject({
    offset: z
      .int()
      .nullable()
      .meta({ description: 'Offset of the entry that tells the room. Null: the act is in force, but no entry tells the room.' }),
  })
  .meta({ id: 'RoomActDone' });

type About<P, B> = Pick<Operation<P, unknown, B>, 'id' | 'method' | 'path' | 'summary' | 'description' | 'params' | 'body' | 'errors'>;
type RoomPath = { slug: string };

/** Describes an operation that does one moderation act. */
interface ActSpec<P, B> extends About<P, B> {
  /** `told`: 200 with the offset of the entry that tells the room. `nothing`: 204. */
  readonly answers: 'told' | 'nothing';
  action(params: P, body: B): ModAction;
}

/** Describes an operation that reads a list in pages. */
interface ListSpec<T, C extends [string | number, ...(string | number)[]], F extends z.ZodRawShape> {
  readonly id: string;
  readonly path: string;
  readonly summary: string;
  readonly description?: string;
  /** Query parameters besides those of the page. */
  readonly filter?: F;
  readonly item: z.ZodType;
  view(item: T): unknown;
  /** The schema of a cursor, and an item's position in it. */
  readonly cursor: z.ZodType<C>;
  position(item: T): C;
  /** Reads at most `limit` items after `from`. */
  read(roomId: string, from: C | undefined, limit: number, filter: z.infer<z.ZodObject<F>>): Promise<T[]>;
}

/**
 * Makes operations for moderators from short descriptions, and offers what the other operations
 * need.
 */
export function roomModerating(options: RoomOperationsOptions) {
  const { here, channelOf, roomOf, moderatorOf } = roomAccess(options);
  const roomIdOf = async ({ channel }: Pick<OperationCall, 'channel'>) => (await roomOf(channel)).id;

  const act = <P extends RoomPath, B = unknown>({ answers, action, ...about }: ActSpec<P, B>): Operation =>
    operation<P, unknown, B>({
      ...about,
      access: ACCESS,
      channelOf,
      ...(answers === 'told' ? { status: 200, answer: toldSchema } : { status: 204 }),
      unaudited: true,
      async handle({ params, body, channel, ...call }) {
        const { offset } = await here().desk.moderate(await roomOf(channel), moderatorOf(call), action(params, body));
        return answers === 'told' ? { offset: offset ?? null } : undefined;
      },
    });

  const list = <T, C extends [string | number, ...(string | number)[]], F extends z.ZodRawShape = Record<never, never>>(
    spec: ListSpec<T, C, F>,
  ): Operation => {
    const { id, path, summary, description, filter, item, view, cursor, position, read } = spec;
    return operation({
      id,
      method: 'get',
      path,
      summary,
      ...(description !== undefined && { description }),
      access: ACCESS,
      channelOf,
      params: roomParams,
      query: z.strictObject({ ...pageQuery, ...filter }),
      status: 200,
      answer: pageOf(item),
      errors: ['not_found'],
      async handle({ query, ...call }) {
        const from = query.cursor === undefined ? undefined : positionOf(query.cursor, cursor);
        const found = await read(await roomIdOf(call), from, query.limit + 1, query as unknown as z.infer<z.ZodObject<F>>);
        return page(found, query.limit, view, position);
      },
    });
  };

  return { access: ACCESS, here, channelOf, roomOf, roomIdOf, moderatorOf, act, list } as const;
}
