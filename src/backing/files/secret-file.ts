import { randomUUID } from 'node:crypto';
import { link, mkdir, open, readFile, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { PRIVATE_FILE, PRIVATE_FOLDER } from './private-files.js';

/**
 * Returns a secret that is made once and kept in a file that only this user can read (0600).
 * Several processes may ask at once; all get the same secret. Throws when the file is empty.
 */
export async function keptSecret(path: string, make: () => string): Promise<string> {
  await mkdir(dirname(path), { recursive: true, mode: PRIVATE_FOLDER });
  for (;;) {
    try {
      const kept = (await readFile(path, 'utf8')).trim();
      if (kept === '') throw new Error(`${path} is empty; remove it, and a new secret will be made`);
      return kept;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
    // `link` makes the complete file appear at once, and fails when the file already exists.
    const unfinished = `${path}.${randomUUID()}`;
    const file = await open(unfinished, 'wx', PRIVATE_FILE);
    try {
      await file.writeFile(`${make()}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await link(unfinished, path).catch((error) => {
      if (error.code !== 'EEXIST') throw error;
    });
    await unlink(unfinished);
  }
}
