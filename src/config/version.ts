import { createRequire } from 'node:module';

/**
 * The version in `package.json`, which no other file repeats. The package names itself, so that one line finds the file
 * from `src` and from `dist`.
 */
export const PACKAGE_VERSION = (createRequire(import.meta.url)('veza/package.json') as { version: string }).version;
