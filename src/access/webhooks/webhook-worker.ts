import { createHmac } from 'node:crypto';
import type { Database } from '../../backing/database/database.js';
import { OUTBOUND_TIMEOUT_MS, type Outbound, type OutboundResult } from '../../backing/outbound.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { Vault } from '../vault.js';
import { openSecrets } from './webhook-secrets.js';

/** At most this many deliveries run at once in this process. */
export const MAX_UNDER_WAY = 64;
/** At most this many of them are retries. */
export const MAX_RETRIES_UNDER_WAY = 32;
/** At most this many of them go to one webhook. */
export const MAX_UNDER_WAY_PER_WEBHOOK = 4;
/** Deliveries that other processes stored, and retries that are due, are looked for this often. */
export const POLL_MS = 5000;
/** The pause between `wake` and the query, in which the transaction that called it can commit. */
const WAKE_MS = 50;
/** Calls that run at `stop` may take this long before they are aborted. */
const STOP_GRACE_MS = 3000;
/**
 * A process that claimed a delivery and did not finish it in this time is dead, and any process may
 * claim it.
 */
export const LEASE_MS = OUTBOUND_TIMEOUT_MS + 50_000;
const FIRST_RETRY_MS = 5000;
export const MAX_RETRY_MS = 12 * 3600_000;
/** A delivery that failed for this long is given up. */
export const GIVE_UP_AFTER_MS = 3 * 86_400_000;
/** A webhook is turned off if all its deliveries have failed for this long. */
export const PAUSE_AFTER_MS = 5 * 86_400_000;
/**
 * A failed delivery blocks later ones of the same channel for at most this many attempts: some five
 * minutes.
 */
export const TRIES_IN_ORDER = 6;
const SWEEP_MS = 3600_000;
/** Deliveries are deleted after this time. */
export const KEPT_MS = 30 * 86_400_000;
const SWEEP_BATCH = 1000;
const MEASURE_MS = 30_000;

export interface WebhookWorkerOptions {
  readonly database: Database;
  readonly vault: Vault;
  readonly outbound: Outbound;
  readonly clock: Clock;
  readonly log: Log;
  /** A random number from 0 to less than 1. */
  readonly random?: () => number;
}

export interface Claimed {
  readonly id: string;
  readonly webhookId: string;
  readonly event: string;
  readonly body: string;
  /**
   * The number of this attempt. A later claim has a higher number; the result of an earlier one is
   * then ignored.
   */
  readonly attempts: number;
  readonly createdAtMs: number;
  readonly url: string;
  readonly sealedSecret: Buffer;
}

export type DeliveryOutcome = 'taken' | 'failed' | 'given-up';

/**
 * Delivers each event at least once. A process claims due deliveries, so that no other process
 * takes them, calls the webhooks and stores the results. If it dies, its claims expire.
 *
 * Events of one channel go to a webhook one after the other, oldest first. A failed delivery blocks
 * later ones only for its first attempts.
 */
export class WebhookWorker {
  readonly #options: WebhookWorkerOptions;
  readonly #random: () => number;
  /** Running deliveries by webhook. */
  readonly #running = new Map<string, number>();
  readonly #work = new Set<Promise<void>>();
  #retries = 0;
  #claiming: Promise<void> | undefined;
  #isClaimWanted = false;
  #stopped = false;
  #isUnavailable = false;
  #cancelWake: (() => void) | undefined;
  #cancel: (() => void)[] = [];
  readonly counters: Record<DeliveryOutcome, number> = { taken: 0, failed: 0, 'given-up': 0 };
  /** The backlog of all processes at the last measurement. */
  readonly backlog = { waiting: 0, oldestDueS: 0 };

  constructor(options: WebhookWorkerOptions) {
    this.#options = options;
    this.#random = options.random ?? Math.random;
  }

  start(): void {
    const { clock } = this.#options;
    this.#cancel = [
      clock.every(POLL_MS, () => this.#claimDue()),
      clock.every(MEASURE_MS, () => void this.#quietly(() => this.#measure())),
      clock.every(SWEEP_MS, () => void this.#quietly(() => this.sweep())),
    ];
    this.wake();
  }

  /**
   * Lets running calls finish for at most 3 s, then aborts them. The next process that claims them
   * calls again.
   */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancelWake?.();
    for (const cancel of this.#cancel.splice(0)) cancel();
    await this.#claiming;
    const cancel = this.#options.clock.after(STOP_GRACE_MS, () => this.#options.outbound.stop());
    await Promise.allSettled(this.#work);
    cancel();
    this.#options.outbound.stop();
  }

  /**
   * Looks for due deliveries after a short pause, so that the transaction that stored them has
   * committed.
   */
  wake(): void {
    if (this.#stopped || this.#cancelWake) return;
    this.#cancelWake = this.#options.clock.after(WAKE_MS, () => {
      this.#cancelWake = undefined;
      this.#claimDue();
    });
  }

  /** Resolves when no delivery is due or running. */
  async settled(): Promise<void> {
    while (this.#claiming || this.#work.size > 0) await Promise.allSettled([this.#claiming, ...this.#work]);
  }

  /** Whether the limits allow one more call to this webhook now. */
  hasRoomFor(webhookId: string): boolean {
    return this.#work.size < MAX_UNDER_WAY && (this.#running.get(webhookId) ?? 0) < MAX_UNDER_WAY_PER_WEBHOOK;
  }

  /**
   * Makes a delivery that is claimed already. Resolves when its result is stored. `once`: no
   * retries.
   */
  deliver(claimed: Claimed, { once = false } = {}): Promise<void> {
    const { webhookId } = claimed;
    const isRetry = claimed.attempts > 1;
    this.#running.set(webhookId, (this.#running.get(webhookId) ?? 0) + 1);
    if (isRetry) this.#retries += 1;
    const work = this.#deliver(claimed, once)
      .catch((error) => this.#logUnavailable(error))
      .finally(() => {
        const left = (this.#running.get(webhookId) ?? 1) - 1;
        if (left > 0) this.#running.set(webhookId, left);
        else this.#running.delete(webhookId);
        if (isRetry) this.#retries -= 1;
        this.#work.delete(work);
        this.#claimDue();
      });
    this.#work.add(work);
    return work;
  }

  #claimDue(): void {
    if (this.#stopped) return;
    if (this.#claiming) {
      this.#isClaimWanted = true;
      return;
    }
    this.#claiming = this.#claim()
      .catch((error) => this.#logUnavailable(error))
      .then(() => {
        this.#claiming = undefined;
        if (!this.#isClaimWanted) return;
        this.#isClaimWanted = false;
        this.#claimDue();
      });
  }

  async #claim(): Promise<void> {
    const free = MAX_UNDER_WAY - this.#work.size;
    if (free <= 0) return;
    const { database, clock } = this.#options;
    const nowMs = clock.wallMs();
    const { rows } = await database.query<ClaimedRow>(
      `with busy as (
         select * from unnest($2::uuid[], $3::int[]) as b (webhook_id, calls)
       ), due as (
         select d.id, d.next_attempt_at, d.attempts > 0 as is_retry,
           coalesce(b.calls, 0) + row_number() over (partition by d.webhook_id order by d.sequence) as place,
           row_number() over (partition by d.attempts > 0 order by d.next_attempt_at) as place_of_kind
         from webhook_deliveries d join webhooks w on w.id = d.webhook_id left join busy b on b.webhook_id = d.webhook_id
         where d.next_attempt_at <= $1 and w.active
           and not exists (
             select 1 from webhook_deliveries e
             where e.webhook_id = d.webhook_id and e.order_key = d.order_key and e.sequence < d.sequence
               and e.next_attempt_at is not null and e.attempts < $4)
       ), claimed as (
         select d.id from due join webhook_deliveries d on d.id = due.id
         where due.place <= $5 and (not due.is_retry or due.place_of_kind <= $6) and d.next_attempt_at <= $1
         order by due.is_retry, due.place, due.next_attempt_at limit $7
         for update of d skip locked
       )
       update webhook_deliveries d set attempts = d.attempts + 1, next_attempt_at = $8
       from claimed c, webhooks w where d.id = c.id and w.id = d.webhook_id
       returning d.id, d.webhook_id, d.sequence, d.event, d.body, d.attempts, d.created_at, w.url, w.sealed_secret`,
      [
        new Date(nowMs),
        [...this.#running.keys()],
        [...this.#running.values()],
        TRIES_IN_ORDER,
        MAX_UNDER_WAY_PER_WEBHOOK,
        Math.max(0, MAX_RETRIES_UNDER_WAY - this.#retries),
        free,
        new Date(nowMs + LEASE_MS),
      ],
    );
    this.#isUnavailable = false;
    rows.sort((one, other) => one.sequence - other.sequence);
    for (const row of rows) void this.deliver(claimedOf(row));
    // A webhook may have more due deliveries than one query returns.
    if (rows.length > 0) this.#isClaimWanted = true;
  }

  async #deliver(claimed: Claimed, once: boolean): Promise<void> {
    const result = await this.#call(claimed).catch((error): OutboundResult => ({ status: undefined, error: messageOf(error) }));
    const nowMs = this.#options.clock.wallMs();
    const { status } = result;
    if (status !== undefined && status >= 200 && status < 300) {
      await this.#taken(claimed, status, nowMs);
      return;
    }
    const error = status === undefined ? result.error : `answered ${status}`;
    const nextMs = once || status === 410 ? undefined : this.#nextAttemptMs(claimed, result, nowMs);
    await this.#failed(claimed, { status, error: error.slice(0, 300), nextMs, nowMs });
    if (!once) await this.#disableIfFailing(claimed.webhookId, status, error, nowMs);
  }

  async #call(claimed: Claimed): Promise<OutboundResult> {
    const { vault, outbound, clock } = this.#options;
    const nowMs = clock.wallMs();
    const secrets = await openSecrets(vault, claimed.webhookId, claimed.sealedSecret, nowMs);
    const body = Buffer.from(bodyOf(claimed));
    const timestamp = String(Math.floor(nowMs / 1000));
    const headers = {
      'Content-Type': 'application/json',
      'User-Agent': 'Veza-Webhooks/1',
      'Veza-Event': claimed.event,
      'Veza-Delivery': claimed.id,
      'Veza-Timestamp': timestamp,
      'Veza-Signature': secrets.map((secret) => `v1=${signatureOf(secret, timestamp, body)}`).join(','),
    };
    return outbound.post(new URL(claimed.url), headers, body);
  }

  /**
   * The time of the next attempt: exponential with full jitter, so that a receiver that is back
   * does not get everything at once. Undefined: the delivery is given up.
   */
  #nextAttemptMs({ attempts, createdAtMs }: Claimed, result: OutboundResult, nowMs: number): number | undefined {
    const ceilingMs = Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(attempts, 30));
    const askedMs = result.status === undefined ? 0 : Math.min(MAX_RETRY_MS, (result.retryAfterS ?? 0) * 1000);
    const nextMs = nowMs + Math.max(FIRST_RETRY_MS, Math.round(this.#random() * ceilingMs), askedMs);
    return nextMs - createdAtMs < GIVE_UP_AFTER_MS ? nextMs : undefined;
  }

  async #taken({ id, webhookId, attempts }: Claimed, status: number, nowMs: number): Promise<void> {
    const { database } = this.#options;
    this.counters.taken += 1;
    await database.query(
      `update webhook_deliveries set delivered_at = $3, next_attempt_at = null, last_status = $4, last_error = null
       where id = $1 and attempts = $2`,
      [id, attempts, new Date(nowMs), status],
    );
    await database.query('update webhooks set failing_since = null where id = $1 and failing_since is not null', [webhookId]);
  }

  async #failed(
    { id, webhookId, event, attempts, url }: Claimed,
    { status, error, nextMs, nowMs }: { status: number | undefined; error: string; nextMs: number | undefined; nowMs: number },
  ): Promise<void> {
    const { database, log } = this.#options;
    this.counters[nextMs === undefined ? 'given-up' : 'failed'] += 1;
    const fields = { webhook: webhookId, delivery: id, webhookEvent: event, host: new URL(url).host, attempts, error };
    if (nextMs === undefined) log.warn({ event: 'webhooks.delivery_given_up', ...fields }, 'a webhook delivery was given up');
    else
      log.info(
        { event: 'webhooks.delivery_failed', ...fields, againInS: Math.round((nextMs - nowMs) / 1000) },
        'a webhook delivery failed; will try again',
      );
    await database.query(
      'update webhook_deliveries set next_attempt_at = $3, last_status = $4, last_error = $5 where id = $1 and attempts = $2',
      [id, attempts, nextMs === undefined ? null : new Date(nextMs), status ?? null, error],
    );
  }

  /** Turns a webhook off if its receiver is gone or has failed for too long. */
  async #disableIfFailing(webhookId: string, status: number | undefined, error: string, nowMs: number): Promise<void> {
    const { database } = this.#options;
    if (status === 410) {
      await this.#disable(webhookId, 'The receiver answered 410 Gone.');
      await database.query(
        `update webhook_deliveries set next_attempt_at = null, last_error = 'the receiver is gone' where webhook_id = $1 and next_attempt_at is not null`,
        [webhookId],
      );
      return;
    }
    const { rows } = await database.query<{ failing_since: Date }>(
      'update webhooks set failing_since = coalesce(failing_since, $2) where id = $1 returning failing_since',
      [webhookId, new Date(nowMs)],
    );
    const since = rows[0]?.failing_since;
    if (since && nowMs - since.getTime() >= PAUSE_AFTER_MS) {
      await this.#disable(webhookId, `Nothing has been taken since ${since.toISOString()}; the last try: ${error}.`);
    }
  }

  async #disable(webhookId: string, note: string): Promise<void> {
    const { rowCount } = await this.#options.database.query('update webhooks set active = false, note = $2 where id = $1 and active', [
      webhookId,
      note,
    ]);
    if (rowCount > 0) this.#options.log.warn({ event: 'webhooks.disabled', webhook: webhookId, note }, 'a webhook was turned off');
  }

  /** Deletes old deliveries, and gives up those that wait for a webhook that is off. */
  async sweep(): Promise<void> {
    const { database, clock } = this.#options;
    const nowMs = clock.wallMs();
    await database.query(
      `update webhook_deliveries set next_attempt_at = null, last_error = coalesce(last_error, 'the webhook was off')
       where next_attempt_at <= $1 and created_at < $2 and webhook_id in (select id from webhooks where not active)`,
      [new Date(nowMs), new Date(nowMs - GIVE_UP_AFTER_MS)],
    );
    for (let gone = SWEEP_BATCH; gone >= SWEEP_BATCH && !this.#stopped; ) {
      const { rowCount } = await database.query(
        'delete from webhook_deliveries where id in (select id from webhook_deliveries where created_at < $1 limit $2)',
        [new Date(nowMs - KEPT_MS), SWEEP_BATCH],
      );
      gone = rowCount;
    }
  }

  async #measure(): Promise<void> {
    const { database, clock } = this.#options;
    const { rows } = await database.query<{ waiting: number; oldest: Date | null }>(
      `select count(*) as waiting, min(d.next_attempt_at) as oldest
       from webhook_deliveries d join webhooks w on w.id = d.webhook_id where d.next_attempt_at is not null and w.active`,
    );
    const { waiting = 0, oldest = null } = rows[0] ?? {};
    this.backlog.waiting = waiting;
    this.backlog.oldestDueS = oldest === null ? 0 : Math.max(0, (clock.wallMs() - oldest.getTime()) / 1000);
  }

  async #quietly(task: () => Promise<void>): Promise<void> {
    await task().catch((error) => this.#logUnavailable(error));
  }

  #logUnavailable(error: unknown): void {
    if (!this.#isUnavailable)
      this.#options.log.warn(
        { event: 'webhooks.queue_unreadable', error: messageOf(error) },
        'could not read the webhook deliveries; will try again',
      );
    this.#isUnavailable = true;
  }
}

/** The body of a delivery. It is the same for every attempt. */
const bodyOf = ({ id, body }: { id: string; body: string }): string => `{"id":"${id}",${body.slice(1)}`;

const signatureOf = (secret: string, timestamp: string, body: Uint8Array): string =>
  createHmac('sha256', secret).update(`${timestamp}.`).update(body).digest('hex');

interface ClaimedRow {
  id: string;
  webhook_id: string;
  sequence: number;
  event: string;
  body: string;
  attempts: number;
  created_at: Date;
  url: string;
  sealed_secret: Buffer;
}

const claimedOf = (row: ClaimedRow): Claimed => ({
  id: row.id,
  webhookId: row.webhook_id,
  event: row.event,
  body: row.body,
  attempts: row.attempts,
  createdAtMs: row.created_at.getTime(),
  url: row.url,
  sealedSecret: row.sealed_secret,
});
