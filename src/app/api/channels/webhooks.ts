import { z } from 'zod';
import { ALL_EVENTS, CHANNEL_EVENTS } from '../../../access/webhooks/webhook-events.js';
import { MAX_OVERLAP_S } from '../../../access/webhooks/webhook-secrets.js';
import type { Delivery, Webhook, Webhooks } from '../../../access/webhooks/webhooks.js';
import { MAX_OUTBOUND_URL_CHARS } from '../../../backing/outbound-address.js';
import type { ErrorCode } from '../../../runtime/errors.js';
import { isoOf, type Operation, type OperationCall, operation, page, pageOf, pageQuery, positionOf } from '../openapi.js';
import { text } from '../request-schemas.js';
import { slugParams } from './channels.js';

const webhookId = { webhookId: z.uuid() };
const deliveryId = { deliveryId: z.uuid() };

/**
 * Operations on webhooks: the service's under `/webhooks`, a channel's under
 * `/channels/{slug}/webhooks`. Only the permission differs.
 */
export function webhookOperations(webhooks: Webhooks): Operation[] {
  return [...operationsAt(webhooks, 'service'), ...operationsAt(webhooks, 'channel')];
}

function operationsAt(webhooks: Webhooks, of: 'service' | 'channel'): Operation[] {
  const isOfChannel = of === 'channel';
  const name = (verb: string, noun: string) => `${verb}${isOfChannel ? 'Channel' : ''}${noun}`;
  const where = isOfChannel ? 'the channel' : 'the service';
  const root = isOfChannel ? '/channels/{slug}/webhooks' : '/webhooks';
  const one = `${root}/{webhookId}`;
  const rootParams = isOfChannel ? slugParams : z.strictObject({});
  const params = (isOfChannel ? z.strictObject({ ...slugParams.shape, ...webhookId }) : z.strictObject(webhookId)) as z.ZodType<{
    webhookId: string;
  }>;
  const deliveryParams = (
    isOfChannel ? z.strictObject({ ...slugParams.shape, ...webhookId, ...deliveryId }) : z.strictObject({ ...webhookId, ...deliveryId })
  ) as z.ZodType<{ webhookId: string; deliveryId: string }>;
  const access = isOfChannel ? 'channel.webhooks' : 'service.webhooks';
  const missing: ErrorCode[] = ['not_found'];
  const channelId = (call: Pick<OperationCall, 'channel'>) => (isOfChannel ? call.channel.id : undefined);
  const rootOf = (call: Pick<OperationCall, 'channel'>) => (isOfChannel ? `/channels/${call.channel.slug}/webhooks` : '/webhooks');

  const urlSchema = text({
    max: MAX_OUTBOUND_URL_CHARS,
    format: 'uri',
    pattern: '^[Hh][Tt][Tt][Pp][Ss]?://[\\x21-\\x7e]+$',
    description:
      'Address in ASCII (RFC 3986), without user name and password. The host must be on the public internet unless the operator allows others, the port 80, 443 or at least 1024; otherwise 400. Redirects are not followed.',
  });
  const eventsSchema = z
    .array(z.enum(isOfChannel ? CHANNEL_EVENTS : ALL_EVENTS))
    .min(1)
    .max(ALL_EVENTS.length);

  return [
    operation({
      id: name('list', 'Webhooks'),
      method: 'get',
      path: root,
      summary: `Lists the webhooks of ${where}.`,
      description: 'The oldest comes first; all are on one page.',
      access,
      params: rootParams,
      status: 200,
      answer: pageOf(webhookSchema),
      errors: [],
      handle: async (call) => ({ items: (await webhooks.list(channelId(call))).map(shown), next: null }),
    }),
    operation({
      id: name('create', 'Webhook'),
      method: 'post',
      path: root,
      summary: `Creates a webhook of ${where}.`,
      description: `It is called for events ${isOfChannel ? 'of this channel' : 'of every channel and of accounts'}. There are at most 20.`,
      access,
      wantsFreshSignIn: true,
      params: rootParams,
      body: z.strictObject({ url: urlSchema, events: eventsSchema }),
      status: 201,
      answer: newWebhookSchema,
      errors: ['conflict'],
      async handle(call) {
        const { body, principal, audit, created } = call;
        const { webhook, secret } = await webhooks.create(channelId(call), body, principal);
        audit({ target: `webhook:${webhook.id}`, details: { host: new URL(webhook.url).host, events: webhook.events } });
        created(`${rootOf(call)}/${webhook.id}`);
        return { webhook: shown(webhook), secret };
      },
    }),
    operation({
      id: name('get', 'Webhook'),
      method: 'get',
      path: one,
      summary: `Shows a webhook of ${where}.`,
      access,
      params,
      status: 200,
      answer: webhookSchema,
      errors: missing,
      handle: async (call) => shown(await webhooks.get(channelId(call), call.params.webhookId)),
    }),
    operation({
      id: name('update', 'Webhook'),
      method: 'patch',
      path: one,
      summary: `Changes a webhook of ${where}.`,
      description: 'Members that are left out do not change. While a webhook is off, its deliveries wait for up to three days.',
      access,
      wantsFreshSignIn: {
        when: 'the body has an address or events, or turns the webhook on',
        of: ({ url, events, active }) => url !== undefined || events !== undefined || active === true,
      },
      params,
      body: z.strictObject({ url: urlSchema.optional(), events: eventsSchema.optional(), active: z.boolean().optional() }),
      status: 200,
      answer: webhookSchema,
      errors: missing,
      async handle(call) {
        const { body, params, audit } = call;
        const { url, ...rest } = body;
        const webhook = await webhooks.update(channelId(call), params.webhookId, body, call.principal);
        audit({ target: `webhook:${webhook.id}`, details: { ...rest, ...(url !== undefined && { host: new URL(webhook.url).host }) } });
        return shown(webhook);
      },
    }),
    operation({
      id: name('delete', 'Webhook'),
      method: 'delete',
      path: one,
      summary: `Deletes a webhook of ${where} with its deliveries.`,
      access,
      params,
      status: 204,
      errors: missing,
      async handle(call) {
        call.audit({ target: `webhook:${call.params.webhookId}` });
        await webhooks.delete(channelId(call), call.params.webhookId);
      },
    }),
    operation({
      id: name('replace', 'WebhookSecret'),
      method: 'post',
      path: `${one}/secret`,
      summary: `Makes a new secret for a webhook of ${where}.`,
      description: 'For a time, deliveries are signed with the old and the new secret.',
      access,
      wantsFreshSignIn: true,
      params,
      body: z.strictObject({
        overlapS: z.int().min(0).max(MAX_OVERLAP_S).default(MAX_OVERLAP_S).meta({
          description: 'Seconds for which the old secret signs too. Send 0 if it has leaked.',
        }),
      }),
      status: 201,
      answer: webhookSecretSchema,
      errors: missing,
      async handle(call) {
        const { body, params, audit } = call;
        audit({ target: `webhook:${params.webhookId}`, details: body });
        call.created(`${rootOf(call)}/${params.webhookId}`);
        return { secret: await webhooks.replaceSecret(channelId(call), params.webhookId, body.overlapS) };
      },
    }),
    operation({
      id: name('test', 'Webhook'),
      method: 'post',
      path: `${one}/test`,
      summary: `Tests a webhook of ${where}.`,
      description: 'Sends `webhook.test` once, now, and answers with the result within 10 s.',
      access,
      params,
      status: 200,
      answer: deliverySchema,
      errors: [...missing, 'busy'],
      async handle(call) {
        const { params, audit } = call;
        audit({ target: `webhook:${params.webhookId}` });
        return shownDelivery(await webhooks.test(channelId(call), params.webhookId, isOfChannel ? call.channel : undefined));
      },
    }),
    operation({
      id: name('list', 'WebhookDeliveries'),
      method: 'get',
      path: `${one}/deliveries`,
      summary: `Lists the deliveries of a webhook of ${where}.`,
      description: 'Past and waiting deliveries, the newest first. They are kept for 30 days.',
      access,
      params,
      query: z.strictObject(pageQuery),
      status: 200,
      answer: pageOf(deliverySchema),
      errors: missing,
      async handle(call) {
        const { query, params } = call;
        const before = query.cursor === undefined ? undefined : positionOf(query.cursor, z.tuple([z.int().min(0)]))[0];
        const found = await webhooks.deliveries(channelId(call), params.webhookId, before, query.limit + 1);
        return page(found, query.limit, shownDelivery, ({ sequence }) => [sequence]);
      },
    }),
    operation({
      id: name('retry', 'WebhookDelivery'),
      method: 'post',
      path: `${one}/deliveries/{deliveryId}/retry`,
      summary: `Sends a delivery of a webhook of ${where} again.`,
      description: 'It is sent now, with the same id.',
      access,
      params: deliveryParams,
      status: 202,
      answer: deliverySchema,
      errors: [...missing, 'conflict'],
      async handle(call) {
        const { params, audit } = call;
        audit({ target: `webhook:${params.webhookId}`, details: { delivery: params.deliveryId } });
        return shownDelivery(await webhooks.retry(channelId(call), params.webhookId, params.deliveryId));
      },
    }),
  ];
}

const secretSchema = z.string().meta({ description: '`whsec_…`; shown only once. Deliveries are signed with it.' });

const webhookSchema = z
  .strictObject({
    id: z.uuid(),
    url: z.string(),
    events: z.array(z.enum(ALL_EVENTS)),
    active: z.boolean(),
    note: z.string().nullable().meta({ description: 'Why the service has turned the webhook off.' }),
    failingSince: z.iso.datetime().nullable().meta({ description: 'Since when all deliveries have failed; null while they succeed.' }),
    createdAt: z.iso.datetime(),
  })
  .meta({ id: 'Webhook' });

const deliverySchema = z
  .strictObject({
    id: z.uuid().meta({ description: 'The value of `Veza-Delivery` in each attempt.' }),
    event: z.string(),
    state: z.enum(['pending', 'delivered', 'failed']).meta({ description: '`failed`: no further attempt is made.' }),
    createdAt: z.iso.datetime(),
    attempts: z.int().min(0),
    nextAttemptAt: z.iso.datetime().nullable(),
    deliveredAt: z.iso.datetime().nullable(),
    lastStatus: z.int().nullable().meta({ description: 'Status of the receiver’s last answer; null without an answer.' }),
    lastError: z.string().nullable(),
  })
  .meta({ id: 'WebhookDelivery' });

const newWebhookSchema = z.strictObject({ webhook: webhookSchema, secret: secretSchema }).meta({ id: 'NewWebhook' });
const webhookSecretSchema = z.strictObject({ secret: secretSchema }).meta({ id: 'WebhookSecret' });

const isoOrNull = (wallMs: number | undefined) => (wallMs === undefined ? null : isoOf(wallMs));

const shown = (webhook: Webhook): z.infer<typeof webhookSchema> => ({
  id: webhook.id,
  url: webhook.url,
  events: [...webhook.events],
  active: webhook.active,
  note: webhook.note ?? null,
  failingSince: isoOrNull(webhook.failingSinceMs),
  createdAt: isoOf(webhook.createdAtMs),
});

const shownDelivery = (delivery: Delivery): z.infer<typeof deliverySchema> => ({
  id: delivery.id,
  event: delivery.event,
  state: delivery.state,
  createdAt: isoOf(delivery.createdAtMs),
  attempts: delivery.attempts,
  nextAttemptAt: isoOrNull(delivery.nextAttemptAtMs),
  deliveredAt: isoOrNull(delivery.deliveredAtMs),
  lastStatus: delivery.lastStatus ?? null,
  lastError: delivery.lastError ?? null,
});
