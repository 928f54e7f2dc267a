import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ensurePackages } from './packages.js';

const openssl = async (...args: string[]) => {
  await promisify(execFile)('openssl', args);
};

export interface IssuedFiles {
  readonly certFile: string;
  readonly keyFile: string;
}

export interface Issued extends IssuedFiles {
  readonly cert: Buffer;
  readonly key: Buffer;
}

/** An authority of a test alone, in a folder of its own. */
export class TestAuthority {
  readonly dir: string;
  readonly caFile: string;
  #issued = 0;

  private constructor(dir: string) {
    this.dir = dir;
    this.caFile = join(dir, 'ca.pem');
  }

  static async make(): Promise<TestAuthority> {
    await ensurePackages('openssl');
    const authority = new TestAuthority(await mkdtemp(join(tmpdir(), 'veza-ca-')));
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
    await openssl(
      'req',
      '-x509',
      ...key,
      '-keyout',
      join(authority.dir, 'ca-key.pem'),
      '-out',
      authority.caFile,
      '-subj',
      '/CN=test',
      '-days',
      '30',
    );
    return authority;
  }

  ca(): Promise<Buffer> {
    return readFile(this.caFile);
  }

  /** For localhost and 127.0.0.1, unless other names are given; the common name tells it from others. */
  async issue(commonName: string, days = 30, names = 'DNS:localhost,IP:127.0.0.1'): Promise<Issued> {
    const base = join(this.dir, `issued-${this.#issued++}`);
    const [keyFile, certFile] = [`${base}-key.pem`, `${base}.pem`];
    await writeFile(`${base}.ext`, `subjectAltName=${names}\n`);
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', keyFile];
    await openssl('req', ...key, '-out', `${base}.csr`, '-subj', `/CN=${commonName}`);
    const signing = ['-CA', this.caFile, '-CAkey', join(this.dir, 'ca-key.pem'), '-CAcreateserial', '-days', String(days)];
    await openssl('x509', '-req', '-in', `${base}.csr`, ...signing, '-extfile', `${base}.ext`, '-out', certFile);
    return { certFile, keyFile, cert: await readFile(certFile), key: await readFile(keyFile) };
  }

  remove(): Promise<void> {
    return rm(this.dir, { recursive: true, force: true });
  }
}
