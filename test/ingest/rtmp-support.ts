import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import type { RtmpLimits } from '../../src/ingest/rtmp/limits.js';
import { type RtmpOptions, RtmpServer } from '../../src/ingest/rtmp/server.js';
import type { Gate, IngestAdmission, IngestRequest, TitleUpdate } from '../../src/ingest/source.js';
import { type Clock, SystemClock } from '../../src/runtime/clock.js';
import { VezaError } from '../../src/runtime/errors.js';
import type { Log } from '../../src/runtime/log.js';
import { ensurePackages } from '../support/packages.js';
import { FakeSource, temporaryFolder } from './http-support.js';

/** Knows the key `secret`. */
class RtmpGate implements Gate {
  readonly requests: IngestRequest[] = [];
  readonly sources: FakeSource[] = [];
  /** Sources take every write and ask for no more. */
  slow = false;
  error: Error | undefined;
  /** Admissions wait for it. */
  hold: Promise<void> | undefined;
  readonly #waiters = new Set<() => void>();

  async admit(request: IngestRequest): Promise<IngestAdmission> {
    this.requests.push(request);
    this.#wake();
    await this.hold;
    if (this.error) throw this.error;
    if (request.streamKey !== 'secret') throw new VezaError('unauthorized', 'wrong stream key');
    return {
      channel: 'radio',
      open: (format, events) => {
        const source = new FakeSource(format, events, this.slow);
        this.sources.push(source);
        this.#wake();
        return source;
      },
    };
  }

  async title(_request: IngestRequest, _update: TitleUpdate): Promise<void> {}

  async source(index = 0): Promise<FakeSource> {
    await this.until(() => this.sources.length > index);
    return this.sources[index]!;
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#waiters.add(resolve));
  }

  #wake(): void {
    for (const waiter of this.#waiters) waiter();
    this.#waiters.clear();
  }
}

/** Keeps every line. */
class MemoryLog implements Log {
  readonly lines: { level: string; fields: Record<string, unknown>; message: string }[] = [];
  readonly #waiters = new Set<() => void>();

  readonly debug = () => undefined;
  readonly info = (fields: object, message: string) => this.#add('info', fields, message);
  readonly warn = (fields: object, message: string) => this.#add('warn', fields, message);
  readonly error = (fields: object, message: string) => this.#add('error', fields, message);
  child = () => this;

  of(level: string): string[] {
    return this.lines
      .filter((line) => line.level === level)
      .map((line) => `${line.message}: ${line.fields.reason ?? line.fields.error ?? ''}`);
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#waiters.add(resolve));
  }

  #add(level: string, fields: object, message: string): void {
    this.lines.push({ level, fields: { ...fields }, message });
    for (const waiter of this.#waiters) waiter();
    this.#waiters.clear();
  }
}

export interface RtmpSetup {
  gate: RtmpGate;
  log: MemoryLog;
  server: RtmpServer;
  port: number;
}

export async function setUpRtmp(
  t: TestContext,
  options: { clock?: Clock; limits?: Partial<RtmpLimits>; tls?: RtmpOptions['tls'] } = {},
): Promise<RtmpSetup> {
  const gate = new RtmpGate();
  const log = new MemoryLog();
  const server = new RtmpServer({
    gate,
    log,
    clock: options.clock ?? new SystemClock(),
    port: 0,
    host: '127.0.0.1',
    ...(options.limits ? { limits: options.limits } : {}),
    ...(options.tls ? { tls: options.tls } : {}),
  });
  await server.start();
  t.after(() => server.stop());
  return { gate, log, server, port: server.port };
}

/** A certificate for localhost that nobody has signed. */
export async function selfSigned(t: TestContext): Promise<{ key: Buffer; cert: Buffer }> {
  await ensurePackages('openssl');
  const folder = await temporaryFolder(t);
  const [keyFile, certFile] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-days', '2'];
  await promisify(execFile)('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', keyFile, '-out', certFile, ...subject]);
  return { key: await readFile(keyFile), cert: await readFile(certFile) };
}
