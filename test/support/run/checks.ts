import { spawn, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

/** Imports that the rules of `biome.json` forbid. */
const BREACHES: readonly (readonly [room: string, imports: string])[] = [
  ['runtime', '../media/ladder.js'],
  ['media', '../live/edge.js'],
  ['media', 'node:fs'],
  ['backing', '../live/edge.js'],
  ['ingest', '../live/edge.js'],
  ['live', '../ingest/source.js'],
  ['library', '../live/edge.js'],
  ['access', '../app/app.js'],
  ['chat', '../live/edge.js'],
  ['chat-client', '../runtime/clock.js'],
  ['chat-client', 'node:crypto'],
  ['app', '../main.js'],
];

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

/** Types, lint, format and import rules; two at once. */
export async function checkSource(): Promise<Check[]> {
  const types = runCommand('npm run typecheck', 'npm', ['run', '-s', 'typecheck']);
  const lint = await runCommand('biome check', 'npx', ['biome', 'check', '--error-on-warnings', '.']);
  return [await types, lint, ...checkImportRules()];
}

/** Each deliberate breach of the import rules must be reported, or the guard guards nothing. They lie in a tree of their own. */
function checkImportRules(): Check[] {
  const sinceMs = performance.now();
  const tree = mkdtempSync(join(tmpdir(), 'veza-breach-'));
  copyFileSync('biome.json', join(tree, 'biome.json'));
  BREACHES.forEach(([room, imports], index) => {
    mkdirSync(join(tree, 'src', room), { recursive: true });
    writeFileSync(join(tree, 'src', room, `breach-${index}.ts`), `import { thing } from '${imports}';\n\nexport const breach = thing;\n`);
  });
  const args = ['lint', '--vcs-enabled=false', '--reporter=github', '--max-diagnostics=none'];
  const { stdout } = spawnSync(resolve('node_modules/.bin/biome'), args, { encoding: 'utf8', cwd: tree });
  rmSync(tree, { recursive: true });
  return BREACHES.map(([room, imports], index) => ({
    name: `src/${room} that imports ${imports} is reported`,
    good: stdout.split('\n').some((line) => line.includes(`breach-${index}.ts`) && line.includes('noRestrictedImports')),
    durationMs: performance.now() - sinceMs,
    output: '',
  }));
}
