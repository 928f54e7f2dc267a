import type { Ffmpeg } from '../backing/ffmpeg.js';
import type { Registry } from '../backing/registry/registry.js';
import type { Rendition } from '../media/ladder.js';
import type { Clock } from '../runtime/clock.js';
import type { Log } from '../runtime/log.js';
import type { Broadcast } from './broadcast.js';
import type { UnwrittenRecording } from './channel-document.js';
import type { KeptPcm } from './encoder.js';
import type { Uploader } from './uploader.js';
import type { LiveWindow } from './window.js';

export interface LiveChannelInfo {
  readonly id: string;
  readonly slug: string;
  readonly title: string;
  readonly recording: boolean;
  /**
   * How often a stream key of the channel was made void. A broadcast that began with another number
   * must end.
   */
  readonly keyVoids: number;
}

export interface MediaSettings {
  readonly segmentMs: number;
  readonly partMs: number;
  readonly reconnectWindowS: number;
  readonly recordingMaxH: number;
  readonly ladder: readonly Rendition[];
}

export interface LiveMetrics {
  partPublishDelaySeconds(seconds: number): void;
  ingestBytes(channel: string, bytes: number): void;
  cut(removedMs: number): void;
  decoderRestarted(): void;
  encoderRestarted(): void;
  timelineNotDurable(): void;
  /** The encoder did not deliver the end of a broadcast. */
  endLost(): void;
  /** An encoder is behind real time. */
  encoderLagging(): void;
  /** Seconds of sound that no encoder delivered before its run was given up. */
  encodedLost(seconds: number): void;
}

/** A broadcast that is on air or has just ended. */
export interface BroadcastInfo {
  readonly channel: LiveChannelInfo;
  readonly broadcastId: string;
  readonly startedMs: number;
}

/** One recording: a stretch of a broadcast's segments. */
export interface Recording {
  readonly assetId: string;
  readonly channel: LiveChannelInfo;
  readonly window: LiveWindow;
  readonly from: number;
  /** The last segment, inclusive; below `from` when nothing was heard. */
  readonly to: number;
}

export interface BroadcastDeps {
  readonly ffmpeg: Ffmpeg;
  readonly registry: Registry;
  readonly uploader: Uploader;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: LiveMetrics;
  /** The size of the PCM that all encoders of the process keep. */
  readonly kept: KeptPcm;
  /**
   * Called when listeners can hear the broadcast. Not called again when another process resumes it.
   */
  readonly onOnAir?: ((show: BroadcastInfo) => void) | undefined;
  /** Called when a recording begins. The first recording has the id of the broadcast. */
  readonly onRecordingStarted: (recording: { assetId: string; channel: LiveChannelInfo; startedMs: number; firstNumber: number }) => void;
  /** Called when every rendition of a recording is complete. */
  readonly onRecordingEnded: (recording: Recording) => void;
  /**
   * Returns the recordings of this channel that the database does not have yet, including those for
   * which `onRecordingEnded` was just called.
   */
  readonly unwritten: () => readonly UnwrittenRecording[];
  /**
   * Called when the last segment is published and the playlists are marked as ended. The window is
   * still served for a while.
   */
  readonly onEnded: (broadcast: Broadcast) => void;
}
