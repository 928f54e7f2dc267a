import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { PRIVATE_FILE, PRIVATE_FOLDER } from '../files/private-files.js';
import type { Registry } from './registry.js';

const SLUG = /^[a-z0-9][a-z0-9-]{0,62}$/;

/**
 * One file per channel. Each is written under another name, synced and renamed, so that after a
 * crash either the old or the new document is there.
 */
export class FileRegistry implements Registry {
  readonly #folder: string;
  readonly #log: Log;
  readonly #last = new Map<string, Promise<void>>();

  constructor(folder: string, log: Log) {
    this.#folder = folder;
    this.#log = log;
  }

  async load(): Promise<Map<string, unknown>> {
    await mkdir(this.#folder, { recursive: true, mode: PRIVATE_FOLDER });
    const documents = new Map<string, unknown>();
    for (const file of await readdir(this.#folder)) {
      const channel = file.replace(/\.json$/, '');
      if (!file.endsWith('.json') || !SLUG.test(channel)) continue;
      try {
        documents.set(channel, JSON.parse(await readFile(join(this.#folder, file), 'utf8')));
      } catch (error) {
        this.#log.error(
          { event: 'registry.timeline_unreadable', channel, error: messageOf(error) },
          'could not read the timeline of a channel; it starts again',
        );
      }
    }
    return documents;
  }

  save(channel: string, document: unknown): Promise<void> {
    return this.#inOrder(channel, async () => {
      await mkdir(this.#folder, { recursive: true, mode: PRIVATE_FOLDER });
      const path = this.#path(channel);
      const file = await open(`${path}.new`, 'w', PRIVATE_FILE);
      try {
        await file.writeFile(JSON.stringify(document));
        await file.datasync();
      } finally {
        await file.close();
      }
      await rename(`${path}.new`, path);
    });
  }

  remove(channel: string): Promise<void> {
    return this.#inOrder(channel, () => rm(this.#path(channel), { force: true }));
  }

  #path(channel: string): string {
    if (!SLUG.test(channel)) throw new RangeError(`not a channel: ${channel}`);
    return join(this.#folder, `${channel}.json`);
  }

  #inOrder(channel: string, task: () => Promise<void>): Promise<void> {
    const done = (this.#last.get(channel) ?? Promise.resolve()).catch(() => undefined).then(task);
    this.#last.set(channel, done);
    const forget = () => {
      if (this.#last.get(channel) === done) this.#last.delete(channel);
    };
    done.then(forget, forget);
    return done;
  }
}
