import type Hls from 'hls.js';
import type { Events, HlsConfig, LevelDetails, LoaderResponse, Part, RetryConfig } from 'hls.js';

/**
 * hls.js settings for Veza, for this page and for others who embed a player of their own:
 *
 *     const hls = new Hls(liveConfig());
 *     followLiveEdge(hls);
 *     hls.loadSource('https://radio.example/live/channel/master.m3u8');
 *
 * With its defaults hls.js gives up 1–2 s after the server stops answering: a refused connection
 * has status 0, which hls.js never retries because it might be a CORS mistake. A server that
 * restarts refuses connections for longer.
 */

/**
 * Waits of 0.25, 0.5, 1, 2, 2, … s: 45 of them last 85 s, so a player survives 60 s without a
 * server.
 */
const PATIENT_ATTEMPTS = 45;
const FIRST_RETRY_MS = 250;
/**
 * Longest wait between two attempts: a listener hears the stream again at most this long after the
 * server's return.
 */
const SLOWEST_RETRY_MS = 2_000;

/** Statuses that no retry changes: no right to listen (401, 403), gone for good (410). */
const FINAL_STATUS = new Set([401, 403, 410]);

/** Each stall adds this much to the distance from the edge; hls.js adds a second. */
const STALL_S = 0.32;

function patient(giveUpOn404 = false): RetryConfig {
  return {
    maxNumRetry: PATIENT_ATTEMPTS,
    retryDelayMs: FIRST_RETRY_MS,
    maxRetryDelayMs: SLOWEST_RETRY_MS,
    backoff: 'exponential',
    shouldRetry: (config, attempt, _isTimeout, response: LoaderResponse | undefined) => {
      if (!config || attempt >= config.maxNumRetry) return false;
      const status = response?.code ?? 0;
      return !FINAL_STATUS.has(status) && !(giveUpOn404 && status === 404);
    },
  };
}

/**
 * Settings for the live edge with low latency. The server sets the delay: PART-HOLD-BACK, three
 * parts, plus what stalls have added.
 */
export function liveConfig(): Partial<HlsConfig> {
  return {
    ...loadPolicies(),
    lowLatencyMode: true,
    // Must be above 1, or a slow start is never caught up. 5 % is the smallest step of hls.js, and
    // few ears notice it. `followLiveEdge` steers in finer steps; this is then the fastest rate,
    // and 1 turns steering off.
    maxLiveSyncPlaybackRate: 1.05,
    // A stall adds this much delay (default: 1 s, most of what low latency has won).
    liveSyncOnStallIncrease: STALL_S,
    // Seconds of played sound that are kept: rewind is a presentation of its own. By default hls.js
    // keeps all of it, for days.
    backBufferLength: 30,
    // iPhone (17.1 and later): ManagedMediaSource instead of the native player, so that these
    // settings apply there too.
    preferManagedMediaSource: true,
    // The first estimate decides the first rendition; 500 kbit/s starts with the best AAC.
    abrEwmaDefaultEstimate: 500_000,
    // A rendition that failed once may be chosen again (default: never). Otherwise an outage leaves
    // a listener at 64 kbit/s.
    errorPenaltyExpireMs: 10_000,
  };
}

/**
 * Settings for rewind (`dvr.m3u8`): whole segments at normal speed, without catching up with the
 * live edge.
 */
export function rewindConfig(): Partial<HlsConfig> {
  return { ...liveConfig(), lowLatencyMode: false, maxLiveSyncPlaybackRate: 1 };
}

/** A live listener farther behind than this jumps to the edge instead of playing on. */
const MAX_BEHIND_S = 5;

/**
 * Keeps a player at the live edge: it jumps there after an outage instead of playing on a minute
 * behind. The limit is not among the settings: there, hls.js would also want `liveSyncDuration`,
 * which would overrule the server's PART-HOLD-BACK.
 */
export function followLiveEdge(hls: Hls): void {
  hls.config.liveMaxLatencyDuration = MAX_BEHIND_S;
  // The name of the event as text: this file imports only types from hls.js.
  hls.on('hlsLevelUpdated' as Events.LEVEL_UPDATED, (_event, { details }) => passMissedParts(details));
  keepPace(hls);
  keepUp(hls);
}

/**
 * Farther behind the target than this, the player is 2 % faster, which nobody hears; beyond
 * FAR_BEHIND_S it is as fast as the settings allow.
 */
const BEHIND_S = 0.06;
const CAUGHT_UP_S = 0.02;
const FAR_BEHIND_S = 0.25;
const GENTLY = 1.02;
/** Most distance that stalls may add. */
const MOST_STALLS_S = 2;
/** After this long without a stall, the distance of one stall is taken back. */
const FORGIVEN_AFTER_MS = 30_000;
/**
 * Parts in the buffer below which the player is never faster: the next part is one part away and
 * may be late.
 */
const SAFE_PARTS = 1.25;

/**
 * Steers the playback rate by the buffer, measured in parts, instead of hls.js's own steering.
 * hls.js (1.7.4) plays faster only while more than 1 s is buffered, however short the parts are. With
 * parts of 214 ms the buffer should hold 0.64 s, so that hls.js alone stays 0.3 s behind for good.
 */
function keepPace(hls: Hls): void {
  const fastest = hls.config.maxLiveSyncPlaybackRate;
  if (fastest <= 1) return;
  hls.config.maxLiveSyncPlaybackRate = 1;
  hls.config.liveSyncOnStallIncrease = 0;
  let stallsS = 0;
  let calmSinceMs = 0;
  const stalled = () => {
    // A stall counts only after playing has begun, and with an empty buffer: a frozen machine
    // reports one too, and no distance would help it.
    if (!hls.media || hls.media.seeking || hls.media.played.length === 0 || bufferAheadS(hls.media) > STALL_S) return;
    stallsS = Math.min(MOST_STALLS_S, stallsS + STALL_S);
    calmSinceMs = performance.now();
  };
  const steer = () => {
    const { media, targetLatency, latestLevelDetails: details } = hls;
    if (!media || media.paused || media.seeking || !details?.live || targetLatency === null) return;
    if (stallsS > 0 && performance.now() - calmSinceMs > FORGIVEN_AFTER_MS) {
      stallsS = Math.max(0, stallsS - STALL_S);
      calmSinceMs = performance.now();
    }
    const behindS = hls.latency - targetLatency - stallsS;
    const isFast = media.playbackRate > 1;
    let rate = 1;
    if (bufferAheadS(media) > SAFE_PARTS * (details.partTarget || details.targetduration) && behindS > (isFast ? CAUGHT_UP_S : BEHIND_S)) {
      rate = behindS > FAR_BEHIND_S ? fastest : Math.min(fastest, GENTLY);
    }
    if (media.playbackRate !== rate) media.playbackRate = rate;
  };
  const attach = (media: HTMLMediaElement) => {
    media.addEventListener('timeupdate', steer);
    media.addEventListener('waiting', stalled);
  };
  if (hls.media) attach(hls.media);
  hls.on('hlsMediaAttached' as Events.MEDIA_ATTACHED, (_event, { media }) => attach(media));
  hls.on('hlsMediaDetaching' as Events.MEDIA_DETACHING, () => {
    const { media } = hls;
    if (!media) return;
    media.removeEventListener('timeupdate', steer);
    media.removeEventListener('waiting', stalled);
    media.playbackRate = 1;
  });
}

function bufferAheadS({ buffered, currentTime }: HTMLMediaElement): number {
  for (let i = 0; i < buffered.length; i++) {
    if (buffered.start(i) <= currentTime && buffered.end(i) > currentTime) return buffered.end(i) - currentTime;
  }
  return 0;
}

/**
 * A part that took more than this share of its duration needs a lower rendition, because the
 * playlists come over the same line. At 220 kbit/s a part of aac-256 takes 85 % and a playlist 18
 * %: the buffer loses 10 ms with each part, and once it is empty there is no time to change.
 */
const ROOM_TO_STAY = 0.8;
/**
 * A higher rendition is tried only when its parts would take less than this share of their
 * duration.
 */
const ROOM_TO_RISE = 0.6;
const STAY_DOWN_MS = 10_000;

/**
 * Picks the rendition that the network can carry, part by part. hls.js's estimate changes once per
 * segment and remembers faster times: when a line fell to 150 kbit/s it took 2 to 8 s to leave
 * aac-256, while the second of sound in the buffer was gone after two parts. Here a part that takes
 * nearly its duration lowers the cap at once, and the cap rises by one rendition at a time.
 */
function keepUp(hls: Hls): void {
  let stayUntilMs = 0;
  hls.on('hlsFragLoaded' as Events.FRAG_LOADED, (_event, { frag, part }) => {
    const loaded = hls.levels[frag.level];
    if (!part || !loaded || !hls.autoLevelEnabled) return;
    const tookMs = loadMs(part);
    const lastsMs = part.duration * 1000;
    const nowMs = performance.now();
    const rungs = hls.levels.flatMap((level, index) => (level.codecSet === loaded.codecSet ? [index] : []));
    const lasts = (index: number) => (tookMs * hls.levels[index]!.averageBitrate) / loaded.averageBitrate;
    if (tookMs > ROOM_TO_STAY * lastsMs) {
      stayUntilMs = nowMs + STAY_DOWN_MS;
      const cap = rungs.findLast((index) => index < frag.level && lasts(index) < ROOM_TO_STAY * lastsMs) ?? rungs[0]!;
      if (cap >= frag.level || cap >= hls.loadLevel) return;
      hls.autoLevelCapping = cap;
      hls.nextLoadLevel = cap;
    } else if (hls.autoLevelCapping >= 0 && nowMs > stayUntilMs) {
      const next = rungs.find((index) => index > hls.autoLevelCapping);
      if (next === undefined) hls.autoLevelCapping = -1;
      else if (frag.level >= hls.autoLevelCapping && lasts(next) < ROOM_TO_RISE * lastsMs) {
        hls.autoLevelCapping = next;
        stayUntilMs = nowMs + STAY_DOWN_MS;
      }
    }
  });
}

const loadMs = ({ stats }: Part) => stats.loading.end - stats.loading.start;

/**
 * Marks parts that will never be loaded as gaps, so that the player does not wait for them. A
 * switch in the middle of a segment leaves such parts of the new rendition. hls.js (1.7.4) then
 * goes on from that segment only when the buffer reaches its exact end, and a browser stays short
 * of it: by 21 ms because of the edit list of the encoder's delay, and by 1 µs without one, because
 * it counts in whole microseconds. So the buffer ran empty, and after an underflow Chromium wants
 * up to 3 s of sound before it plays on.
 */
function passMissedParts(details: LevelDetails): void {
  const parts = details.partList ?? [];
  for (let index = parts.length - 1; index > 0; index--) {
    const part = parts[index]!;
    const before = parts[index - 1]!;
    const follows = before.fragment.sn === part.fragment.sn;
    if (follows && (part.loaded || part.gap) && !before.loaded) Object.assign(before, { gap: true });
  }
}

function loadPolicies(): Partial<HlsConfig> {
  return {
    // 404 means off air: the page learns from the API when that changes instead of polling the
    // playlist.
    manifestLoadPolicy: {
      default: { maxTimeToFirstByteMs: 8_000, maxLoadTimeMs: 10_000, timeoutRetry: patient(), errorRetry: patient(true) },
    },
    // A blocked reload is answered within three target durations (6 s), at the latest with 503; a
    // later answer means that the connection is lost.
    playlistLoadPolicy: {
      default: { maxTimeToFirstByteMs: 8_000, maxLoadTimeMs: 12_000, timeoutRetry: patient(), errorRetry: patient() },
    },
    // A part of a run that has ended stays 404, but the next playlist lists others: the retry looks
    // there first.
    fragLoadPolicy: {
      default: { maxTimeToFirstByteMs: 8_000, maxLoadTimeMs: 20_000, timeoutRetry: patient(), errorRetry: patient() },
    },
  };
}
