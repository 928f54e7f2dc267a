import { execFile } from 'node:child_process';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);

/**
 * Makes sure that Debian packages are there, so that no test depends on what somebody installed by hand. As root they are
 * installed; otherwise the test fails with the command to run.
 */
export async function ensurePackages(...names: string[]): Promise<void> {
  const missing: string[] = [];
  for (const name of names) {
    // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query's own placeholder
    const state = await run('dpkg-query', ['-W', '-f=${Status}', name]).then(
      (result) => result.stdout,
      () => '',
    );
    if (!state.includes('install ok installed')) missing.push(name);
  }
  if (missing.length === 0) return;
  if (process.getuid?.() !== 0) throw new Error(`missing Debian packages; run: sudo apt-get install -y ${missing.join(' ')}`);
  const options = { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }, maxBuffer: 1 << 26 };
  await locked(['update', '-qq'], options);
  await locked(['install', '-y', '-qq', '--no-install-recommends', ...missing], options);
}

/** Another test file may be installing at this moment; apt waits for it when it installs, and does not when it reads its lists. */
async function locked(args: string[], options: { env: NodeJS.ProcessEnv; maxBuffer: number }): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await run('apt-get', ['-o', 'DPkg::Lock::Timeout=300', ...args], options);
      return;
    } catch (error) {
      if (attempt === 60 || !/could not get lock/i.test(String((error as { stderr?: unknown }).stderr))) throw error;
      await setTimeout(5000);
    }
  }
}
