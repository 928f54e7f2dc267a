import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { expectedS, longestFirst } from './times.js';

/**
 * Which test file runs beside which.
 *
 * - **Sound**: files that judge every sample of what is heard in real time. One after the other: two at once starve each other's encoders on two cores, which is heard.
 * - **Beside**: everything else, beside the sound lane.
 *
 * A file of `test/long` is in neither: `npm run test:long` runs it.
 */
const SOUND: readonly string[] = [
  'test/e2e/adaptive.test.ts',
  'test/e2e/players.test.ts',
  'test/e2e/publishers.test.ts',
  'test/e2e/workers.test.ts',
  'test/fault/children.test.ts',
  'test/fault/disk.test.ts',
  'test/fault/ends.test.ts',
  'test/fault/hostile.test.ts',
  'test/fault/publisher.test.ts',
  'test/fault/restart.test.ts',
  'test/fault/unexpected.test.ts',
  'test/fault/uplink.test.ts',
];
/** Test files here start the whole service, as built. */
const WHOLE_FOLDERS: readonly string[] = ['test/e2e/', 'test/fault/'];
const LONG_FOLDER = 'test/long/';

/** After this long a file counts as hanging; on a machine that is busy with something else the slowest take half of it. */
export const TIMEOUT_MS = 420_000;

export interface Lane {
  readonly name: string;
  /** Longest first. */
  readonly files: string[];
  /** Files that run at once. */
  readonly atOnce: number;
}

const ALL = readdirSync('test', { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.test.ts'))
  .map((file) => `test/${file}`)
  .sort();

const isWhole = (file: string) => WHOLE_FOLDERS.some((folder) => file.startsWith(folder));
const isLong = (file: string) => file.startsWith(LONG_FOLDER);

for (const file of SOUND) if (!ALL.includes(file)) throw new Error(`test/support/run/lanes.ts names ${file}, which is not there`);

const chosen = (files: readonly string[], patterns: readonly string[]) =>
  files.filter((file) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern)));

/** The lanes of `npm test`, and of `npm run test:unit` when only units are wanted; only files whose path contains one of the patterns. */
export function lanesOf(patterns: readonly string[], unitsOnly: boolean): Lane[] {
  const files = chosen(ALL, patterns).filter((file) => !isLong(file) && !(unitsOnly && isWhole(file)));
  const cores = availableParallelism();
  return [
    { name: 'sound', files: longestFirst(files.filter((file) => SOUND.includes(file))), atOnce: 1 },
    { name: 'beside', files: longestFirst(files.filter((file) => !SOUND.includes(file))), atOnce: cores },
  ];
}

/** How long a file with random input runs when it is a part of a share. */
export const SHARE_MINUTES = 2;

/** The files of `test/long`; with `shareMinutes` only as many as fit, of which each day begins with another one. */
export function longFiles(patterns: readonly string[], shareMinutes: number | undefined): string[] {
  const files = chosen(ALL.filter(isLong), patterns);
  if (shareMinutes === undefined || files.length === 0) return files;
  const day = Math.floor(Date.now() / 86_400_000) % files.length;
  const share: string[] = [];
  let leftS = shareMinutes * 60;
  for (const file of [...files.slice(day), ...files.slice(0, day)]) {
    if (expectedS(file) > leftS) continue;
    leftS -= expectedS(file);
    share.push(file);
  }
  return share;
}
