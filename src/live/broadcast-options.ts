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

export interface ChannelInfo {
  readonly id: string;
  readonly slug: string;
  readonly title: string;
  readonly recording: boolean;
  /** How often a stream key of the channel was made void. A show that began with another number is over. */
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
  /** The encoder did not deliver the end of a show. */
  endLost(): void;
  /** The encoder is behind real time. */
  encoderLagging(): void;
  /** Sound that no encoder delivered before it was given up. */
  encodedLost(seconds: number): void;
}

/** A broadcast that is on air, or was until now. */
export interface Show {
  readonly channel: ChannelInfo;
  readonly broadcastId: string;
  readonly startedMs: number;
}

/** One recording: a stretch of a broadcast's segments. */
export interface Recording {
  readonly assetId: string;
  readonly channel: ChannelInfo;
  readonly window: LiveWindow;
  readonly from: number;
  /** Inclusive; below `from` when nothing was heard. */
  readonly to: number;
}

export interface BroadcastDeps {
  readonly ffmpeg: Ffmpeg;
  readonly registry: Registry;
  readonly uploader: Uploader;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: LiveMetrics;
  /** The PCM that all encoders of the process keep. */
  readonly kept: KeptPcm;
  /** Listeners hear the show from now on. Not called again when another process goes on with it. */
  readonly onOnAir?: ((show: Show) => void) | undefined;
  /** A recording begins. The first one has the broadcast's own id. */
  readonly onRecordingStarted: (recording: { assetId: string; channel: ChannelInfo; startedMs: number; firstNumber: number }) => void;
  /** Every rendition of it is complete. */
  readonly onRecordingEnded: (recording: Recording) => void;
  /** Recordings of this channel that the database does not have yet, with those that `onRecordingEnded` was just told of. */
  readonly unwritten: () => readonly UnwrittenRecording[];
  /** The last segment is out and listeners were told of the end; the window is still shown for a while. */
  readonly onEnded: (broadcast: Broadcast) => void;
}
