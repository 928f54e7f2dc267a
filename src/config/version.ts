import { createRequire } from 'node:module';

/**
 * The version in `package.json`, the only file that has it. The file is found by the package's own
 * name, which works from `src` and from `dist`.
 */
export const PACKAGE_VERSION = (createRequire(import.meta.url)('veza/package.json') as { version: string }).version;
