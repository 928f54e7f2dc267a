// publisher.ts PORT ADTS-FILE KEY… : broadcasters over RTMP that send each frame when its last sample is due, for ever.
import { readFile } from 'node:fs/promises';
import { publishRtmp } from '../support/rtmp-publisher.js';

const [port, path = '', ...keys] = process.argv.slice(2);
const bytes = await readFile(path);
const frames: Buffer[] = [];
for (let at = 0; at + 7 <= bytes.length; ) {
  const size = (bytes.readUIntBE(at + 3, 3) >> 5) & 0x1fff;
  frames.push(bytes.subarray(at + 7, at + size));
  at += size;
}
const frameMs = 1024 / 48;
const sound = { codec: 'aac' as const, config: Buffer.from([0x11, 0x90]), frames, frameMs };
const publishers = await Promise.all(keys.map((key) => publishRtmp({ port: Number(port), key })));
for (const publisher of publishers) publisher.begin(sound);

process.on('SIGTERM', () => {
  for (const publisher of publishers) publisher.unpublish();
  setTimeout(() => process.exit(0), 200);
});

const startMs = performance.now();
console.log(`start ${Date.now() + (startMs - performance.now())}`);
let worstMs = 1;
for (let index = 0; ; index++) {
  const dueMs = startMs + (index + 1) * frameMs;
  // The timer's granularity is a millisecond and it rounds up: the last one is spent in the queue of immediates.
  const waitMs = dueMs - performance.now() - 1;
  if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
  while (performance.now() < dueMs) await new Promise((resolve) => setImmediate(resolve));
  for (const publisher of publishers) publisher.frame(sound, frames[index % frames.length]!);
  const lateMs = performance.now() - dueMs;
  if (lateMs > worstMs) {
    worstMs = lateMs;
    console.log(`late ${lateMs.toFixed(1)}`);
  }
}
