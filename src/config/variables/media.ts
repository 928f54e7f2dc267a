import { flag, integer, size, someOf, text } from '../kinds.js';
import { set, unset } from './variable.js';

/** How shows are encoded, cut and listened to. */
export const MEDIA_VARIABLES = {
  ffmpegPath: unset('FFMPEG_PATH', 'media', text(), 'The ffmpeg to use. Unset: the one that comes from npm.'),
  segmentMs: set(
    'SEGMENT_MS',
    'media',
    integer(960, 9600),
    '1920',
    'Length of a segment; a multiple of 960, so that it is a whole number of frames of each codec. Kept for a broadcast’s life.',
    { unit: 'ms' },
  ),
  partMs: set(
    'PART_MS',
    'media',
    integer(100, 1000),
    '320',
    'Length of a part; less than half a segment. 214 and 107 are the fast profiles. Kept for a broadcast’s life.',
    { unit: 'ms' },
  ),
  dvrWindowS: set('DVR_WINDOW_S', 'media', integer(60, 86_400), '7200', 'How far listeners can rewind a live show.', { unit: 's' }),
  reconnectWindowS: set(
    'RECONNECT_WINDOW_S',
    'media',
    integer(0, 3600),
    '60',
    'How long a show is held when the broadcaster’s connection is lost.',
    { unit: 's' },
  ),
  recordingMaxH: set('RECORDING_MAX_H', 'media', integer(1, 24), '12', 'A show that goes on is cut into recordings of this length.', {
    unit: 'h',
  }),
  codecsEnabled: set(
    'CODECS_ENABLED',
    'media',
    someOf('aac', 'opus', 'mp3'),
    'aac,opus,mp3',
    'What is encoded; aac, opus or both must be in it.',
  ),
  defaultBitrateKbps: set(
    'DEFAULT_BITRATE',
    'media',
    integer(32, 320),
    '128',
    'The rung that is kept when `ADAPTIVE_BITRATE` is off (the nearest there is).',
    { unit: 'kbit/s' },
  ),
  adaptiveBitrate: set('ADAPTIVE_BITRATE', 'media', flag, 'true', 'Several bitrates a codec.'),
  maxStreams: set('MAX_STREAMS', 'media', integer(1, 100_000), '100', 'Shows on air at once in this process. One takes a tenth of a core.'),
  maxListenersPerStream: set(
    'MAX_LISTENERS_PER_STREAM',
    'media',
    integer(1, 10_000_000),
    '20000',
    'Open `/listen` connections and held playlist requests a channel; more are answered 503.',
  ),
  maxFileUploadBytes: set('MAX_FILE_UPLOAD', 'media', size(100e9), '200MB', 'The largest upload. MB is 1,000,000 bytes, MiB 1,048,576.', {
    unit: 'bytes',
    planned: true,
  }),
} as const;
