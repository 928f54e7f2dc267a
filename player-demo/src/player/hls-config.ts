import type Hls from 'hls.js';
import type { Events, HlsConfig, LevelDetails, LoaderResponse, Part, RetryConfig } from 'hls.js';

/**
 * hls.js settings for Veza, for this page and for whoever embeds a player of their own:
 *
 *     const hls = new Hls(liveConfig());
 *     followLiveEdge(hls);
 *     hls.loadSource('https://radio.example/live/channel/master.m3u8');
 *
 * With its own defaults hls.js gives up 1–2 s after the server stops answering: a refused connection is status 0, and
 * status 0 is never retried, because it might be a CORS mistake. A server that restarts refuses connections for longer.
 */

/** Waits of 0.25, 0.5, 1, 2, 2, … s: 45 of them last 85 s, so 60 s without a server are survived with room to spare. */
const PATIENT_ATTEMPTS = 45;
const FIRST_RETRY_MS = 250;
/** Also how long after the server's return a listener hears it again, at most. */
const SLOWEST_RETRY_MS = 2_000;

/** Answers that no repetition changes: no right to listen (401, 403), gone for good (410). */
const FINAL_STATUS = new Set([401, 403, 410]);

/** What a stall adds to the distance; hls.js's own is a second. */
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

/** The live edge, low latency. The delay itself is the server's: PART-HOLD-BACK, three parts, unless a stall adds to it. */
export function liveConfig(): Partial<HlsConfig> {
  return {
    ...loadPolicies(),
    lowLatencyMode: true,
    // Above 1, or a slow start is never caught up. 5 % is the smallest step that hls.js takes, and few ears notice it. `followLiveEdge`
    // steers finer; this is then the fastest that it plays, and 1 turns it off.
    maxLiveSyncPlaybackRate: 1.05,
    // After a stall the delay grows by this much (default: 1 s, most of what low latency has won).
    liveSyncOnStallIncrease: STALL_S,
    // What was heard is not needed again: rewind is a presentation of its own. The default keeps it all, for days.
    backBufferLength: 30,
    // iPhone (17.1 and later): ManagedMediaSource instead of the native player, so that all of this holds there too.
    preferManagedMediaSource: true,
    // The first guess decides what a listener hears first; a guess of 500 kbit/s starts at the best AAC rung.
    abrEwmaDefaultEstimate: 500_000,
    // A rung that failed once may be chosen again (default: never), or an outage leaves a listener at 64 kbit/s.
    errorPenaltyExpireMs: 10_000,
  };
}

/** Rewind (`dvr.m3u8`): whole segments, its own pace, and no pull towards the live edge. */
export function rewindConfig(): Partial<HlsConfig> {
  return { ...liveConfig(), lowLatencyMode: false, maxLiveSyncPlaybackRate: 1 };
}

/** How far behind a live listener may fall before the player jumps instead of playing on behind. */
const MAX_BEHIND_S = 5;

/**
 * After an outage, jump to the live edge instead of playing on a minute behind. Not part of the settings object: given there,
 * hls.js asks for `liveSyncDuration` too, and that would overrule the server's PART-HOLD-BACK.
 */
export function followLiveEdge(hls: Hls): void {
  hls.config.liveMaxLatencyDuration = MAX_BEHIND_S;
  // The type of the enum without its value: this file asks nothing of hls.js at run time.
  hls.on('hlsLevelUpdated' as Events.LEVEL_UPDATED, (_event, { details }) => passMissedParts(details));
  keepPace(hls);
  keepUp(hls);
}

/** Behind the target by this much: 2 % faster, which nobody hears; by more than FAR_BEHIND_S as fast as the settings allow. */
const BEHIND_S = 0.06;
const CAUGHT_UP_S = 0.02;
const FAR_BEHIND_S = 0.25;
const GENTLY = 1.02;
/** What stalls add to the distance at most, and after how long without another one is taken back. */
const MOST_STALLS_S = 2;
const FORGIVEN_AFTER_MS = 30_000;
/** Never faster with less than so many parts in the buffer: the next is one part away, and may be late. */
const SAFE_PARTS = 1.25;

/**
 * hls.js (1.7.4) catches up only while more than 1 s is buffered, whatever the part's length: with parts of 214 ms, where 0.64 s is the
 * place to be, it stays 0.3 s behind for good. So its own steering is put aside for one that measures the buffer in parts.
 */
function keepPace(hls: Hls): void {
  const fastest = hls.config.maxLiveSyncPlaybackRate;
  if (fastest <= 1) return;
  hls.config.maxLiveSyncPlaybackRate = 1;
  hls.config.liveSyncOnStallIncrease = 0;
  let stallsS = 0;
  let calmSinceMs = 0;
  const stalled = () => {
    // Not before it has played, and of an empty buffer alone: a machine that froze says so too, and no distance helps it.
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
 * A part that takes more than this share of its own time is of a rung too high: the playlists come on the same line. At 220 kbit/s a part of
 * 256 takes 85 % and a playlist 18 %, so the buffer loses 10 ms with each, and at its end there is no time left to change.
 */
const ROOM_TO_STAY = 0.8;
/** A rung is tried again only when its parts would come in this share of their own time. */
const ROOM_TO_RISE = 0.6;
const STAY_DOWN_MS = 10_000;

/**
 * The rung that the network can carry, from one part to the next. hls.js's estimate changes once a segment and remembers faster days:
 * when a line fell to 150 kbit/s it took 2 to 8 s to leave 256, with the second of sound in the buffer gone after two parts. Here a part
 * that takes nearly as long as it lasts lowers the cap at once, and the cap rises by one rung at a time.
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
 * A switch in the middle of a segment leaves parts of the new rung that are never loaded. hls.js (1.7.4) then goes on from that segment
 * only when the buffer reaches its end to the last bit, and a browser stays short of it: by 21 ms for the edit list of the encoder's
 * delay, and by 1 µs without one, because it counts in whole microseconds. So the buffer ran dry, and after an underflow Chromium
 * wants up to 3 s of sound before it plays on. Parts that are marked as a gap are not waited for.
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
    // 404 here means off air: the page asks the API when that changes instead of hammering the playlist.
    manifestLoadPolicy: {
      default: { maxTimeToFirstByteMs: 8_000, maxLoadTimeMs: 10_000, timeoutRetry: patient(), errorRetry: patient(true) },
    },
    // A blocked reload is answered within three target durations (6 s), with 503 at the latest; later is a dead line.
    playlistLoadPolicy: {
      default: { maxTimeToFirstByteMs: 8_000, maxLoadTimeMs: 12_000, timeoutRetry: patient(), errorRetry: patient() },
    },
    // A part of a run that died is 404 for ever, but the next playlist names others: the retry looks there first.
    fragLoadPolicy: {
      default: { maxTimeToFirstByteMs: 8_000, maxLoadTimeMs: 20_000, timeoutRetry: patient(), errorRetry: patient() },
    },
  };
}
