import { spawn } from 'node:child_process';

export interface Check {
  readonly name: string;
  readonly good: boolean;
  readonly durationMs: number;
  /** What it has printed. */
  readonly output: string;
}

/** A check that is one command. */
async function runCommand(name: string, command: string, args: readonly string[]): Promise<Check> {
  const sinceMs = performance.now();
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  child.stdout.on('data', (chunk) => (output += chunk));
  child.stderr.on('data', (chunk) => (output += chunk));
  const good = await new Promise<boolean>((done) => {
    child.once('error', (error) => {
      output += error.message;
      done(false);
    });
    child.once('close', (code) => done(code === 0));
  });
  return { name, good, durationMs: performance.now() - sinceMs, output };
}

export const build = (): Promise<Check> => runCommand('npm run build', 'npm', ['run', '-s', 'build']);

/** Types, lint, format, and exports that nothing uses; two at once. The other rules are tests, in `test/rules`. */
export async function checkSource(): Promise<Check[]> {
  const types = runCommand('npm run typecheck', 'npm', ['run', '-s', 'typecheck']);
  const lint = await runCommand('biome check', 'npx', ['biome', 'check', '--error-on-warnings', '.']);
  const unused = await runCommand('knip', 'npm', ['run', '-s', 'unused']);
  return [await types, lint, unused];
}
