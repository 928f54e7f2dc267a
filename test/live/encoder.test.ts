import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type KeptPcm, RunEncoder } from '../../src/live/encoder.js';
import { COMMON_FRAME_SAMPLES, FRAME_SAMPLES, LADDER } from '../../src/media/ladder.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { FakeFfmpeg } from '../support/fake-ffmpeg.js';

const BLOCK_SAMPLES = 9600;
const BLOCKS_PER_S = 5;

class Bench {
  readonly ffmpeg = new FakeFfmpeg();
  /** Of each encoder, the position in the run of the first sample that it was given: the tests write it into the samples. */
  readonly firstSamples: number[] = [];
  readonly frames = LADDER.map(() => 0);
  readonly restarts: string[] = [];
  readonly lostMs: number[] = [];
  lags = 0;
  #written = 0;
  readonly #clock = new FakeClock();
  readonly encoder: RunEncoder;

  constructor(readonly kept: KeptPcm = { sizeBytes: 0 }) {
    const ffmpeg: Pick<FakeFfmpeg, 'encoder'> = {
      encoder: (renditions, events) => {
        const transform = this.ffmpeg.encoder(renditions, events);
        const write = transform.write.bind(transform);
        let isFirst = true;
        transform.write = (bytes) => {
          if (isFirst) this.firstSamples.push(new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true));
          isFirst = false;
          return write(bytes);
        };
        return transform;
      },
    };
    this.encoder = new RunEncoder({
      ffmpeg: ffmpeg as unknown as FakeFfmpeg['asFfmpeg'],
      renditions: LADDER,
      clock: this.#clock,
      log: silentLog,
      kept,
      events: {
        onFrame: (rendition, index) => {
          assert.equal(index, this.frames[rendition], 'a frame is missing or comes twice');
          this.frames[rendition] = index + 1;
        },
        onRestart: (reason) => {
          this.restarts.push(reason);
          // The next one is well.
          this.ffmpeg.encodersAreStarved = false;
        },
        onLag: () => {
          this.lags += 1;
        },
        onBroken: (_reason, lostMs) => this.lostMs.push(lostMs),
      },
    });
  }

  /** The encoder's output is what `give` lets out, each second. */
  async write(seconds: number, framesPerS = 0): Promise<void> {
    for (let block = 1; block <= seconds * BLOCKS_PER_S; block += 1) {
      const pcm = new Int16Array(BLOCK_SAMPLES * 2);
      const positions = new Uint32Array(pcm.buffer);
      for (let sample = 0; sample < BLOCK_SAMPLES; sample += 1) positions[sample] = this.#written + sample;
      this.#written += BLOCK_SAMPLES;
      this.#clock.advance(1000 / BLOCKS_PER_S);
      this.encoder.write(pcm);
      if (framesPerS > 0 && block % BLOCKS_PER_S === 0) this.ffmpeg.give(framesPerS);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  assertAllDelivered(): void {
    for (const [index, { codec, name }] of LADDER.entries()) {
      assert.equal(this.frames[index], Math.floor(this.#written / FRAME_SAMPLES[codec]), name);
    }
    assert.deepEqual(this.lostMs, []);
  }
}

test('an encoder that gives frames is let be while it is 40 s behind, and delivers all of it; the lag is told once', async () => {
  const bench = new Bench();
  await bench.write(3);
  bench.ffmpeg.encodersAreStarved = true;
  await bench.write(45, 20);
  assert.ok(bench.encoder.undeliveredMs > 40_000, `${bench.encoder.undeliveredMs} ms behind`);
  bench.ffmpeg.give(100_000);
  bench.assertAllDelivered();
  assert.deepEqual([bench.ffmpeg.encoders.length, bench.restarts.length, bench.lags], [1, 0, 1]);
  bench.ffmpeg.encodersAreStarved = false;
  await bench.write(2);
  bench.assertAllDelivered();
  assert.ok(bench.kept.sizeBytes < 2 * 48_000 * 4, `${bench.kept.sizeBytes} bytes are kept of what is out`);
  bench.encoder.close();
  assert.equal(bench.kept.sizeBytes, 0);
});

test('an encoder that is stuck is replaced after 15 s, and the next one makes all that is missing, also what was behind before', async () => {
  const bench = new Bench();
  await bench.write(3);
  bench.ffmpeg.encodersAreStarved = true;
  await bench.write(8, 5);
  const outBefore = bench.frames[0]!;
  await bench.write(14);
  assert.equal(bench.restarts.length, 0);
  await bench.write(2);
  assert.equal(bench.restarts.length, 1);
  const first = bench.firstSamples[1]!;
  // Blocks before the boundary are cut, so the first sample is the boundary itself.
  assert.equal(first % COMMON_FRAME_SAMPLES, 0);
  assert.ok(first < outBefore * FRAME_SAMPLES.aac, `${first}`);
  bench.assertAllDelivered();
});

test('an encoder that dies when it is 30 s behind is replaced by one that makes all of it', async () => {
  const bench = new Bench();
  await bench.write(3);
  bench.ffmpeg.encodersAreStarved = true;
  await bench.write(33, 12);
  bench.ffmpeg.encoders[0]!.crash();
  await bench.write(1);
  bench.assertAllDelivered();
});

test('an encoder that is replaced at the end of its input makes what is missing and ends', async () => {
  const bench = new Bench();
  await bench.write(3);
  bench.ffmpeg.encodersAreStarved = true;
  await bench.write(12, 5);
  const flushed = bench.encoder.flush();
  bench.encoder.replace();
  await flushed;
  assert.equal(bench.encoder.undeliveredMs, 0);
});

test('a run is given up at 120 s behind, and is told how much is lost', async () => {
  const bench = new Bench();
  bench.ffmpeg.encodersAreStarved = true;
  await bench.write(119, 1);
  assert.deepEqual(bench.lostMs, []);
  await bench.write(4, 1);
  assert.equal(bench.lostMs.length, 1);
  assert.ok(bench.lostMs[0]! > 120_000 && bench.lostMs[0]! < 121_000, `${bench.lostMs[0]} ms`);
  assert.equal(bench.kept.sizeBytes, 0);
});

test('encoders that keep 512 MB together are given up one after the other when they lag, and one that does not lag is let be', async () => {
  const kept = { sizeBytes: 512 * 1024 * 1024 };
  const well = new Bench(kept);
  const slow = new Bench(kept);
  slow.ffmpeg.encodersAreStarved = true;
  await well.write(12);
  await slow.write(9, 1);
  assert.deepEqual(slow.lostMs, []);
  await slow.write(2, 1);
  assert.equal(slow.lostMs.length, 1);
  well.assertAllDelivered();
});
