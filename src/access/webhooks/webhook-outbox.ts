import { randomUUID } from 'node:crypto';
import type { Database, Queryable } from '../../backing/database/database.js';
import { BoundedLog } from '../../runtime/bounded-log.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { EventChannel, WebhookData, WebhookEvent } from './webhook-events.js';

/** A webhook with this many waiting deliveries gets no further events. */
export const MAX_PENDING_PER_WEBHOOK = 1000;
/** At most this many events wait in memory while the database is unavailable. */
export const MAX_UNWRITTEN = 1000;
const MAX_DATA_BYTES = 16_384;

interface Event {
  readonly id: string;
  readonly event: WebhookEvent;
  readonly channelId: string | undefined;
  readonly body: string;
  readonly at: Date;
}

export interface OutboxOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly log: Log;
  /** Called with the number of events that were lost or not stored for a webhook. */
  readonly onDropped: (count: number) => void;
  /** Called when deliveries were stored. */
  readonly onWritten: () => void;
}

/**
 * Stores an event as one delivery for each webhook that wants it. The id of a delivery (a UUID of
 * version 8) is derived from the event and the webhook, so that storing an event again adds
 * nothing.
 */
export class WebhookOutbox {
  readonly #options: OutboxOptions;
  /** Oldest first. The order stays the same during an outage of the database. */
  #unwritten: Event[] = [];
  #writing: Promise<void> | undefined;
  #isUnavailable = false;
  readonly #fullLog: BoundedLog;

  constructor(options: OutboxOptions) {
    this.#options = options;
    this.#fullLog = new BoundedLog(options.log, options.clock);
  }

  /** How many events are only in memory. */
  get unwritten(): number {
    return this.#unwritten.length;
  }

  /**
   * Stores an event. With `connection` it is part of that transaction, and rejects with its errors.
   * Without, it never rejects: while the database is unavailable, at most 1000 events wait in
   * memory. Above that the oldest is dropped, logged and counted. Waiting events are lost if the
   * process ends before the database is back.
   */
  async emit<E extends WebhookEvent>(
    event: E,
    channel: EventChannel | undefined,
    data: WebhookData[E],
    connection?: Queryable,
  ): Promise<void> {
    const at = new Date(this.#options.clock.wallMs());
    const body = JSON.stringify({
      event,
      createdAt: at.toISOString(),
      ...(channel && { channel: { slug: channel.slug, title: channel.title } }),
      data,
    });
    if (Buffer.byteLength(body) > MAX_DATA_BYTES) throw new Error(`${event} has more than ${MAX_DATA_BYTES} bytes`);
    const made: Event = { id: randomUUID(), event, channelId: channel?.id, body, at };
    if (connection) {
      await this.#insert(made, connection);
      return;
    }
    this.#unwritten.push(made);
    while (this.#unwritten.length > MAX_UNWRITTEN) this.#drop(this.#unwritten.shift()!);
    await this.flush();
  }

  /** Stores the events that are in memory. Never rejects. */
  flush(): Promise<void> {
    if (this.#unwritten.length === 0) return Promise.resolve();
    this.#writing ??= this.#flush();
    return this.#writing;
  }

  /** Stores what it can. Every event that is lost gets a log line. */
  async stop(): Promise<void> {
    await this.flush();
    this.#fullLog.close();
    for (const event of this.#unwritten.splice(0)) this.#drop(event);
  }

  async #flush(): Promise<void> {
    const { database, log } = this.#options;
    for (let event = this.#unwritten[0]; event; event = this.#unwritten[0]) {
      try {
        await this.#insert(event, database);
      } catch (error) {
        if (!this.#isUnavailable)
          log.warn(
            { event: 'webhooks.event_not_stored', webhookEvent: event.event, error: messageOf(error) },
            'could not store an event for webhooks; will try again',
          );
        this.#isUnavailable = true;
        break;
      }
      this.#isUnavailable = false;
      // The event may have been dropped while it was stored.
      if (this.#unwritten[0] === event) this.#unwritten.shift();
    }
    // This must follow the last check of the loop without an await: an event in between would wait
    // for the next flush.
    this.#writing = undefined;
  }

  #drop(event: Event): void {
    this.#options.log.error(
      { event: 'webhooks.event_lost', webhookEvent: event.event, channelId: event.channelId },
      'an event for webhooks is lost: the database is unavailable',
    );
    this.#options.onDropped(1);
  }

  async #insert({ id, event, channelId, body, at }: Event, connection: Queryable): Promise<void> {
    const { rows } = await connection.query<{ wanted: number; written: number }>(
      `with wanted as (
         select w.id, (select count(*) from webhook_deliveries d where d.webhook_id = w.id and d.next_attempt_at is not null) as pending
         from webhooks w where w.active and $2::text = any(w.events) and (w.channel_id is null or w.channel_id = $3::uuid)
       ), written as (
         insert into webhook_deliveries (id, webhook_id, order_key, event, body, created_at, next_attempt_at)
         select overlay(overlay(substr(encode(sha256(convert_to($1::text || id::text, 'UTF8')), 'hex'), 1, 32)
           placing '8' from 13) placing 'a' from 17)::uuid, id, coalesce($3::text, ''), $2, $4, $5, $5
         from wanted where pending < $6
         on conflict (id) do nothing
       )
       select count(*) as wanted, count(*) filter (where pending < $6) as written from wanted`,
      [id, event, channelId ?? null, body, at, MAX_PENDING_PER_WEBHOOK],
    );
    const { wanted = 0, written = 0 } = rows[0] ?? {};
    if (wanted > written) {
      this.#fullLog.warn(
        { event: 'webhooks.backlog_full', webhookEvent: event, webhooks: wanted - written },
        'webhooks with too many waiting deliveries did not get an event',
      );
      this.#options.onDropped(wanted - written);
    }
    if (written > 0) this.#options.onWritten();
  }
}
