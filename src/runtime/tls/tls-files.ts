import { X509Certificate } from 'node:crypto';
import { type FSWatcher, watch } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { createSecureContext } from 'node:tls';
import type { Clock } from '../clock.js';
import { messageOf } from '../errors.js';
import type { Log } from '../log.js';
import { singleFlight } from '../shared-work.js';

/**
 * A certificate chain and its key in PEM. `ca` is the authority that signs the certificates of the
 * other side.
 */
export interface Certificates {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly ca?: Buffer;
}

export interface TlsFilesOptions {
  readonly certFile: string;
  readonly keyFile: string;
  readonly caFile?: string | undefined;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * The file system reports changes at once, except for network file systems: there a change is found
 * after at most this time.
 */
const POLL_MS = 30_000;
/**
 * The wait after a change before the files are read, because certificate and key are written one
 * after the other.
 */
const SETTLE_MS = 500;
const WARN_BEFORE_DAYS = 14;
const DAY_MS = 86_400_000;

/**
 * Certificates that are read again when their files change. A pair that cannot be used (half
 * written, or the key of another certificate) is logged, and the previous pair stays in use.
 */
export class TlsFiles {
  readonly #options: TlsFilesOptions;
  #current: Certificates;
  /** The text of the files at the last read, whether the pair was usable or not. */
  #read: string;
  #lastError = '';
  readonly #users = new Set<(certificates: Certificates) => void>();
  readonly #watchers: FSWatcher[] = [];
  readonly #cancelPoll: () => void;
  #cancelSettle = () => {};
  #stopped = false;

  /** Rejects when the files cannot be read or do not belong together. */
  static async open(options: TlsFilesOptions): Promise<TlsFiles> {
    const { certFile, keyFile } = options;
    try {
      const found = await readFiles(options);
      check(found);
      return new TlsFiles(options, found);
    } catch (error) {
      throw new Error(`the certificate ${certFile} with the key ${keyFile} cannot be used: ${messageOf(error)}`, { cause: error });
    }
  }

  private constructor(options: TlsFilesOptions, found: Certificates) {
    this.#options = options;
    this.#current = found;
    this.#read = textOf(found);
    this.#warnOfExpiry();
    const { certFile, keyFile, caFile, clock } = options;
    this.#cancelPoll = clock.every(POLL_MS, () => void this.reload());
    // The directory is watched, not the file: a renewal replaces the file, or a link to it.
    for (const dir of new Set([certFile, keyFile, caFile].flatMap((file) => (file === undefined ? [] : [dirname(file)])))) {
      try {
        const watcher = watch(dir, () => {
          this.#cancelSettle();
          if (!this.#stopped) this.#cancelSettle = clock.after(SETTLE_MS, () => void this.reload());
        });
        watcher.on('error', () => watcher.close());
        // The watcher must not keep the process alive.
        watcher.unref();
        this.#watchers.push(watcher);
      } catch {
        // Without a watcher the poll finds changes.
      }
    }
  }

  get current(): Certificates {
    return this.#current;
  }

  /** Calls `use` with each new pair. When `use` throws, the error is logged. */
  onChange(use: (certificates: Certificates) => void): void {
    this.#users.add(use);
  }

  /** Reads the files now. Never rejects. */
  readonly reload = singleFlight(() => this.#reload());

  /** Calling it twice is harmless. */
  stop(): void {
    this.#stopped = true;
    this.#cancelPoll();
    this.#cancelSettle();
    for (const watcher of this.#watchers.splice(0)) watcher.close();
  }

  async #reload(): Promise<void> {
    const { certFile, log } = this.#options;
    try {
      const found = await readFiles(this.#options);
      if (this.#stopped || textOf(found) === this.#read) return;
      this.#read = textOf(found);
      if (textOf(found) === textOf(this.#current)) return;
      check(found);
      for (const use of this.#users) use(found);
      this.#current = found;
      log.info(
        { event: 'tls.certificate_replaced', certFile, validTo: new X509Certificate(found.cert).validTo },
        'a new certificate is in use',
      );
      this.#lastError = '';
      this.#warnOfExpiry();
    } catch (error) {
      // An error that stays the same is logged once, not at every poll.
      if (messageOf(error) === this.#lastError) return;
      this.#lastError = messageOf(error);
      log.error(
        { event: 'tls.certificate_unusable', certFile, error: this.#lastError },
        'the new certificate cannot be used; the previous one stays in use',
      );
    }
  }

  #warnOfExpiry(): void {
    const { certFile, clock, log } = this.#options;
    const { validTo } = new X509Certificate(this.#current.cert);
    const leftDays = Math.floor((Date.parse(validTo) - clock.wallMs()) / DAY_MS);
    if (leftDays < WARN_BEFORE_DAYS)
      log.warn({ event: 'tls.certificate_expires', certFile, validTo, leftDays }, 'the certificate expires soon: renew it');
  }
}

async function readFiles({ certFile, keyFile, caFile }: TlsFilesOptions): Promise<Certificates> {
  const [cert, key, ca] = await Promise.all([readFile(certFile), readFile(keyFile), caFile === undefined ? undefined : readFile(caFile)]);
  return { cert, key, ...(ca && { ca }) };
}

/** Throws when a file is not PEM, or when the key belongs to another certificate. */
function check({ cert, key, ca }: Certificates): void {
  createSecureContext({ cert, key, ...(ca && { ca }) });
  if (ca) new X509Certificate(ca);
}

const textOf = ({ cert, key, ca }: Certificates) => [cert, key, ca].map((bytes) => bytes?.toString('latin1') ?? '').join('\0');
