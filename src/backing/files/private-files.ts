import { chmod, mkdir, opendir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';

/**
 * Modes of files and folders below `DATA_DIR`: only the service's own user may read segments of
 * private channels, timelines and secrets. The mode is given when a file or folder is made, so that
 * it applies from the first byte, whatever the umask.
 */
export const PRIVATE_FOLDER = 0o700;
export const PRIVATE_FILE = 0o600;

/** The permission bits of group and others. */
const GROUP_AND_OTHERS = 0o077;

/**
 * Makes the folder. In a folder that exists, removes the permissions of other users, which older
 * versions gave. The folder's own mode is changed last: at the next start it shows that everything
 * inside is done. Never rejects because a mode cannot be changed: the folder may belong to another
 * user (a mounted volume), who then has to protect it.
 */
export async function openPrivateFolder(folder: string, log: Log): Promise<void> {
  await mkdir(folder, { recursive: true, mode: PRIVATE_FOLDER });
  try {
    const { mode } = await stat(folder);
    if ((mode & GROUP_AND_OTHERS) === 0) return;
    await removeOthersPermissions(folder);
    await chmod(folder, mode & ~GROUP_AND_OTHERS & 0o7777);
    log.info({ event: 'files.data_folder_closed', folder }, 'the data folder is no longer readable by other users');
  } catch (error) {
    log.warn(
      { event: 'files.data_folder_open', folder, error: messageOf(error) },
      'the data folder may be readable by other users of this machine',
    );
  }
}

async function removeOthersPermissions(folder: string): Promise<void> {
  for await (const entry of await opendir(folder)) {
    // A link may point outside the folder.
    if (!entry.isDirectory() && !entry.isFile()) continue;
    const path = join(folder, entry.name);
    try {
      const { mode } = await stat(path);
      // A folder comes before its content: files that cannot be reached cannot be read.
      if ((mode & GROUP_AND_OTHERS) !== 0) await chmod(path, mode & ~GROUP_AND_OTHERS & 0o7777);
    } catch (error) {
      // The entry was removed in the meantime.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      continue;
    }
    if (entry.isDirectory()) await removeOthersPermissions(path);
  }
}
