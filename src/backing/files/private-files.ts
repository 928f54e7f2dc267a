import { chmod, mkdir, opendir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';

/**
 * Modes below `DATA_DIR`: segments of private channels, timelines and secrets are for the service's own user. Given with each file and folder
 * that is made, so that they hold from its first byte, whatever the umask.
 */
export const PRIVATE_FOLDER = 0o700;
export const PRIVATE_FILE = 0o600;

/** What others may do. */
const OF_OTHERS = 0o077;

/**
 * Makes the folder, or takes from others what is there already: a version before this one made it for everybody to read. Its own mode is
 * corrected last, and tells the next start that the rest has been done. Never rejects for a mode that cannot be changed: the folder may belong to
 * another user (a mounted volume), and is then that user's to protect.
 */
export async function openPrivateFolder(folder: string, log: Log): Promise<void> {
  await mkdir(folder, { recursive: true, mode: PRIVATE_FOLDER });
  try {
    const { mode } = await stat(folder);
    if ((mode & OF_OTHERS) === 0) return;
    await closeToOthers(folder);
    await chmod(folder, mode & ~OF_OTHERS & 0o7777);
    log.info({ event: 'files.data_folder_closed', folder }, 'the data folder is no longer readable by other users');
  } catch (error) {
    log.warn(
      { event: 'files.data_folder_open', folder, error: messageOf(error) },
      'the data folder may be readable by other users of this machine',
    );
  }
}

async function closeToOthers(folder: string): Promise<void> {
  for await (const entry of await opendir(folder)) {
    // A link may lead out of the folder.
    if (!entry.isDirectory() && !entry.isFile()) continue;
    const path = join(folder, entry.name);
    try {
      const { mode } = await stat(path);
      // Folders before what is in them: what cannot be reached cannot be read.
      if ((mode & OF_OTHERS) !== 0) await chmod(path, mode & ~OF_OTHERS & 0o7777);
    } catch (error) {
      // Removed in the meantime.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      continue;
    }
    if (entry.isDirectory()) await closeToOthers(path);
  }
}
