import { access, chmod, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { clusterTemplate, makeCluster } from './embedded.js';

/**
 * The last step of the build: makes the empty cluster that every new embedded database is a copy
 * of. It is made once per PGlite version. The service may run as another user than the build (a
 * container, a service's own user), so everybody may read the cluster and only its owner may write.
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
