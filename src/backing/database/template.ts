import { access, chmod, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { clusterTemplate, makeCluster } from './embedded.js';

/**
 * The last step of the build: the empty cluster that every new embedded database is a copy of. Done once for a PGlite version.
 * Whoever builds need not be who runs it (a container, a service's own user): everybody may read it, and only its owner write.
 */
const template = clusterTemplate();
await access(template).catch(async () => {
  const unshared = `${template}.unshared`;
  await rm(unshared, { recursive: true, force: true });
  await makeCluster(unshared);
  for (const name of ['', ...(await readdir(unshared, { recursive: true }))]) {
    const path = join(unshared, name);
    await chmod(path, (await stat(path)).isDirectory() ? 0o755 : 0o644);
  }
  await rename(unshared, template);
});
