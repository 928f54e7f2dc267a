/**
 * The tests, in lanes (`test/support/run/lanes.ts`), with the time of each file:
 *
 * - `npm test`: types, lint, import rules, and every test file but those of `test/long`.
 * - `npm test -- PATTERN…`: the build, and the test files whose path contains one of the patterns.
 * - `npm run check`: types, lint and import rules alone.
 * - `npm run test:unit`: the build, and the test files that do not start the whole service.
 * - `npm run test:long`: the files of `test/long`: what takes long by its nature, and random input for as long as `VEZA_LONG_MINUTES` says (each
 *   file; an hour in all unless given). A failure is printed with its seed; `VEZA_SEED` repeats it. Patterns choose among them too.
 *   `--share MINUTES`: as many of them as take so long, other ones each day.
 *
 * A test file is a process of its own. It fails when a test fails, when it holds no test, when one is skipped or left to do, when it does
 * not end by itself (a leaked handle) and when it leaves a process behind.
 *
 * Real browsers, encoders and servers on a machine that others use too are starved now and then. Tests that failed are run once more at the end, with
 * nothing beside them, and named: a defect fails again, and a test that is named here often is looked at.
 */
import { startTestPostgres, TEST_POSTGRES } from './support/database.js';
import { build, type Check, checkSource } from './support/run/checks.js';
import { type Lane, lanesOf, longFiles, SHARE_MINUTES, TIMEOUT_MS } from './support/run/lanes.js';
import { type FileOptions, type FileResult, killRunning, runTestFile } from './support/run/test-file.js';
import { recordTimes } from './support/run/times.js';

const LONG_MINUTES_IN_ALL = 60;
const SLOWEST = 10;

const words = process.argv.slice(2);
const mode = words[0]?.startsWith('--') ? words.shift() : undefined;
const shareMinutes = words[0] === '--share' ? Number(words.splice(0, 2)[1]) : undefined;
const patterns = words;

let passed = 0;
let failed = 0;
const failures: string[] = [];
const again: string[] = [];
const durationsMs = new Map<string, number>();

const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;

function fail(name: string): void {
  failed++;
  failures.push(name);
}

function reportCheck({ name, good, durationMs, output }: Check): void {
  if (good) passed++;
  else {
    console.log(output.trimEnd());
    fail(name);
  }
  console.log(`${good ? '✔' : '✖'} ${name}  ${seconds(durationMs)}`);
}

/** Failed in a way that may have been the machine's: it is worth a second run. */
const isWorthAnother = ({ failed, failedOutside, broken }: FileResult) =>
  broken.length === 0 && (failed > 0 || failedOutside !== undefined);

function reportFile(result: FileResult): void {
  const { file, durationMs, output, failedOutside, broken, failedNames } = result;
  const problems = failedOutside === undefined ? broken : [...broken, failedOutside];
  passed += result.passed;
  const isGood = result.failed === 0 && problems.length === 0;
  if (!isGood) console.log(`${output.trimEnd()}\n${problems.map((line) => `  ${file}: ${line}`).join('\n')}`);
  for (const name of failedNames) fail(`${file}: ${name}`);
  for (const problem of problems) fail(`${file}: ${problem}`);
  console.log(`${isGood ? '✔' : '✖'} ${file}  ${result.passed} passed, ${seconds(durationMs)}`);
}

/** Runs the files of a lane; gives those that are worth another run. */
async function runLane(lane: Lane, optionsOf: (file: string) => FileOptions): Promise<FileResult[]> {
  const worth: FileResult[] = [];
  const one = async () => {
    for (let file = lane.files.shift(); file !== undefined; file = lane.files.shift()) {
      const result = await runTestFile(file, optionsOf(file));
      durationsMs.set(file, result.durationMs);
      if (!isWorthAnother(result)) {
        reportFile(result);
        continue;
      }
      worth.push(result);
      const what = result.failedOutside ?? result.failedNames.join(', ');
      console.log(`${result.output.trimEnd()}\n✖ ${file}: ${what}, ${seconds(result.durationMs)}; once more at the end`);
    }
  };
  const sinceMs = performance.now();
  const files = lane.files.length;
  await Promise.all(Array.from({ length: lane.atOnce }, one));
  if (files > 0) console.log(`── lane ${lane.name}: ${files} files in ${seconds(performance.now() - sinceMs)}`);
  return worth;
}

/** Only the tests that failed; a file that failed outside of its tests is run as a whole. */
async function runAgain(results: readonly FileResult[], optionsOf: (file: string) => FileOptions): Promise<void> {
  if (results.length > 0) console.log('\n── once more, alone');
  for (const { file, failedNames, failedOutside, passed: before } of results) {
    const isPart = failedOutside === undefined && failedNames.length > 0;
    again.push(...(isPart ? failedNames.map((name) => `${file}: ${name}`) : [`${file}: ${failedOutside}`]));
    if (isPart) passed += before;
    reportFile(await runTestFile(file, isPart ? { ...optionsOf(file), only: failedNames } : optionsOf(file)));
  }
}

async function runTests(): Promise<void> {
  const lanes = lanesOf(patterns, mode === '--unit');
  if (lanes.every(({ files }) => files.length === 0)) return;
  console.log(`\n── ${lanes.map(({ name, files }) => `${name}: ${files.length} files`).join(', ')}`);
  const postgres = await startTestPostgres();
  postgres.endWithProcess();
  const optionsOf = () => ({ timeoutMs: TIMEOUT_MS, env: { [TEST_POSTGRES]: postgres.url } });
  try {
    const worth = await Promise.all(lanes.map((lane) => runLane(lane, optionsOf)));
    await runAgain(worth.flat(), optionsOf);
  } finally {
    await postgres.stop();
  }
  const slowest = [...durationsMs].sort(([, one], [, other]) => other - one).slice(0, SLOWEST);
  if (slowest.length > 1) console.log(`\n── slowest\n${slowest.map(([file, ms]) => `${seconds(ms).padStart(9)} ${file}`).join('\n')}`);
}

async function runLong(): Promise<void> {
  const files = longFiles(patterns, shareMinutes);
  const given = process.env.VEZA_LONG_MINUTES;
  const minutes =
    given === undefined ? (shareMinutes === undefined ? LONG_MINUTES_IN_ALL / Math.max(1, files.length) : SHARE_MINUTES) : Number(given);
  console.log(`\n── long: ${files.length} files, random input for ${minutes.toFixed(1)} min each`);
  const optionsOf = () => ({ timeoutMs: minutes * 60_000 + TIMEOUT_MS, env: { VEZA_LONG_MINUTES: String(minutes) } });
  // What random input has found is not tried again: it comes with its seed.
  for (const file of files) {
    const result = await runTestFile(file, optionsOf());
    durationsMs.set(file, result.durationMs);
    reportFile(result);
  }
}

process.on('exit', killRunning);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1));

const startedMs = performance.now();
if (mode === '--check' || (mode === undefined && patterns.length === 0)) {
  console.log('── types, lint, format, import rules');
  for (const check of await checkSource()) reportCheck(check);
}
if (mode !== '--check') {
  console.log('── build');
  const built = await build();
  reportCheck(built);
  // Without it the tests that run what was built would all fail for the same reason.
  if (built.good) await (mode === '--long' ? runLong() : runTests());
  if (durationsMs.size === 0 && built.good) fail(`no test matches ${patterns.join(' ')}`);
  // What an hour of random input took says nothing of what a share takes.
  if (mode !== '--long' || shareMinutes !== undefined) recordTimes(durationsMs);
}
console.log(`\n── done in ${seconds(performance.now() - startedMs)}`);
for (const name of again) console.log(`run twice: ${name}`);
for (const name of failures) console.log(`failed: ${name}`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
