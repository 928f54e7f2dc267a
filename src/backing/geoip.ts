import { readFile, stat } from 'node:fs/promises';
import { type CountryResponse, Reader } from 'mmdb-lib';
import type { Clock } from '../runtime/clock.js';
import { messageOf } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import { Loop } from '../runtime/loop.js';

/** The database is kept in memory. GeoLite2-Country has 10 MB, the largest one of cities 120 MB. */
const MAX_BYTES = 256 * 1024 * 1024;
const RELOAD_MS = 60_000;

export interface GeoIp {
  /** The country's two letters; undefined when the database does not know the address. */
  countryOf(address: string): string | undefined;
  stop(): Promise<void>;
}

/**
 * Opens a MaxMind database (MMDB) of countries. When the file is replaced, the new one is used
 * after at most a minute. Rejects when the file cannot be read.
 */
export async function openGeoIp(file: string, clock: Clock, log: Log): Promise<GeoIp> {
  let readAt = -1;
  let reader: Reader<CountryResponse> | undefined;
  const load = async () => {
    const { mtimeMs, size } = await stat(file);
    if (mtimeMs === readAt) return;
    if (size > MAX_BYTES) throw new Error(`it is larger than ${MAX_BYTES} bytes`);
    reader = new Reader<CountryResponse>(await readFile(file));
    readAt = mtimeMs;
  };
  await load().catch((error) => {
    throw new Error(`GEOIP_FILE (${file}) cannot be read: ${messageOf(error)}`);
  });
  const reloads = new Loop({
    clock,
    periodMs: RELOAD_MS,
    task: load,
    onError: (error) =>
      log.warn(
        { event: 'geoip.file_unreadable', file, error: messageOf(error) },
        'could not read the new GEOIP_FILE; the previous one stays in use',
      ),
  });
  reloads.start();
  return {
    countryOf(address) {
      try {
        return reader?.get(address)?.country?.iso_code;
      } catch {
        // This part of the file is malformed.
        return undefined;
      }
    },
    stop: () => reloads.stop(),
  };
}
