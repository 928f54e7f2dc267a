import { randomUUID } from 'node:crypto';
import { type FileHandle, mkdir, open, opendir, rename, rm, rmdir, stat, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { VezaError } from '../../runtime/errors.js';
import { PRIVATE_FILE, PRIVATE_FOLDER } from '../files/private-files.js';
import type { ByteRange, ObjectStore, StoredObject } from './object-store.js';

/**
 * Objects as files below `{root}/objects`. Files that are still being written are in
 * `{root}/partial`, on the same file system. `isShared`: an ingest worker uses the same folder and
 * may be writing.
 */
export async function createFileStore(root: string, { isShared = false } = {}): Promise<ObjectStore> {
  const objects = join(root, 'objects');
  const partial = join(root, 'partial');
  // Partial files of a killed process are incomplete.
  if (!isShared) await rm(partial, { recursive: true, force: true });
  await mkdir(partial, { recursive: true, mode: PRIVATE_FOLDER });
  await mkdir(objects, { recursive: true, mode: PRIVATE_FOLDER });
  return new FileStore(objects, partial);
}

const MAX_KEY_LENGTH = 512;
const NAME = /^(?!\.{1,2}$)[A-Za-z0-9._-]+$/;
/** Objects that one `delete` unlinks concurrently. */
const DELETE_BATCH = 32;
/**
 * Attempts of a `put` whose directory is removed by `delete`s of neighbouring objects, at most.
 * Every failed attempt needs another neighbour that was stored and deleted again.
 */
const MOVE_ATTEMPTS = 100;

class FileStore implements ObjectStore {
  readonly #objects: string;
  readonly #partial: string;

  constructor(objects: string, partial: string) {
    this.#objects = objects;
    this.#partial = partial;
  }

  async put(key: string, bytes: Uint8Array): Promise<void> {
    const path = this.#pathOf(key);
    const unfinished = join(this.#partial, randomUUID());
    try {
      const file = await open(unfinished, 'wx', PRIVATE_FILE);
      try {
        await file.writeFile(bytes);
        await file.datasync();
      } finally {
        await file.close();
      }
      // `delete` removes directories that it leaves empty. That may happen to one of these at any
      // moment, even during `mkdir`.
      for (let attempt = 1; ; attempt++) {
        try {
          await mkdir(dirname(path), { recursive: true, mode: PRIVATE_FOLDER });
          await rename(unfinished, path);
          return;
        } catch (error) {
          if (codeOf(error) !== 'ENOENT' || attempt === MOVE_ATTEMPTS) throw error;
        }
      }
    } catch (error) {
      await rm(unfinished, { force: true }).catch(() => undefined);
      throw error;
    }
  }

  async get(key: string, range?: ByteRange): Promise<StoredObject | undefined> {
    let file: FileHandle;
    try {
      file = await open(this.#pathOf(key), 'r');
    } catch (error) {
      if (isAbsent(error)) return undefined;
      throw error;
    }
    try {
      const found = await file.stat();
      if (!found.isFile()) return undefined;
      const start = Math.min(range?.start ?? 0, found.size);
      const end = Math.min(range ? range.end + 1 : found.size, found.size);
      const bytes = Buffer.allocUnsafe(Math.max(0, end - start));
      let at = 0;
      while (at < bytes.length) {
        const { bytesRead } = await file.read(bytes, at, bytes.length - at, start + at);
        if (bytesRead === 0) throw new Error(`object ${key} is shorter than its size`);
        at += bytesRead;
      }
      return { bytes, sizeBytes: found.size };
    } finally {
      await file.close();
    }
  }

  async head(key: string): Promise<number | undefined> {
    try {
      const found = await stat(this.#pathOf(key));
      return found.isFile() ? found.size : undefined;
    } catch (error) {
      if (isAbsent(error)) return undefined;
      throw error;
    }
  }

  async delete(keys: readonly string[]): Promise<void> {
    const paths = keys.map((key) => this.#pathOf(key));
    for (let at = 0; at < paths.length; at += DELETE_BATCH) {
      await Promise.all(paths.slice(at, at + DELETE_BATCH).map((path) => this.#remove(path)));
    }
  }

  async *list(prefix: string): AsyncGenerator<{ key: string; sizeBytes: number; modifiedMs: number }> {
    if (prefix !== '' && !prefix.endsWith('/')) throw new VezaError('bad_request', 'A prefix must be empty or end in a slash.');
    yield* this.#walk(prefix === '' ? this.#objects : this.#pathOf(prefix.slice(0, -1)), prefix);
  }

  async *#walk(dir: string, prefix: string): AsyncGenerator<{ key: string; sizeBytes: number; modifiedMs: number }> {
    try {
      for await (const entry of await opendir(dir)) {
        const path = join(dir, entry.name);
        if (entry.isDirectory()) {
          yield* this.#walk(path, `${prefix}${entry.name}/`);
          continue;
        }
        const found = await stat(path).catch((error) => {
          if (isAbsent(error)) return undefined;
          throw error;
        });
        if (found?.isFile()) yield { key: prefix + entry.name, sizeBytes: found.size, modifiedMs: found.mtimeMs };
      }
    } catch (error) {
      if (!isAbsent(error)) throw error;
    }
  }

  async #remove(path: string): Promise<void> {
    try {
      await unlink(path);
    } catch (error) {
      if (!isAbsent(error)) throw error;
    }
    for (let dir = dirname(path); dir !== this.#objects; dir = dirname(dir)) {
      try {
        await rmdir(dir);
      } catch {
        return;
      }
    }
  }

  #pathOf(key: string): string {
    const names = key.split('/');
    if (key.length > MAX_KEY_LENGTH || !names.every((name) => NAME.test(name))) {
      throw new VezaError('bad_request', 'Not an object key.', { details: { key: key.slice(0, MAX_KEY_LENGTH) } });
    }
    return join(this.#objects, ...names);
  }
}

const codeOf = (error: unknown) => (error as NodeJS.ErrnoException).code;
/**
 * Whether the error says that there is no object. ENOTDIR: a folder of the key is itself an object.
 */
const isAbsent = (error: unknown) => codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR';
