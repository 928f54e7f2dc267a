import assert from 'node:assert/strict';
import { mkdtemp, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { openGeoIp } from '../../src/backing/geoip.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';

// A small database in MaxMind's format (https://maxmind.github.io/MaxMind-DB/), written here so that none has to be shipped.

const text = (value: string): Buffer => Buffer.concat([Buffer.of(0x40 | value.length), Buffer.from(value)]);
const map = (...pairs: [string, Buffer][]): Buffer =>
  Buffer.concat([Buffer.of(0xe0 | pairs.length), ...pairs.flatMap(([key, value]) => [text(key), value])]);
const uint16 = (value: number) => Buffer.of(0xa2, value >> 8, value & 0xff);
const uint32 = (value: number) => Buffer.concat([Buffer.of(0xc4), u32(value)]);
const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};

/** Of IPv4 networks, such as `192.0.2.0/24`. */
function database(networks: Readonly<Record<string, string>>): Buffer {
  const nodes: [number | string, number | string][] = [['', '']];
  for (const [network, country] of Object.entries(networks)) {
    const [address = '', bits = ''] = network.split('/');
    const number = address.split('.').reduce((sum, byte) => sum * 256 + Number(byte), 0);
    let node = 0;
    for (let bit = 0; bit < Number(bits); bit++) {
      const side = Math.floor(number / 2 ** (31 - bit)) % 2;
      if (bit === Number(bits) - 1) nodes[node]![side] = country;
      else {
        if (typeof nodes[node]![side] !== 'number') nodes[node]![side] = nodes.push(['', '']) - 1;
        node = nodes[node]![side] as number;
      }
    }
  }
  const data: Buffer[] = [];
  const offsets = new Map<string, number>();
  for (const country of new Set(Object.values(networks))) {
    offsets.set(country, Buffer.concat(data).length);
    data.push(map(['country', map(['iso_code', text(country)])]));
  }
  const record = (to: number | string) => (typeof to === 'number' ? to : to === '' ? nodes.length : nodes.length + 16 + offsets.get(to)!);
  const tree = Buffer.concat(nodes.flatMap(([left, right]) => [u32(record(left)), u32(record(right))]));
  const metadata = map(
    ['node_count', uint32(nodes.length)],
    ['record_size', uint16(32)],
    ['ip_version', uint16(4)],
    ['binary_format_major_version', uint16(2)],
    ['binary_format_minor_version', uint16(0)],
    ['build_epoch', uint32(1_900_000_000)],
    ['database_type', text('Test-Country')],
    ['languages', Buffer.of(0x00, 0x04)],
    ['description', map()],
  );
  return Buffer.concat([tree, Buffer.alloc(16), ...data, Buffer.from('\xab\xcd\xefMaxMind.com', 'latin1'), metadata]);
}

let dir: string;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'veza-geoip-'));
});
after(() => rm(dir, { recursive: true }));

test('an address is looked up; a new database is used without a restart, a broken one is not', async () => {
  const file = join(dir, 'country.mmdb');
  const clock = new FakeClock();
  const failures: unknown[] = [];
  const log = { ...silentLog, warn: (...args: unknown[]) => void failures.push(args) } as typeof silentLog;
  await writeFile(file, database({ '192.0.2.0/24': 'DE', '198.51.100.7/32': 'US' }));
  const geoIp = await openGeoIp(file, clock, log);
  const found = () =>
    ['192.0.2.1', '198.51.100.7', '198.51.100.8', 'no address', '', '2001:db8::1'].map((address) => geoIp.countryOf(address));
  assert.deepEqual(found(), ['DE', 'US', undefined, undefined, undefined, undefined]);

  await writeFile(file, database({ '192.0.2.0/24': 'AT' }));
  await utimes(file, 2_000_000_000, 2_000_000_000);
  clock.advance(60_000);
  while (geoIp.countryOf('192.0.2.1') !== 'AT') await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(found(), ['AT', undefined, undefined, undefined, undefined, undefined]);

  await writeFile(file, 'not a database');
  await utimes(file, 2_000_000_001, 2_000_000_001);
  clock.advance(60_000);
  while (failures.length === 0) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(geoIp.countryOf('192.0.2.1'), 'AT');
  geoIp.stop();
});

test('a file that is not there, or is no database, is named', async () => {
  const file = join(dir, 'none.mmdb');
  await assert.rejects(openGeoIp(file, new FakeClock(), silentLog), /GEOIP_FILE \(.*none\.mmdb\) cannot be read/);
  await writeFile(file, 'x');
  await assert.rejects(openGeoIp(file, new FakeClock(), silentLog), /GEOIP_FILE/);
});
