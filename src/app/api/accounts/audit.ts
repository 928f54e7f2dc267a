import { z } from 'zod';
import type { Audit, AuditEntry, AuditFilter } from '../../../access/audit.js';
import { MAX_USER_ID_LENGTH } from '../../../runtime/user-id.js';
import { isoOf, type Operation, operation, page, pageOf, pageQuery, positionOf } from '../openapi.js';
import { text } from '../request-schemas.js';

const entrySchema = z
  .strictObject({
    id: z.int(),
    at: z.iso.datetime(),
    actor: z.string().meta({ description: '`account:{id}`, `api-key:{id}`, `gateway:{sub}`, `admin-token`, `anonymous` or `system`.' }),
    actorName: z.string().nullable(),
    address: z.string().nullable(),
    action: z.string().meta({ description: 'The id of the operation, or the name of another event.' }),
    target: z.string().nullable(),
    channel: z.string().nullable(),
    requestId: z.string().nullable(),
    details: z.record(z.string(), z.unknown()),
  })
  .meta({ id: 'AuditEntry' });
const shown = (entry: AuditEntry): z.infer<typeof entrySchema> => ({
  id: entry.id,
  at: isoOf(entry.atMs),
  actor: entry.actor,
  actorName: entry.actorName ?? null,
  address: entry.address ?? null,
  action: entry.action,
  target: entry.target ?? null,
  channel: entry.channel ?? null,
  requestId: entry.requestId ?? null,
  details: entry.details,
});

/** The longest value is `user:` and a user's id. */
const exact = text({ max: MAX_USER_ID_LENGTH + 'user:'.length }).optional();
const time = z.iso.datetime({ offset: true }).optional();
const filterShape = {
  actor: exact,
  action: exact,
  target: exact,
  channel: exact,
  from: time.meta({ description: 'Start of the time, inclusive.' }),
  to: time.meta({ description: 'End of the time, exclusive.' }),
};
const filterOf = (query: { [name in keyof typeof filterShape]?: string | undefined }): AuditFilter => ({
  actor: query.actor,
  action: query.action,
  target: query.target,
  channel: query.channel,
  fromMs: query.from === undefined ? undefined : Date.parse(query.from),
  toMs: query.to === undefined ? undefined : Date.parse(query.to),
});

const EXPORT_PAGE = 500;

/** Operations that read the audit log. */
export function auditOperations({ audit }: { audit: Audit }): Operation[] {
  return [
    operation({
      id: 'listAudit',
      method: 'get',
      path: '/audit',
      summary: 'Lists the audit log.',
      description: 'The newest entry comes first.',
      access: 'audit.read',
      query: z.strictObject({ ...filterShape, ...pageQuery }),
      status: 200,
      answer: pageOf(entrySchema),
      errors: [],
      async handle({ query }) {
        const before = query.cursor === undefined ? undefined : positionOf(query.cursor, z.tuple([z.int()]))[0];
        const found = await audit.list({ ...filterOf(query), before }, query.limit + 1);
        return page(found, query.limit, shown, ({ id }) => [id]);
      },
    }),
    operation({
      id: 'exportAudit',
      method: 'get',
      path: '/audit/export',
      summary: 'Exports the audit log.',
      description: 'JSON Lines, the newest entry first. The export itself is recorded in the log.',
      access: 'audit.read',
      query: z.strictObject(filterShape),
      status: 200,
      answer: entrySchema,
      contentType: 'application/jsonl',
      errors: [],
      async handle({ query, principal, client }) {
        await audit.record({ principal, action: 'exportAudit', address: client.address, requestId: client.requestId, details: query });
        return lines(audit, filterOf(query));
      },
    }),
  ];
}

/**
 * Reads the next page only when the one before was taken, so that neither a long log nor a slow
 * reader fills memory.
 */
async function* lines(audit: Audit, filter: AuditFilter): AsyncGenerator<string> {
  for (let before: number | undefined; ; ) {
    const page = await audit.list({ ...filter, before }, EXPORT_PAGE);
    if (page.length > 0) yield page.map((entry) => `${JSON.stringify(shown(entry))}\n`).join('');
    if (page.length < EXPORT_PAGE) return;
    before = page.at(-1)!.id;
  }
}
