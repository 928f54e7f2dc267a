import { EVERY_WAY, testEveryWay } from '../support/heard-whole.js';

const SOME = ['RTMP, AAC', 'RTMP, MP3', 'Icecast, MP3', 'POST, adts', 'POST, ogg opus', 'POST, flac'];

testEveryWay(
  'every encoder is heard whole in every rendition, with FFMPEG_PATH=/usr/bin/ffmpeg',
  { FFMPEG_PATH: '/usr/bin/ffmpeg' },
  EVERY_WAY.filter(([way]) => SOME.includes(way)),
);
