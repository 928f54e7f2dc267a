import { randomUUID } from 'node:crypto';
import type { Database, Queryable } from '../../backing/database/database.js';
import { createOutbound, type Outbound, type Resolve } from '../../backing/outbound.js';
import { OutboundPolicy } from '../../backing/outbound-address.js';
import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { Vault } from '../vault.js';
import { type EventChannel, TEST_EVENT, type WebhookData, type WebhookEvent } from './webhook-events.js';
import { WebhookOutbox } from './webhook-outbox.js';
import { MAX_OVERLAP_S, makeSecret, openSecrets, sealSecret } from './webhook-secrets.js';
import { WebhookWorker } from './webhook-worker.js';

/** Of one channel, and of the service. */
export const MAX_WEBHOOKS = 20;
/** Any number, the same in every process: taken while a webhook is made, so that two at once cannot both be the last one allowed. */
const CREATE_LOCK = 0x77686b;

export interface Webhook {
  readonly id: string;
  /** Undefined: of the service, and told of every channel. */
  readonly channelId: string | undefined;
  readonly url: string;
  readonly events: readonly WebhookEvent[];
  readonly active: boolean;
  /** Why it was turned off without being asked. */
  readonly note: string | undefined;
  readonly failingSinceMs: number | undefined;
  readonly createdAtMs: number;
}

/** Who sets one up: a principal's id, and the account behind it. It is turned off when that account may no longer manage it. */
export interface WebhookMaker {
  readonly id: string;
  readonly accountId?: string | undefined;
}

export interface Delivery {
  readonly id: string;
  readonly sequence: number;
  /** A `WebhookEvent`, or `webhook.test`. */
  readonly event: string;
  readonly state: 'pending' | 'delivered' | 'failed';
  readonly createdAtMs: number;
  readonly attempts: number;
  readonly nextAttemptAtMs: number | undefined;
  readonly deliveredAtMs: number | undefined;
  readonly lastStatus: number | undefined;
  readonly lastError: string | undefined;
}

export interface WebhooksOptions {
  readonly database: Database;
  readonly vault: Vault;
  readonly clock: Clock;
  readonly log: Log;
  /** `WEBHOOK_ALLOWED_HOSTS`. */
  readonly allowedHosts?: readonly string[] | undefined;
  /** For tests. */
  readonly resolve?: Resolve | undefined;
  readonly random?: (() => number) | undefined;
}

/**
 * What other systems are told. An event becomes one row for each webhook that wants it (the outbox, which outlives the process), and a worker in
 * each process delivers what is due. Whoever asks about a webhook names its channel (or undefined for the service): one of another is not found.
 */
export class Webhooks {
  readonly #database: Database;
  readonly #vault: Vault;
  readonly #clock: Clock;
  readonly #policy: OutboundPolicy;
  readonly #outbound: Outbound;
  readonly #outbox: WebhookOutbox;
  readonly #worker: WebhookWorker;
  #cancelFlush: (() => void) | undefined;
  #dropped = 0;

  constructor({ database, vault, clock, log, allowedHosts = [], resolve, random }: WebhooksOptions) {
    this.#database = database;
    this.#vault = vault;
    this.#clock = clock;
    this.#policy = new OutboundPolicy(allowedHosts);
    this.#outbound = createOutbound({ policy: this.#policy, clock, ...(resolve && { resolve }) });
    this.#worker = new WebhookWorker({ database, vault, outbound: this.#outbound, clock, log, ...(random && { random }) });
    this.#outbox = new WebhookOutbox({
      database,
      clock,
      log,
      onDropped: (count) => {
        this.#dropped += count;
      },
      onWritten: () => this.#worker.wake(),
    });
  }

  start(): void {
    this.#cancelFlush = this.#clock.every(FLUSH_MS, () => void this.#outbox.flush());
    this.#worker.start();
  }

  async stop(): Promise<void> {
    this.#cancelFlush?.();
    await this.#outbox.stop();
    await this.#worker.stop();
  }

  /**
   * Tells whoever wants to know. With `connection`, in that transaction: it rejects when the queries of it do. Without, it never rejects, and
   * waits in memory (at most 1000 events) while the database is away.
   */
  emit<E extends WebhookEvent>(event: E, channel: EventChannel | undefined, data: WebhookData[E], connection?: Queryable): Promise<void> {
    return this.#outbox.emit(event, channel, data, connection);
  }

  /** For the metrics. */
  get counts() {
    const { counters, backlog } = this.#worker;
    return { ...counters, ...backlog, dropped: this.#dropped, unwritten: this.#outbox.unwritten };
  }

  /** Resolves when everything that was due is done, for now. */
  settled(): Promise<void> {
    return this.#worker.settled();
  }

  /** Deletes what is old; by itself once an hour. */
  sweep(): Promise<void> {
    return this.#worker.sweep();
  }

  /** Oldest first; at most 20. */
  async list(channelId: string | undefined): Promise<Webhook[]> {
    const { rows } = await this.#database.query<WebhookRow>(
      'select * from webhooks where channel_id is not distinct from $1 order by created_at, id',
      [channelId ?? null],
    );
    return rows.map(webhookOf);
  }

  /** Rejects with `not_found`. */
  async get(channelId: string | undefined, id: string): Promise<Webhook> {
    return webhookOf(await this.#row(channelId, id));
  }

  /** The secret is never shown again. Rejects: `bad_request` (the address), `conflict` (there are 20). */
  async create(
    channelId: string | undefined,
    { url, events }: { url: string; events: readonly WebhookEvent[] },
    by: WebhookMaker,
  ): Promise<{ webhook: Webhook; secret: string }> {
    const address = await this.#checkedUrl(url);
    const id = randomUUID();
    const secret = makeSecret();
    const row = await this.#database.transaction(async (connection) => {
      await connection.query('select pg_advisory_xact_lock($1, hashtext($2))', [CREATE_LOCK, channelId ?? '']);
      const { rows } = await connection.query<WebhookRow>(
        `insert into webhooks (id, channel_id, url, events, sealed_secret, created_by, created_at, maker_id)
         select $1, $2::uuid, $3, $4, $5, $6, $7, $9::uuid
         where (select count(*) from webhooks where channel_id is not distinct from $2::uuid) < $8 returning *`,
        [
          id,
          channelId ?? null,
          address,
          [...new Set(events)],
          sealSecret(this.#vault, id, { secret }),
          by.id,
          new Date(this.#clock.wallMs()),
          MAX_WEBHOOKS,
          by.accountId ?? null,
        ],
      );
      return rows[0];
    });
    if (!row) throw new VezaError('conflict', `There are ${MAX_WEBHOOKS} webhooks here, which is the limit; delete one first.`);
    return { webhook: webhookOf(row), secret };
  }

  /**
   * `active: true` forgets why it was turned off. Who turns it on or gives it an address has set it up from then on: it ends with their right to
   * manage it. Rejects: `not_found`, `bad_request`.
   */
  async update(
    channelId: string | undefined,
    id: string,
    changes: { url?: string | undefined; events?: readonly WebhookEvent[] | undefined; active?: boolean | undefined },
    by?: WebhookMaker,
  ): Promise<Webhook> {
    await this.#row(channelId, id);
    const url = changes.url === undefined ? null : await this.#checkedUrl(changes.url);
    const { rows } = await this.#database.query<WebhookRow>(
      `update webhooks set url = coalesce($3, url), events = coalesce($4, events), active = coalesce($5, active),
         note = case when $5 then null else note end, failing_since = case when $5 then null else failing_since end,
         maker_id = case when $6 and (coalesce($5, false) or $3 is not null) then $7::uuid else maker_id end
       where id = $1 and channel_id is not distinct from $2 returning *`,
      [
        id,
        channelId ?? null,
        url,
        changes.events ? [...new Set(changes.events)] : null,
        changes.active ?? null,
        by !== undefined,
        by?.accountId ?? null,
      ],
    );
    if (!rows[0]) throw noWebhook();
    if (changes.active) this.#worker.wake();
    return webhookOf(rows[0]);
  }

  /** With its deliveries. Rejects with `not_found`. */
  async delete(channelId: string | undefined, id: string): Promise<void> {
    const { rowCount } = await this.#database.query('delete from webhooks where id = $1 and channel_id is not distinct from $2', [
      id,
      channelId ?? null,
    ]);
    if (rowCount === 0) throw noWebhook();
  }

  /** A new secret. The one before signs as well for `overlapS` (at most a day); 0 for one that got out. Rejects with `not_found`. */
  async replaceSecret(channelId: string | undefined, id: string, overlapS = MAX_OVERLAP_S): Promise<string> {
    const nowMs = this.#clock.wallMs();
    const secret = makeSecret();
    for (;;) {
      const { sealed_secret: before } = await this.#row(channelId, id);
      const [previous] = await openSecrets(this.#vault, id, before, nowMs);
      const sealed = sealSecret(
        this.#vault,
        id,
        previous !== undefined && overlapS > 0 ? { secret, previous, previousUntilMs: nowMs + overlapS * 1000 } : { secret },
      );
      // Only if it is still what was read: else the previous one would be the wrong one.
      const { rowCount } = await this.#database.query('update webhooks set sealed_secret = $2 where id = $1 and sealed_secret = $3', [
        id,
        sealed,
        before,
      ]);
      if (rowCount > 0) return secret;
    }
  }

  /** Newest first, those before `before`. Rejects with `not_found`. */
  async deliveries(channelId: string | undefined, id: string, before: number | undefined, limit: number): Promise<Delivery[]> {
    await this.#row(channelId, id);
    const { rows } = await this.#database.query<DeliveryRow>(
      'select * from webhook_deliveries where webhook_id = $1 and ($2::bigint is null or sequence < $2) order by sequence desc limit $3',
      [id, before ?? null, limit],
    );
    return rows.map(deliveryOf);
  }

  /**
   * Sends `webhook.test` now, once, whether the webhook is on or not; resolves when what came of it is known, which takes 10 s at most. Rejects:
   * `not_found`, `busy` (too many calls to it are under way).
   */
  async test(channelId: string | undefined, id: string, channel: EventChannel | undefined): Promise<Delivery> {
    const { url, sealed_secret: sealedSecret } = await this.#row(channelId, id);
    if (!this.#worker.hasRoomFor(id)) throw new VezaError('busy', 'Calls to this webhook are under way; try again in a moment.');
    const at = new Date(this.#clock.wallMs());
    const deliveryId = randomUUID();
    const body = JSON.stringify({
      event: TEST_EVENT,
      createdAt: at.toISOString(),
      ...(channel && { channel: { slug: channel.slug, title: channel.title } }),
      data: { message: 'It works.' },
    });
    await this.#database.query(
      `insert into webhook_deliveries (id, webhook_id, order_key, event, body, created_at, attempts) values ($1, $2, 'test', $3, $4, $5, 1)`,
      [deliveryId, id, TEST_EVENT, body, at],
    );
    const claimed = { id: deliveryId, webhookId: id, event: TEST_EVENT, body, attempts: 1, createdAtMs: at.getTime(), url, sealedSecret };
    await this.#worker.deliver(claimed, { once: true });
    return this.#delivery(id, deliveryId);
  }

  /** Makes a delivery due now, whatever became of it. Rejects: `not_found`, `conflict` (the webhook is off). */
  async retry(channelId: string | undefined, id: string, deliveryId: string): Promise<Delivery> {
    const { active } = await this.#row(channelId, id);
    if (!active) throw new VezaError('conflict', 'The webhook is off; turn it on first.');
    const { rowCount } = await this.#database.query(
      'update webhook_deliveries set next_attempt_at = $3, delivered_at = null where id = $1 and webhook_id = $2',
      [deliveryId, id, new Date(this.#clock.wallMs())],
    );
    if (rowCount === 0) throw new VezaError('not_found', 'There is no such delivery.');
    this.#worker.wake();
    return this.#delivery(id, deliveryId);
  }

  async #delivery(webhookId: string, id: string): Promise<Delivery> {
    const { rows } = await this.#database.query<DeliveryRow>('select * from webhook_deliveries where id = $1 and webhook_id = $2', [
      id,
      webhookId,
    ]);
    if (!rows[0]) throw new VezaError('not_found', 'There is no such delivery.');
    return deliveryOf(rows[0]);
  }

  async #row(channelId: string | undefined, id: string): Promise<WebhookRow> {
    const { rows } = await this.#database.query<WebhookRow>('select * from webhooks where id = $1 and channel_id is not distinct from $2', [
      id,
      channelId ?? null,
    ]);
    if (!rows[0]) throw noWebhook();
    return rows[0];
  }

  /** Rejects with `bad_request`. Where it leads is asked again at each delivery; now only so that a mistake is told at once. */
  async #checkedUrl(text: string): Promise<string> {
    const url = this.#policy.checkUrl(text);
    await this.#outbound.checkHost(url);
    return url.href;
  }
}

/** An outage of the database is over this long after it is. */
const FLUSH_MS = 5000;

const noWebhook = () => new VezaError('not_found', 'There is no such webhook here.');

interface WebhookRow {
  id: string;
  channel_id: string | null;
  url: string;
  events: WebhookEvent[];
  sealed_secret: Buffer;
  active: boolean;
  note: string | null;
  failing_since: Date | null;
  created_at: Date;
}

const webhookOf = (row: WebhookRow): Webhook => ({
  id: row.id,
  channelId: row.channel_id ?? undefined,
  url: row.url,
  events: row.events,
  active: row.active,
  note: row.note ?? undefined,
  failingSinceMs: row.failing_since?.getTime(),
  createdAtMs: row.created_at.getTime(),
});

interface DeliveryRow {
  id: string;
  sequence: number;
  event: string;
  created_at: Date;
  attempts: number;
  next_attempt_at: Date | null;
  delivered_at: Date | null;
  last_status: number | null;
  last_error: string | null;
}

const deliveryOf = (row: DeliveryRow): Delivery => ({
  id: row.id,
  sequence: row.sequence,
  event: row.event,
  state: row.next_attempt_at ? 'pending' : row.delivered_at ? 'delivered' : 'failed',
  createdAtMs: row.created_at.getTime(),
  attempts: row.attempts,
  nextAttemptAtMs: row.next_attempt_at?.getTime(),
  deliveredAtMs: row.delivered_at?.getTime(),
  lastStatus: row.last_status ?? undefined,
  lastError: row.last_error ?? undefined,
});
