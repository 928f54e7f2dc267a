/**
 * What other systems are told, and with what. `docs/webhooks.md` lists the same events and members; a test holds the two equal.
 */
const WEBHOOK_EVENTS = {
  'channel.on_air': { text: 'a show went on air', channel: true },
  'channel.off_air': { text: 'a show ended for good; a lost connection that is waited for is no end', channel: true },
  'recording.ready': { text: 'the recording of a show can be played', channel: true },
  'account.banned': { text: 'an account was banned; for webhooks of the service only', channel: false },
} as const;

export type WebhookEvent = keyof typeof WEBHOOK_EVENTS;

/** Times are RFC 3339 in UTC. */
export interface WebhookData {
  'channel.on_air': { broadcastId: string; startedAt: string };
  'channel.off_air': { broadcastId: string; startedAt: string; endedAt: string };
  'recording.ready': {
    /** Its id in `/assets/{id}`. */
    asset: string;
    title: string;
    startedAt: string;
    durationMs: number;
    urls: { hls: string; dash: string };
  };
  'account.banned': { account: { id: string; name: string }; reason: string | null };
}

/** Sent by `POST …/test` to one webhook, whatever it is for. */
export const TEST_EVENT = 'webhook.test';

export const ALL_EVENTS = Object.keys(WEBHOOK_EVENTS) as [WebhookEvent, ...WebhookEvent[]];
export const CHANNEL_EVENTS = ALL_EVENTS.filter((event) => WEBHOOK_EVENTS[event].channel) as [WebhookEvent, ...WebhookEvent[]];

/** The channel that an event is about. */
export interface EventChannel {
  readonly id: string;
  readonly slug: string;
  readonly title: string;
}
