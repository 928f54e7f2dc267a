import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import type { Duplex } from 'node:stream';
import { promisify } from 'node:util';

const run = promisify(execFile);

/**
 * A stand-in for the service with the public surface that the listening page uses: API, clock, playlists and segments of
 * a broadcast that goes on and off air by command. What it plays was encoded before, so nothing depends on load; playlists
 * are a function of the time since the broadcast began. No low latency: the page against the real service tests that.
 */
const SEGMENT_S = 1;
const PREPARED_S = 200;
const LIVE_SEGMENTS = 12;
const RENDITIONS = [
  { name: 'aac-64', codec: 'aac', kbps: 64, codecs: 'mp4a.40.2' },
  { name: 'aac-128', codec: 'aac', kbps: 128, codecs: 'mp4a.40.2' },
  { name: 'aac-256', codec: 'aac', kbps: 256, codecs: 'mp4a.40.2' },
  { name: 'opus-96', codec: 'libopus', kbps: 96, codecs: 'opus' },
] as const;

const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
  '.m3u8': 'application/vnd.apple.mpegurl',
  '.mp4': 'audio/mp4',
  '.m4s': 'audio/mp4',
};

interface Show {
  startMs: number;
  endedMs?: number;
  titles: { id: string; startMs: number; title: string; artist: string }[];
}

export interface FakeChannel {
  slug: string;
  title: string;
}

/** Everything that takes long, once for all tests of a file: the encoded renditions; and the page, as `npm run build` has built it. */
export interface PageFiles {
  readonly pageDir: string;
  readonly mediaDir: string;
  remove(): Promise<void>;
}

export async function preparePageFiles(): Promise<PageFiles> {
  const dir = await mkdtemp(join(tmpdir(), 'veza-page-'));
  const mediaDir = join(dir, 'media');
  await run('mkdir', ['-p', ...RENDITIONS.map(({ name }) => join(mediaDir, name))]);
  // A chord that swells, so that a level meter has something to show; all renditions from one run of the encoder.
  const swell = 'tremolo=f=0.7:d=0.6,tremolo=f=0.23:d=0.5,volume=5';
  const chord = [220, 277, 330].flatMap((frequency) => [
    '-f',
    'lavfi',
    '-i',
    `sine=frequency=${frequency}:sample_rate=48000:duration=${PREPARED_S}`,
  ]);
  const outputs = RENDITIONS.flatMap(({ name, codec, kbps }, i) => {
    const out = join(mediaDir, name);
    const muxing = ['-f', 'hls', '-hls_time', String(SEGMENT_S), '-hls_list_size', '0', '-hls_segment_type', 'fmp4'];
    const names = ['-hls_fmp4_init_filename', 'init.mp4', '-hls_segment_filename', join(out, '%d.m4s'), join(out, 'all.m3u8')];
    return ['-map', `[out${i}]`, '-ac', '2', '-c:a', codec, '-b:a', `${kbps}k`, ...muxing, ...names];
  });
  const split = RENDITIONS.map((_, i) => `[out${i}]`).join('');
  await run('ffmpeg', [
    '-loglevel',
    'error',
    ...chord,
    '-filter_complex',
    `amix=inputs=3,${swell},asplit=${RENDITIONS.length}${split}`,
    ...outputs,
  ]);
  return { pageDir: 'dist/player-demo', mediaDir, remove: () => rm(dir, { recursive: true, force: true }) };
}

export class PageServer {
  readonly #files: PageFiles;
  readonly #channels: FakeChannel[];
  readonly #shows = new Map<string, Show>();
  readonly #sockets = new Set<Socket>();
  readonly #durations = new Map<string, number[]>();
  #server: Server | undefined;
  #port = 0;
  /** Paths asked for, oldest first. */
  readonly asked: string[] = [];
  /** What else is answered here; true: it was. */
  answerMore: (request: IncomingMessage, response: ServerResponse) => boolean = () => false;
  /** Takes the WebSockets. */
  upgrade: ((request: IncomingMessage, socket: Duplex, head: Buffer) => void) | undefined;

  private constructor(files: PageFiles, channels: FakeChannel[]) {
    this.#files = files;
    this.#channels = channels;
  }

  static async start(files: PageFiles, channels: FakeChannel[] = [{ slug: 'radio', title: 'Harbour Radio' }]): Promise<PageServer> {
    const server = new PageServer(files, channels);
    for (const { name } of RENDITIONS) {
      const list = await readFile(join(files.mediaDir, name, 'all.m3u8'), 'utf8');
      server.#durations.set(
        name,
        [...list.matchAll(/#EXTINF:([\d.]+)/g)].map((match) => Number(match[1])),
      );
    }
    await server.accept();
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** `agoS`: the show began so long ago already. */
  goOnAir(slug = 'radio', agoS = 20): void {
    this.#shows.set(slug, { startMs: Date.now() - agoS * 1000, titles: [] });
  }

  /** The playlist ends; the channel is off air. */
  goOffAir(slug = 'radio'): void {
    const show = this.#shows.get(slug);
    if (show) show.endedMs = Date.now();
  }

  /** `heardInS`: relative to the live edge, so a listener hears it later by the delay. */
  setTitle(title: string, artist: string, options: { slug?: string; heardInS?: number } = {}): void {
    const show = this.#shows.get(options.slug ?? 'radio');
    if (!show) throw new Error('a title needs a show on air');
    show.titles.push({ id: `t${show.titles.length}`, startMs: Date.now() + (options.heardInS ?? 0) * 1000, title, artist });
  }

  /** From now on every connection is refused, as while a server restarts. */
  async refuse(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server?.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  async accept(): Promise<void> {
    const server = createServer((request, response) => {
      this.#answer(request, response).catch(() => response.destroy());
    });
    server.on('upgrade', (request, socket, head) => {
      if (this.upgrade) this.upgrade(request, socket, head);
      else socket.destroy();
    });
    server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
    await new Promise<void>((resolve) => server.listen(this.#port, '127.0.0.1', resolve));
    this.#port = (server.address() as AddressInfo).port;
    this.#server = server;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname } = new URL(request.url ?? '/', this.url);
    this.asked.push(pathname);
    const send = (type: string, body: string | Buffer, status = 200) => {
      response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
      response.end(body);
    };
    if (this.answerMore(request, response)) return undefined;
    if (pathname === '/time') return send('text/plain', new Date().toISOString());
    if (pathname === '/api/v1/channels') {
      return send('application/json', JSON.stringify({ items: this.#channels.map((channel) => this.#describe(channel)), next: null }));
    }
    const api = /^\/api\/v1\/channels\/([^/]+)$/.exec(pathname);
    if (api) {
      const channel = this.#channels.find(({ slug }) => slug === api[1]);
      return channel ? send('application/json', JSON.stringify(this.#describe(channel))) : send('application/problem+json', '{}', 404);
    }
    const live = /^\/live\/([^/]+)\/(?:([^/]+)\/)?([^/]+)$/.exec(pathname);
    if (live) {
      const [, slug = '', rendition, name = ''] = live;
      const body = await this.#live(slug, rendition, name);
      return body === undefined ? send('text/plain', 'not found', 404) : send(TYPES[extname(name)] ?? 'text/plain', body);
    }
    const file = pathname === '/' || /^\/[cr]\//.test(pathname) ? 'index.html' : pathname.slice(1);
    const body = await readFile(join(this.#files.pageDir, file)).catch(() => undefined);
    if (body === undefined) return send('text/plain', 'not found', 404);
    send(TYPES[extname(file)] ?? 'application/octet-stream', body);
  }

  #describe({ slug, title }: FakeChannel): object {
    const show = this.#shows.get(slug);
    const onAir = show !== undefined && show.endedMs === undefined;
    const heard = onAir ? show.titles.filter(({ startMs }) => startMs <= Date.now()).at(-1) : undefined;
    const nowPlaying = heard ? { title: heard.title, artist: heard.artist } : null;
    return { slug, title, visibility: 'public', state: onAir ? 'live' : 'offline', listeners: onAir ? 12 : 0, nowPlaying };
  }

  async #live(slug: string, rendition: string | undefined, name: string): Promise<string | Buffer | undefined> {
    const show = this.#shows.get(slug);
    if (!show) return undefined;
    if (rendition === undefined) {
      if (!['master.m3u8', 'opus.m3u8', 'dvr.m3u8'].includes(name)) return undefined;
      const chosen = RENDITIONS.filter(({ codec }) => name === 'dvr.m3u8' || (codec === 'libopus') === (name === 'opus.m3u8'));
      const media = name === 'dvr.m3u8' ? 'dvr.m3u8' : 'index.m3u8';
      const variants = chosen.map((one) => `#EXT-X-STREAM-INF:BANDWIDTH=${one.kbps * 1100},CODECS="${one.codecs}"\n${one.name}/${media}\n`);
      return `#EXTM3U\n#EXT-X-VERSION:7\n${variants.join('')}`;
    }
    const durations = this.#durations.get(rendition);
    if (!durations) return undefined;
    if (name === 'index.m3u8') return mediaPlaylist(show, durations, LIVE_SEGMENTS);
    if (name === 'dvr.m3u8') return mediaPlaylist(show, durations, PREPARED_S);
    return readFile(join(this.#files.mediaDir, rendition, name)).catch(() => undefined);
  }
}

/** The last `count` segments that have been finished by now. */
function mediaPlaylist(show: Show, durations: readonly number[], count: number): string {
  const untilMs = show.endedMs ?? Date.now();
  const starts: number[] = [];
  let atMs = show.startMs;
  for (const duration of durations) {
    if (atMs + duration * 1000 > untilMs) break;
    starts.push(atMs);
    atMs += duration * 1000;
  }
  const first = Math.max(0, starts.length - count);
  let text = `#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:${first}\n#EXT-X-DISCONTINUITY-SEQUENCE:0\n`;
  text += '#EXT-X-MAP:URI="init.mp4"\n';
  for (const { id, startMs, title, artist } of show.titles) {
    const when = new Date(startMs).toISOString();
    text += `#EXT-X-DATERANGE:ID="${id}",CLASS="veza.now-playing",START-DATE="${when}",END-ON-NEXT=YES,X-TITLE="${title}",X-ARTIST="${artist}"\n`;
  }
  for (let n = first; n < starts.length; n++) {
    if (n === first) text += `#EXT-X-PROGRAM-DATE-TIME:${new Date(starts[n]!).toISOString()}\n`;
    text += `#EXTINF:${durations[n]!.toFixed(6)},\n${n}.m4s\n`;
  }
  return show.endedMs === undefined ? text : `${text}#EXT-X-ENDLIST\n`;
}
