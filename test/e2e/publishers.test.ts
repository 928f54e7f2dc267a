// Every way in, with the encoders that people use, and what comes out of every rendition judged by ear.
import { EVERY_WAY, testEveryWay } from '../support/heard-whole.js';

testEveryWay('every encoder is heard whole in every rendition, with the ffmpeg from npm', {}, EVERY_WAY);
