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

/** At most this many webhooks per channel, and as many for the whole service. */
export const MAX_WEBHOOKS = 20;
/**
 * The number of the advisory lock, the same in every process. It keeps two concurrent requests from
 * both making the last webhook that the limit allows.
 */
const CREATE_LOCK = 0x77686b;

export interface Webhook {
  readonly id: string;
  /** Undefined: the webhook belongs to the service and gets the events of every channel. */
  readonly channelId: string | undefined;
  readonly url: string;
  readonly events: readonly WebhookEvent[];
  readonly active: boolean;
  /** The reason why the service turned it off. */
  readonly note: string | undefined;
  readonly failingSinceMs: number | undefined;
  readonly createdAtMs: number;
}

/**
 * Who sets up a webhook: a principal's id, and its account. The webhook is turned off when that
 * account may not manage it any more.
 */
export interface WebhookMaker {
  readonly id: string;
  readonly accountId?: string | undefined;
}

export interface Delivery {
  readonly id: string;
  readonly sequence: number;
  /** A `WebhookEvent` or `webhook.test`. */
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
  /** Tests resolve host names with it. */
  readonly resolve?: Resolve | undefined;
  readonly random?: (() => number) | undefined;
}

/**
 * Webhooks. An event is stored as one delivery for each webhook that wants it (the outbox, which
 * survives the process), and a worker in each process makes the deliveries that are due. Every
 * method takes the channel of the webhook (undefined for the service): a webhook of another channel
 * is not found.
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
   * Stores an event for the webhooks that want it. With `connection` it is part of that
   * transaction, and rejects with its errors. Without, it never rejects: at most 1000 events wait
   * in memory while the database is unavailable.
   */
  emit<E extends WebhookEvent>(event: E, channel: EventChannel | undefined, data: WebhookData[E], connection?: Queryable): Promise<void> {
    return this.#outbox.emit(event, channel, data, connection);
  }

  /** The figures for the metrics. */
  get counts() {
    const { counters, backlog } = this.#worker;
    return { ...counters, ...backlog, dropped: this.#dropped, unwritten: this.#outbox.unwritten };
  }

  /** Resolves when no delivery is due or running. */
  settled(): Promise<void> {
    return this.#worker.settled();
  }

  /** Deletes old deliveries. Runs by itself once an hour. */
  sweep(): Promise<void> {
    return this.#worker.sweep();
  }

  /** All webhooks of the channel, oldest first; at most 20. */
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

  /**
   * Makes a webhook. Its secret is returned once and cannot be read again. Rejects: `bad_request`
   * (the address), `conflict` (there are 20).
   */
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
    if (!row) throw new VezaError('conflict', `There are at most ${MAX_WEBHOOKS} webhooks here; delete one first.`);
    return { webhook: webhookOf(row), secret };
  }

  /**
   * Changes a webhook. `active: true` clears the reason why it was turned off. A change of `active`
   * to true, or of the address, makes `by` its maker: the webhook ends with their right to manage
   * it. Rejects: `not_found`, `bad_request`.
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

  /** Deletes the webhook with its deliveries. Rejects with `not_found`. */
  async delete(channelId: string | undefined, id: string): Promise<void> {
    const { rowCount } = await this.#database.query('delete from webhooks where id = $1 and channel_id is not distinct from $2', [
      id,
      channelId ?? null,
    ]);
    if (rowCount === 0) throw noWebhook();
  }

  /**
   * Makes a new secret. The old one signs as well for `overlapS` seconds (at most a day); 0 if the
   * old one has leaked. Rejects with `not_found`.
   */
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
      // Only if the secret has not changed since the read: otherwise the wrong one would sign as
      // the previous.
      const { rowCount } = await this.#database.query('update webhooks set sealed_secret = $2 where id = $1 and sealed_secret = $3', [
        id,
        sealed,
        before,
      ]);
      if (rowCount > 0) return secret;
    }
  }

  /**
   * At most `limit` deliveries with a sequence below `before`, newest first. Rejects with
   * `not_found`.
   */
  async deliveries(channelId: string | undefined, id: string, before: number | undefined, limit: number): Promise<Delivery[]> {
    await this.#row(channelId, id);
    const { rows } = await this.#database.query<DeliveryRow>(
      'select * from webhook_deliveries where webhook_id = $1 and ($2::bigint is null or sequence < $2) order by sequence desc limit $3',
      [id, before ?? null, limit],
    );
    return rows.map(deliveryOf);
  }

  /**
   * Sends `webhook.test` once, even if the webhook is off. Resolves when the result is known, after
   * at most 10 s. Rejects: `not_found`, `busy` (too many calls to it are running).
   */
  async test(channelId: string | undefined, id: string, channel: EventChannel | undefined): Promise<Delivery> {
    const { url, sealed_secret: sealedSecret } = await this.#row(channelId, id);
    if (!this.#worker.hasRoomFor(id)) throw new VezaError('busy', 'Too many calls to this webhook are running. Try again in a moment.');
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

  /**
   * Makes a delivery due now, whatever its state. Rejects: `not_found`, `conflict` (the webhook is
   * off).
   */
  async retry(channelId: string | undefined, id: string, deliveryId: string): Promise<Delivery> {
    const { active } = await this.#row(channelId, id);
    if (!active) throw new VezaError('conflict', 'The webhook is off. Turn it on first.');
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

  /**
   * The address in its normal form. Rejects with `bad_request`. The host is checked again at each
   * delivery; this check reports mistakes early.
   */
  async #checkedUrl(text: string): Promise<string> {
    const url = this.#policy.checkUrl(text);
    await this.#outbound.checkHost(url);
    return url.href;
  }
}

/** Events that wait in memory are stored at most this long after the database is back. */
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
