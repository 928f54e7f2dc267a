import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { freePorts } from './free-port.js';
import { eventually, type Running, run, start } from './process.js';
import type { Server } from './server.js';

export interface NginxOptions {
  /** Where the service has its chat; with its pages unless given. */
  readonly wsPort?: number;
  /** Chats of an address: what the file has as a comment. */
  readonly chatsOfAddress?: number;
  /** Workers under a master, as it is installed; what is connected ends so long after a `reload`. Otherwise one process. */
  readonly shutdownS?: number;
}

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
  static async start(origin: Server, playbackKeysFile?: string, options: NginxOptions = {}): Promise<NginxEdge> {
    const { wsPort = origin.port, chatsOfAddress, shutdownS } = options;
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
    put('127.0.0.1:8081', `127.0.0.1:${wsPort}`);
    if (chatsOfAddress !== undefined) {
      put('# limit_conn veza_chat 200;', `limit_conn veza_chat ${chatsOfAddress};`);
      put('# limit_conn_status 429;', 'limit_conn_status 429;');
    }
    put('listen 443 ', `listen 127.0.0.1:${port} `);
    put('listen 80;', `listen 127.0.0.1:${plainPort};`);
    put('/var/cache/nginx/veza', join(dir, 'cache'));
    put('/etc/letsencrypt/live/radio.example/fullchain.pem', cert);
    put('/etc/letsencrypt/live/radio.example/privkey.pem', key);
    // The folder is this user's.
    const user = process.getuid?.() === 0 ? 'user root;' : '';
    const processes =
      shutdownS === undefined ? 'master_process off;' : `worker_processes 1; worker_shutdown_timeout ${shutdownS}s; ${user}`;
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${join(dir, name)};`);
    await mkdir(join(dir, 'cache'));
    await writeFile(
      join(dir, 'nginx.conf'),
      `${playbackKeysFile === undefined ? '' : 'load_module /usr/lib/nginx/modules/ngx_http_js_module.so;'}
       daemon off; ${processes} pid ${join(dir, 'pid')}; error_log stderr warn; events { worker_connections 512; }
       http { ${temporary.join(' ')}\n${site} }`,
    );
    const args = ['-p', dir, '-e', 'stderr', '-c', join(dir, 'nginx.conf')];
    const checked = await run('nginx', ['-t', ...args]);
    assert.doesNotMatch(checked.stderr, /\[(?:warn|error|emerg)\]/);
    const edge = new NginxEdge(dir, port, start('nginx', args));
    await eventually('nginx answers', async () => ((await edge.get('/health/live')).status === 200 ? true : undefined));
    return edge;
  }

  /** The same configuration again, in new workers. Needs `shutdownS`. */
  reload(): void {
    this.#nginx.child.kill('SIGHUP');
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
