import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { OggOpusWriter, oggCrc, opusPacketSamples } from '../../src/media/ogg.js';
import { ensurePackages } from '../support/packages.js';

interface Page {
  flags: number;
  granule: number;
  serial: number;
  sequence: number;
  packets: Uint8Array[];
}

/** A strict reader: whole packets only, checksum verified. */
function readPages(bytes: Buffer): Page[] {
  const pages: Page[] = [];
  for (let at = 0; at < bytes.length; ) {
    assert.equal(bytes.toString('latin1', at, at + 4), 'OggS');
    const lacings = bytes[at + 26]!;
    const packets: Uint8Array[] = [];
    let bodyAt = at + 27 + lacings;
    let length = 0;
    for (let i = 0; i < lacings; i++) {
      const lacing = bytes[at + 27 + i]!;
      length += lacing;
      if (lacing === 255) continue;
      packets.push(bytes.subarray(bodyAt, bodyAt + length));
      bodyAt += length;
      length = 0;
    }
    assert.equal(length, 0, 'no packet is continued');
    const page = Buffer.from(bytes.subarray(at, bodyAt));
    const crc = page.readUInt32LE(22);
    page.writeUInt32LE(0, 22);
    assert.equal(oggCrc(page), crc);
    pages.push({
      flags: page[5]!,
      granule: Number(page.readBigInt64LE(6)),
      serial: page.readUInt32LE(14),
      sequence: page.readUInt32LE(18),
      packets,
    });
    at = bodyAt;
  }
  return pages;
}

test('head is an OpusHead page that begins the stream and an OpusTags page', () => {
  const writer = new OggOpusWriter(7);
  const pages = readPages(Buffer.from(writer.head({ channels: 2, preSkip: 312, comments: ['TITLE=Ü'] })));
  assert.deepEqual(
    pages.map((page) => [page.flags, page.granule, page.serial, page.sequence, page.packets.length]),
    [
      [2, 0, 7, 0, 1],
      [0, 0, 7, 1, 1],
    ],
  );
  const head = Buffer.from(pages[0]!.packets[0]!);
  assert.equal(head.toString('latin1', 0, 8), 'OpusHead');
  assert.equal(head[9], 2);
  assert.equal(head.readUInt16LE(10), 312);
  assert.equal(head.readUInt32LE(12), 48_000);
  assert.ok(Buffer.from(pages[1]!.packets[0]!).includes('TITLE=Ü'));
});

test('packets of every length around the lacing boundary come back whole', () => {
  const writer = new OggOpusWriter(1);
  for (const length of [1, 254, 255, 256, 509, 510, 511, 61_440]) {
    const packet = new Uint8Array(length).map((_, i) => i);
    const [page] = readPages(Buffer.from(writer.page(packet, 960)));
    assert.deepEqual(Buffer.from(page!.packets[0]!), Buffer.from(packet));
  }
  const [many] = readPages(Buffer.from(writer.page([new Uint8Array(10), new Uint8Array(255), new Uint8Array(3)], 2880, { end: true })));
  assert.deepEqual([many!.packets.map((packet) => packet.length), many!.flags, many!.granule], [[10, 255, 3], 4, 2880]);
});

test('what does not fit in a page is refused', () => {
  const writer = new OggOpusWriter(1);
  assert.doesNotThrow(() => writer.page(new Uint8Array(255 * 255 - 1), 0));
  assert.throws(() => writer.page(new Uint8Array(255 * 255), 0), RangeError);
  assert.throws(() => new OggOpusWriter(1).head({ channels: 3, preSkip: 0 }), RangeError);
});

test('the length of a packet is read from its first bytes', () => {
  assert.equal(opusPacketSamples(Uint8Array.of((31 << 3) | 0)), 960);
  assert.equal(opusPacketSamples(Uint8Array.of((16 << 3) | 1)), 240);
  assert.equal(opusPacketSamples(Uint8Array.of((3 << 3) | 0)), 2880);
  assert.equal(opusPacketSamples(Uint8Array.of((13 << 3) | 2)), 1920);
  assert.equal(opusPacketSamples(Uint8Array.of((28 << 3) | 3, 48)), 5760);
  assert.equal(opusPacketSamples(Uint8Array.of((31 << 3) | 3, 63)), 0, 'more than 120 ms');
  assert.equal(opusPacketSamples(new Uint8Array(0)), 0);
});

test('ffmpeg decodes what was rewritten packet by packet, to the sample', async (t) => {
  await ensurePackages('ffmpeg');
  const dir = mkdtempSync(join(tmpdir(), 'veza-ogg-'));
  t.after(() => rmSync(dir, { recursive: true }));
  const original = join(dir, 'in.ogg');
  execFileSync('ffmpeg', ['-v', 'error', '-f', 'lavfi', '-i', 'sine=d=2:r=48000', '-ac', '2', '-c:a', 'libopus', '-f', 'ogg', original]);
  const [head, , ...pages] = readPages(readFileSync(original));
  const writer = new OggOpusWriter(99);
  const out = [writer.head(head!.packets[0]!)];
  let granule = 0;
  for (const packet of pages.flatMap((page) => page.packets)) {
    granule += opusPacketSamples(packet);
    out.push(writer.page(packet, granule));
  }
  const decode = (input: Buffer | string) =>
    execFileSync(
      'ffmpeg',
      ['-v', 'error', '-xerror', '-f', 'ogg', '-i', typeof input === 'string' ? input : 'pipe:0', '-t', '1.9', '-f', 's16le', '-'],
      {
        maxBuffer: 1 << 24,
        ...(typeof input === 'string' ? {} : { input }),
      },
    );
  assert.ok(decode(Buffer.concat(out)).equals(decode(original)));
});
