/**
 * Events for other systems, and their data. `docs/webhooks.md` lists the same events; a test checks
 * that.
 */
const WEBHOOK_EVENTS = {
  'channel.on_air': { text: 'a broadcast went on air', channel: true },
  'channel.off_air': { text: 'a broadcast ended; a lost connection within the reconnect window does not end it', channel: true },
  'recording.ready': { text: 'the recording of a broadcast can be played', channel: true },
  'account.banned': { text: 'an account was banned; for webhooks of the service only', channel: false },
} as const;

export type WebhookEvent = keyof typeof WEBHOOK_EVENTS;

/** The data of each event. Times are RFC 3339 in UTC. */
export interface WebhookData {
  'channel.on_air': { broadcastId: string; startedAt: string };
  'channel.off_air': { broadcastId: string; startedAt: string; endedAt: string };
  'recording.ready': {
    /** The asset's id in `/assets/{id}`. */
    asset: string;
    title: string;
    startedAt: string;
    durationMs: number;
    urls: { hls: string; dash: string };
  };
  'account.banned': { account: { id: string; name: string }; reason: string | null };
}

/** The event that `POST …/test` sends to one webhook, whatever its events are. */
export const TEST_EVENT = 'webhook.test';

export const ALL_EVENTS = Object.keys(WEBHOOK_EVENTS) as [WebhookEvent, ...WebhookEvent[]];
export const CHANNEL_EVENTS = ALL_EVENTS.filter((event) => WEBHOOK_EVENTS[event].channel) as [WebhookEvent, ...WebhookEvent[]];

/** The channel that an event is about. */
export interface EventChannel {
  readonly id: string;
  readonly slug: string;
  readonly title: string;
}
