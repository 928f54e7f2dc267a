import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

/** Seconds of each test file, measured on two cores; what this machine has measured itself comes first. */
const COMMITTED = 'test/times.json';
const MEASURED = '.tmp/test-times.json';

type Times = Record<string, number>;

function read(path: string): Times {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Times;
  } catch {
    return {};
  }
}

const known: Times = { ...read(COMMITTED), ...read(MEASURED) };

/** Of a file that has never been measured nothing is known; it is taken for a long one, so that it is not what everything waits for at the end. */
export const expectedS = (file: string): number => known[file] ?? 60;

export const longestFirst = (files: readonly string[]): string[] => [...files].sort((a, b) => expectedS(b) - expectedS(a));

export function recordTimes(measured: Iterable<readonly [file: string, durationMs: number]>): void {
  const times = read(MEASURED);
  for (const [file, durationMs] of measured) times[file] = Math.round(durationMs / 100) / 10;
  mkdirSync(dirname(MEASURED), { recursive: true });
  writeFileSync(MEASURED, `${JSON.stringify(Object.fromEntries(Object.entries(times).sort()), null, 2)}\n`);
}
