import { closeSync, fsyncSync, openSync } from 'node:fs';
import type { PGlite } from '@electric-sql/pglite';
import { NodeFS } from '@electric-sql/pglite/nodefs';

/** WASI's EIO. At this error PostgreSQL stops at once, and recovers from the write-ahead log. */
const EIO = 29;

interface OpenFile {
  /** Node's file descriptor; undefined for a directory. */
  readonly nfd: number | undefined;
  readonly node: object;
}

interface Emscripten {
  readonly FS: {
    readonly ErrnoError: new (errno: number) => Error;
    readonly filesystems: { readonly NODEFS: { readonly stream_ops: object; realPath(node: object): string } };
  };
}

/**
 * PGlite's files in a directory, with a working `fsync`. Emscripten's NODEFS has none, and reports
 * success for a missing one (`_fd_sync`), so that `fsync=on` alone would not sync anything to the
 * disk.
 */
export class SyncedFiles extends NodeFS {
  override async init(pg: PGlite, options: Parameters<NodeFS['init']>[1]) {
    const { emscriptenOpts } = await super.init(pg, options);
    const addSync = (module: unknown) => {
      const { FS } = module as Emscripten;
      const { NODEFS } = FS.filesystems;
      const fsync = ({ nfd, node }: OpenFile): number => {
        try {
          if (nfd === undefined) syncPath(NODEFS.realPath(node));
          else fsyncSync(nfd);
          return 0;
        } catch {
          throw new FS.ErrnoError(EIO);
        }
      };
      Object.assign(NODEFS.stream_ops, { fsync });
    };
    return { emscriptenOpts: { ...emscriptenOpts, preRun: [...(emscriptenOpts.preRun ?? []), addSync] } };
  }
}

/** Syncs a file, or the entries of a directory. On return they are on the disk. */
export function syncPath(path: string): void {
  const descriptor = openSync(path, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
