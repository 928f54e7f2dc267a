import { type Running, start } from './process.js';

export const BUNDLED_FFMPEG = new URL('../../node_modules/@ffmpeg-installer/linux-x64/ffmpeg', import.meta.url).pathname;

const OUTPUTS = {
  aac: ['-c:a', 'aac', '-b:a', '160k'],
  mp3: ['-c:a', 'libmp3lame', '-b:a', '160k'],
  opus: ['-c:a', 'libopus', '-b:a', '128k'],
} as const;

export interface ToneOptions {
  hz?: number;
  /** Ends by itself after so much sound; for ever unless given. */
  seconds?: number;
  codec?: keyof typeof OUTPUTS;
  /** A picture beside it, as OBS sends. */
  video?: boolean;
  ffmpeg?: string;
  /** As fast as it can instead of in real time. */
  unpaced?: boolean;
}

const source = (options: ToneOptions) => [
  ...['-hide_banner', '-loglevel', 'error', '-nostdin'],
  ...(options.unpaced ? [] : ['-re']),
  ...[
    '-f',
    'lavfi',
    '-i',
    `sine=frequency=${options.hz ?? 997}:sample_rate=48000:samples_per_frame=480,volume=12dB,aformat=channel_layouts=stereo`,
  ],
  ...(options.video ? [...(options.unpaced ? [] : ['-re']), '-f', 'lavfi', '-i', 'testsrc=size=160x90:rate=10'] : []),
  ...(options.seconds === undefined ? [] : ['-t', String(options.seconds)]),
];

/** ffmpeg as a broadcaster's encoder over RTMP; `url` as of `Server.rtmpUrl`. */
export function publishRtmp(url: string, options: ToneOptions = {}): Running {
  const video = options.video ? ['-c:v', 'libx264', '-preset', 'ultrafast', '-tune', 'zerolatency', '-g', '20'] : [];
  return start(options.ffmpeg ?? '/usr/bin/ffmpeg', [...source(options), ...OUTPUTS[options.codec ?? 'aac'], ...video, '-f', 'flv', url]);
}

/** ffmpeg's Icecast output; `url` as of `Server.icecastUrl`. */
export function publishIcecast(url: string, options: ToneOptions = {}): Running {
  const codec = options.codec ?? 'mp3';
  const muxer = {
    mp3: ['-f', 'mp3', '-content_type', 'audio/mpeg'],
    opus: ['-f', 'ogg', '-page_duration', '20000', '-content_type', 'application/ogg'],
    aac: ['-f', 'adts', '-content_type', 'audio/aac'],
  }[codec];
  return start(options.ffmpeg ?? '/usr/bin/ffmpeg', [...source(options), ...OUTPUTS[codec], ...muxer, url]);
}

/** What a chunked POST can carry. */
export const POST_FORMATS = {
  mp3: { type: 'audio/mpeg', args: ['-c:a', 'libmp3lame', '-b:a', '160k', '-f', 'mp3'] },
  adts: { type: 'audio/aac', args: ['-c:a', 'aac', '-b:a', '160k', '-f', 'adts'] },
  'ogg opus': { type: 'audio/ogg', args: ['-c:a', 'libopus', '-b:a', '128k', '-f', 'ogg', '-page_duration', '20000'] },
  'ogg vorbis': { type: 'audio/ogg', args: ['-c:a', 'libvorbis', '-b:a', '160k', '-f', 'ogg', '-page_duration', '20000'] },
  'ogg flac': { type: 'audio/ogg', args: ['-c:a', 'flac', '-f', 'ogg', '-page_duration', '20000'] },
  webm: { type: 'audio/webm', args: ['-c:a', 'libopus', '-b:a', '128k', '-f', 'webm', '-cluster_time_limit', '100', '-live', '1'] },
  flac: { type: 'audio/flac', args: ['-c:a', 'flac', '-f', 'flac'] },
  wav: { type: 'audio/wav', args: ['-c:a', 'pcm_s16le', '-f', 'wav'] },
} as const;
export type PostFormat = keyof typeof POST_FORMATS;

/** ffmpeg to a pipe, in real time, for a test that sends the bytes itself. */
export function encodeTone(format: PostFormat, options: ToneOptions = {}): Running {
  return start(options.ffmpeg ?? '/usr/bin/ffmpeg', [...source(options), ...POST_FORMATS[format].args, '-flush_packets', '1', 'pipe:1']);
}
