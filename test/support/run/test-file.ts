import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { EndedTest } from './reporter.js';

export interface FileResult {
  readonly file: string;
  readonly durationMs: number;
  readonly passed: number;
  readonly failed: number;
  /** Names by which node:test runs the failed tests again: of the outermost test of each. */
  readonly failedNames: readonly string[];
  /** The process failed outside of its tests: it hung, or ended with an error that belongs to none. */
  readonly failedOutside: string | undefined;
  /** Rules that the file breaks, which it breaks again when it is run again. */
  readonly broken: readonly string[];
  readonly output: string;
}

export interface FileOptions {
  readonly timeoutMs: number;
  readonly env?: Readonly<Record<string, string>>;
  /** Only these of its tests, by name. */
  readonly only?: readonly string[];
}

/** Leaders of the process groups that run now. */
const running = new Set<number>();

/** For a run that is broken off: no test file goes on without it. */
export function killRunning(): void {
  for (const pid of running) killGroup(pid);
}

/**
 * Runs one test file to its end in a process group of its own. It breaks a rule when it holds no test, when a test is skipped or left to do,
 * and when it leaves a process behind. One that does not end by itself (a leaked handle) is killed with its group.
 */
export async function runTestFile(file: string, { timeoutMs, env, only }: FileOptions): Promise<FileResult> {
  const sinceMs = performance.now();
  const dir = mkdtempSync(join(tmpdir(), 'veza-run-'));
  const lines = join(dir, 'tests');
  const reporters = ['--test-reporter=spec', '--test-reporter-destination=stdout'];
  reporters.push('--test-reporter=./test/support/run/reporter.ts', `--test-reporter-destination=${lines}`);
  const names = (only ?? []).map((name) => `--test-name-pattern=^${name.replaceAll(/[\\^$.*+?()[\]{}|/]/g, '\\$&')}$`);
  const child = spawn(process.execPath, ['--import', 'tsx', ...reporters, ...names, file], {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, NODE_NO_WARNINGS: '1', ...env },
  });
  if (child.pid !== undefined) running.add(child.pid);
  let output = '';
  child.stdout.on('data', (chunk) => (output += chunk));
  child.stderr.on('data', (chunk) => (output += chunk));
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    killGroup(child.pid);
  }, timeoutMs);
  const code = await new Promise<number | null>((done) => child.once('exit', done));
  clearTimeout(timer);
  const durationMs = performance.now() - sinceMs;
  const hasLeft = await leavesProcess(child.pid);
  if (child.pid !== undefined) running.delete(child.pid);
  const { passed, failed, failedNames, left } = count(readTests(lines), only !== undefined);
  rmSync(dir, { recursive: true, force: true });
  const broken: string[] = [];
  if (passed + failed + left.length === 0 && !isLate && code === 0) broken.push('ran no test');
  if (left.length > 0) broken.push(`skipped or to do: ${left.join(', ')} (a test runs or is deleted)`);
  if (hasLeft) broken.push('left a process behind');
  let failedOutside: string | undefined;
  if (isLate) failedOutside = `did not end within ${timeoutMs / 1000} s (a test that hangs or a leaked handle)`;
  else if (code !== 0 && failed === 0) failedOutside = `ended with ${code}`;
  return { file, durationMs, passed, failed, failedNames, failedOutside, broken, output };
}

function readTests(path: string): EndedTest[] {
  let text = '';
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    // It ended before its first test.
  }
  // A process that was killed leaves half a line.
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as EndedTest);
}

/** Of tests in the order in which they ended, so that subtests come right before theirs. Those that `isPart` of a file leaves out are no matter. */
function count(tests: readonly EndedTest[], isPart: boolean) {
  let passed = 0;
  let failed = 0;
  const left: string[] = [];
  const failedNames = new Set<string>();
  const failedBelow: string[][] = [];
  for (const { name, nesting, passed: good, isSuite, skipped, todo } of tests) {
    const inner = failedBelow[nesting + 1] ?? [];
    failedBelow[nesting + 1] = [];
    const outer = failedBelow[nesting] ?? [];
    failedBelow[nesting] = outer;
    if (isSuite) {
      // Its tests are run again without it, unless it failed itself, in a hook.
      outer.push(...(good || inner.length > 0 ? inner : [name]));
      if (!good && inner.length === 0) failed++;
    } else if (skipped !== false || todo) {
      if (!(isPart && String(skipped).includes('does not match'))) left.push(name);
    } else {
      if (good) passed++;
      else failed++;
      if (!good) outer.push(name);
    }
  }
  for (const name of failedBelow[0] ?? []) failedNames.add(name);
  return { passed, failed, failedNames: [...failedNames], left };
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
async function leavesProcess(pid: number | undefined): Promise<boolean> {
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
