import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { freePorts } from './free-port.js';
import { eventually, type Running, run, start } from './process.js';
import type { Server } from './server.js';

/** infra/nginx/veza.conf, as it is but for names, ports and paths, by the real nginx before the real service. */
export class NginxEdge {
  readonly dir: string;
  readonly port: number;
  readonly #nginx: Running;

  private constructor(dir: string, port: number, nginx: Running) {
    this.dir = dir;
    this.port = port;
    this.#nginx = nginx;
  }

  /** `playbackKeysFile`: with infra/nginx/veza-signed.conf, which reads its keys there. */
  static async start(origin: Server, playbackKeysFile?: string): Promise<NginxEdge> {
    const dir = await mkdtemp(join(tmpdir(), 'veza-nginx-'));
    const [port = 0, plainPort = 0] = await freePorts(2);
    const [cert, key] = [join(dir, 'cert.pem'), join(dir, 'key.pem')];
    const subject = ['-subj', '/CN=radio.example', '-addext', 'subjectAltName=DNS:radio.example'];
    await run('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '1', ...subject, '-keyout', key, '-out', cert]);
    let site = await readFile('infra/nginx/veza.conf', 'utf8');
    const put = (from: string, to: string) => {
      assert.ok(site.includes(from), `the configuration has ${from}`);
      site = site.replaceAll(from, to);
    };
    if (playbackKeysFile !== undefined) {
      put('# include /etc/nginx/veza-signed.conf;', await readFile('infra/nginx/veza-signed.conf', 'utf8'));
      put('js_path /etc/nginx/;', `js_path ${resolve('infra/nginx')}/;`);
      put('/etc/nginx/veza/playback-keys.json', playbackKeysFile);
    }
    put('127.0.0.1:8080', `127.0.0.1:${origin.port}`);
    put('listen 443 ', `listen 127.0.0.1:${port} `);
    put('listen 80;', `listen 127.0.0.1:${plainPort};`);
    put('/var/cache/nginx/veza', join(dir, 'cache'));
    put('/etc/letsencrypt/live/radio.example/fullchain.pem', cert);
    put('/etc/letsencrypt/live/radio.example/privkey.pem', key);
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${join(dir, name)};`);
    await mkdir(join(dir, 'cache'));
    await writeFile(
      join(dir, 'nginx.conf'),
      `${playbackKeysFile === undefined ? '' : 'load_module /usr/lib/nginx/modules/ngx_http_js_module.so;'}
       daemon off; master_process off; pid ${join(dir, 'pid')}; error_log stderr warn; events { worker_connections 512; }
       http { ${temporary.join(' ')}\n${site} }`,
    );
    const args = ['-p', dir, '-e', 'stderr', '-c', join(dir, 'nginx.conf')];
    const checked = await run('nginx', ['-t', ...args]);
    assert.doesNotMatch(checked.stderr, /\[(?:warn|error|emerg)\]/);
    const edge = new NginxEdge(dir, port, start('nginx', args));
    await eventually('nginx answers', async () => ((await edge.get('/health/live')).status === 200 ? true : undefined));
    return edge;
  }

  async stop(): Promise<void> {
    await this.#nginx.kill('SIGTERM');
    await rm(this.dir, { recursive: true, force: true });
  }

  /** `from`: an address of this machine, as whose client it is asked. */
  get(
    path: string,
    headers: Record<string, string> = {},
    from = '127.0.0.1',
  ): Promise<{ status: number; header(name: string): string; bytes: Buffer }> {
    return new Promise((resolve, reject) => {
      const options = { host: '127.0.0.1', localAddress: from, port: this.port, path, headers: { host: 'radio.example', ...headers } };
      const sent = request({ ...options, rejectUnauthorized: false, agent: false }, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            header: (name) => String(response.headers[name] ?? ''),
            bytes: Buffer.concat(chunks),
          }),
        );
      });
      sent.on('error', reject);
      sent.end();
    });
  }
}
