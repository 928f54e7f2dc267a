import { flag, integer, size, someOf, text } from '../kinds.js';
import { set, unset } from './variable.js';

/** Encoding, segments, recordings and listeners. */
export const MEDIA_VARIABLES = {
  ffmpegPath: unset('FFMPEG_PATH', 'media', text(), 'The ffmpeg to use. Unset: the one that npm installs.'),
  segmentMs: set(
    'SEGMENT_MS',
    'media',
    integer(960, 9600),
    '1920',
    'Length of a segment; a multiple of 960, so that it is a whole number of frames of each codec. A broadcast keeps the value it began with.',
    { unit: 'ms' },
  ),
  partMs: set(
    'PART_MS',
    'media',
    integer(100, 1000),
    '320',
    'Length of a part; less than half a segment. 214 and 107 are the fast profiles. A broadcast keeps the value it began with.',
    { unit: 'ms' },
  ),
  dvrWindowS: set('DVR_WINDOW_S', 'media', integer(60, 86_400), '7200', 'How far listeners can rewind a live broadcast.', { unit: 's' }),
  reconnectWindowS: set(
    'RECONNECT_WINDOW_S',
    'media',
    integer(0, 3600),
    '60',
    'How long a broadcast is held after its broadcaster’s connection is lost.',
    { unit: 's' },
  ),
  recordingMaxH: set('RECORDING_MAX_H', 'media', integer(1, 24), '12', 'A longer broadcast is cut into recordings of this length.', {
    unit: 'h',
  }),
  codecsEnabled: set(
    'CODECS_ENABLED',
    'media',
    someOf('aac', 'opus', 'mp3'),
    'aac,opus,mp3',
    'The codecs to encode; aac, opus or both must be among them.',
  ),
  defaultBitrateKbps: set(
    'DEFAULT_BITRATE',
    'media',
    integer(32, 320),
    '128',
    'The bitrate of the only rendition per codec if `ADAPTIVE_BITRATE` is off; the nearest one of the ladder is used.',
    { unit: 'kbit/s' },
  ),
  adaptiveBitrate: set('ADAPTIVE_BITRATE', 'media', flag, 'true', 'Several bitrates per codec.'),
  maxStreams: set(
    'MAX_STREAMS',
    'media',
    integer(1, 100_000),
    '100',
    'Broadcasts on air at once in this process. One takes a tenth of a core.',
  ),
  maxListenersPerStream: set(
    'MAX_LISTENERS_PER_STREAM',
    'media',
    integer(1, 10_000_000),
    '20000',
    'Open `/listen` connections and blocked playlist requests per channel; further ones are answered 503.',
  ),
  maxFileUploadBytes: set('MAX_FILE_UPLOAD', 'media', size(100e9), '200MB', 'The largest upload. MB is 1,000,000 bytes, MiB 1,048,576.', {
    unit: 'bytes',
    planned: true,
  }),
} as const;
