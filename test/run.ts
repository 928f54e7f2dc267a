/**
 * `npm test`: every check there is, each under its heading with its time. `npm test -- PATTERN…` runs only the test files whose
 * path contains one of the patterns (and nothing else but the build).
 *
 * `npm run test:long` runs the files of `test/long`, which look for faults with random input for as long as `VEZA_LONG_MINUTES` says (each file;
 * an hour in all unless given). Patterns choose among them too. A failure is printed with its seed; `VEZA_SEED` repeats it.
 *
 * A test file is a process of its own. It fails when a test fails, when it holds no test, when one is skipped or left to do, when it does
 * not end by itself (a leaked handle) and when it leaves a process behind.
 */
import { spawn, spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const WHOLE_FOLDERS = ['e2e', 'fault'];
const LONG_FOLDER = 'long';
const LONG_MINUTES_IN_ALL = 60;
/** Whatever else there is, so that no file is forgotten. */
const UNIT_FOLDERS = readdirSync('test', { withFileTypes: true })
  .filter((entry) => entry.isDirectory() && ![...WHOLE_FOLDERS, LONG_FOLDER].includes(entry.name))
  .map((entry) => entry.name);
const UNIT_TIMEOUT_MS = 300_000;
const WHOLE_TIMEOUT_MS = 420_000;

interface Count {
  passed: number;
  failed: number;
}

const total: Count = { passed: 0, failed: 0 };
const failures: string[] = [];
const again: string[] = [];
const isLong = process.argv[2] === '--long';
const patterns = process.argv.slice(isLong ? 3 : 2);

const seconds = (sinceMs: number) => `${((performance.now() - sinceMs) / 1000).toFixed(1)} s`;

function report(good: boolean, name: string, sinceMs: number, note = ''): void {
  console.log(`${good ? '✔' : '✖'} ${name}  ${note}${note && ', '}${seconds(sinceMs)}`);
  if (!good) failures.push(name);
}

/** A check that is one command: counts as one test. */
function check(name: string, command: string, args: readonly string[]): boolean {
  const since = performance.now();
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 26 });
  const good = status === 0;
  if (!good) console.log(`${stdout ?? ''}${stderr ?? ''}${error?.message ?? ''}`);
  total[good ? 'passed' : 'failed']++;
  report(good, name, since);
  return good;
}

function testFiles(folders: readonly string[]): string[] {
  return folders
    .flatMap((folder) => {
      try {
        return readdirSync(`test/${folder}`, { recursive: true, encoding: 'utf8' }).map((file) => `test/${folder}/${file}`);
      } catch {
        return [];
      }
    })
    .filter((file) => file.endsWith('.test.ts'))
    .filter((file) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern)))
    .sort();
}

interface RunOptions {
  readonly timeoutMs: number;
  readonly retry?: string[];
  readonly env?: Readonly<Record<string, string>>;
}

/**
 * Runs one test file to its end in a process group of its own and counts what it says of itself. With `retry` a failure is not counted: the
 * file is put on that list.
 */
async function runFile(file: string, { timeoutMs, retry, env }: RunOptions): Promise<void> {
  const since = performance.now();
  const child = spawn(process.execPath, ['--import', 'tsx', '--test-reporter=spec', file], {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, NODE_NO_WARNINGS: '1', ...env },
  });
  let output = '';
  child.stdout.on('data', (chunk) => (output += chunk));
  child.stderr.on('data', (chunk) => (output += chunk));
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    killGroup(child.pid);
  }, timeoutMs);
  const code = await new Promise<number | null>((done) => child.once('exit', done));
  clearTimeout(timer);
  const left = await leftBehind(child.pid);
  const count = (name: string) => Number(new RegExp(`^ℹ ${name} (\\d+)$`, 'm').exec(output)?.[1] ?? 0);
  const wrong: string[] = [];
  if (late) wrong.push(`did not end within ${timeoutMs / 1000} s (a test that hangs or a leaked handle)`);
  if (count('tests') === 0 && !late) wrong.push('ran no test');
  if (count('skipped') + count('todo') > 0) wrong.push(`${count('skipped')} skipped, ${count('todo')} to do: a test runs or is deleted`);
  if (left) wrong.push('left a process behind');
  const failed = count('fail') + count('cancelled');
  if (retry && (failed > 0 || late)) {
    console.log(`${output.trimEnd()}\n  ${file}: failed in ${seconds(since)}; once more at the end`);
    retry.push(file);
    return;
  }
  if (code !== 0 && failed === 0 && !late) wrong.push(`ended with ${code}`);
  total.passed += count('pass');
  total.failed += failed + wrong.length;
  const good = failed === 0 && wrong.length === 0;
  if (!good) console.log(`${output.trimEnd()}\n${wrong.map((line) => `  ${file}: ${line}`).join('\n')}`);
  report(good, file, since, `${count('pass')} passed`);
}

function killGroup(pid: number | undefined): boolean {
  try {
    if (pid === undefined) return false;
    return process.kill(-pid, 'SIGKILL');
  } catch {
    return false;
  }
}

/** True when something of the group is still there 3 s later; it is ended then. */
async function leftBehind(pid: number | undefined): Promise<boolean> {
  for (let tries = 0; tries < 30; tries++) {
    try {
      process.kill(-(pid ?? 0), 0);
    } catch {
      return false;
    }
    await sleep(100);
  }
  return killGroup(pid);
}

async function runFiles(heading: string, files: string[], atOnce: number, options: RunOptions): Promise<void> {
  if (files.length === 0) {
    if (patterns.length > 0) return;
    console.log(`\n── ${heading}\n✖ no test file`);
    total.failed++;
    failures.push(heading);
    return;
  }
  console.log(`\n── ${heading}`);
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      for (let file = files.shift(); file !== undefined; file = files.shift()) await runFile(file, options);
    }),
  );
}

async function runAll(): Promise<void> {
  if (patterns.length === 0) {
    console.log('\n── types, lint, format');
    check('npm run typecheck', 'npm', ['run', '-s', 'typecheck']);
    check('biome check', 'npx', ['biome', 'check', '--error-on-warnings', '.']);
  }
  await runFiles('units', testFiles(UNIT_FOLDERS), 2, { timeoutMs: UNIT_TIMEOUT_MS, retry: again });
  // These run what was built; without it they would all fail for the same reason.
  if (built) {
    // One after the other: two at once starve each other's encoders on two cores, which is heard.
    const whole = { timeoutMs: WHOLE_TIMEOUT_MS, retry: again };
    await runFiles('whole service, real clients and players, faults', testFiles(WHOLE_FOLDERS), 1, whole);
  }
  // Real browsers, encoders and servers on a machine that others use too are starved now and then. What failed is run once more with nothing
  // beside it, and said: a defect fails again, and a file that is named here often is looked at.
  if (again.length > 0) await runFiles('once more, alone', [...again], 1, { timeoutMs: WHOLE_TIMEOUT_MS });
}

async function runLong(): Promise<void> {
  const files = testFiles([LONG_FOLDER]);
  const minutes = Number(process.env.VEZA_LONG_MINUTES ?? LONG_MINUTES_IN_ALL / Math.max(1, files.length));
  const env = { VEZA_LONG_MINUTES: String(minutes) };
  await runFiles(`random input, ${minutes.toFixed(1)} min a file`, files, 1, { timeoutMs: minutes * 60_000 + WHOLE_TIMEOUT_MS, env });
}

const started = performance.now();
console.log('── build');
const built = check('npm run build', 'npm', ['run', '-s', 'build']);
if (isLong) {
  if (built) await runLong();
} else {
  await runAll();
}
if (total.passed + total.failed === 0) {
  console.log(`no test matches ${patterns.join(' ')}`);
  total.failed++;
}
console.log(`\n── done in ${seconds(started)}`);
for (const name of again) console.log(`run twice: ${name}`);
for (const name of failures) console.log(`failed: ${name}`);
console.log(`${total.passed} passed, ${total.failed} failed`);
process.exitCode = total.failed === 0 ? 0 : 1;
