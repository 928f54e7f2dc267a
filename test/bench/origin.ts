import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { get } from 'node:http';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { median, percentile } from '../support/audio.js';
import { cpuSeconds, ownCpuSeconds, processTree } from '../support/cpu.js';
import { freePorts } from '../support/free-port.js';
import { ensurePackages } from '../support/packages.js';
import { eventually, run, start } from '../support/process.js';
import { Server } from '../support/server.js';
import { type Figure, figure, say, sleep } from './report.js';
import { prepareMusic, publish } from './sound.js';

const RENDITION = 'aac-128';
const PLAYLIST = `/live/bench/${RENDITION}/index.m3u8`;
const CONNECTIONS = 64;
/** The server has a core to itself; the load, the encoder and the broadcaster share the other. */
const SERVER_CPU = '0';
const OTHER_CPU = '1';

/** Starts the service on its core with streams on air, and runs `task`. */
export async function onAir<T>(task: (server: Server) => Promise<T>, channels: readonly string[] = ['bench']): Promise<T> {
  if (availableParallelism() < 2) throw new Error('this needs two cores: one for the server, one for the load');
  const sound = await prepareMusic(60);
  execFileSync('taskset', ['-pc', OTHER_CPU, String(process.pid)], { stdio: 'ignore' });
  const server = await Server.start({ embeddedDatabase: true, under: ['taskset', '-c', SERVER_CPU] });
  try {
    const keys: string[] = [];
    for (const channel of channels) keys.push(await server.createChannel(channel));
    const publishing = await publish(server.rtmpPort, keys, sound);
    try {
      for (const channel of channels) await server.onAir(channel, 8);
      for (const { pid } of processTree(server.pid)) {
        if (pid !== server.pid) execFileSync('taskset', ['-apc', OTHER_CPU, String(pid)], { stdio: 'ignore' });
      }
      return await task(server);
    } finally {
      await publishing.stop();
    }
  } finally {
    execFileSync('taskset', ['-pc', `${SERVER_CPU},${OTHER_CPU}`, String(process.pid)], { stdio: 'ignore' });
    await server.stop();
    await sound.remove();
  }
}

export interface Load {
  readonly perSecond: number;
  readonly p99Ms: number;
  /** Share of one core that the server used. */
  readonly busy: number;
  /** Requests that the server answers in a second of CPU time: what a core that is wholly its own does. */
  readonly perCoreSecond: number;
}

export async function wrk(url: string, seconds: number, cpuS: () => number): Promise<Load> {
  // What it uses anyway, for the stream that is on air, is no part of a request.
  const [idleS, idleMs] = [cpuS(), performance.now()];
  await sleep(3000);
  const idle = ((cpuS() - idleS) * 1000) / (performance.now() - idleMs);
  const [beforeS, beforeMs] = [cpuS(), performance.now()];
  const { stdout } = await run('taskset', ['-c', OTHER_CPU, 'wrk', '-t1', `-c${CONNECTIONS}`, `-d${seconds}s`, '--latency', url]);
  const text = stdout.toString();
  const rate = /Requests\/sec:\s+([\d.]+)/.exec(text)?.[1];
  const p99 = /99%\s+([\d.]+)(us|ms|s)/.exec(text);
  if (!rate || !p99 || /Non-2xx|connect [1-9]|read [1-9]|write [1-9]/.test(text)) throw new Error(`wrk: ${text}`);
  const busy = ((cpuS() - beforeS) * 1000) / (performance.now() - beforeMs);
  return {
    perSecond: Number(rate),
    p99Ms: Number(p99[1]) * { us: 0.001, ms: 1, s: 1000 }[p99[2] as 'us' | 'ms' | 's'],
    busy,
    perCoreSecond: Number(rate) / Math.max(0.01, busy - idle),
  };
}

/**
 * Requests a second of one live playlist on one core, beside nginx that serves the same bytes with the same headers from a file. The stream
 * is on air all the while, for both.
 */
export async function measurePlaylist(options: { seconds: number; rounds: number }): Promise<Figure[]> {
  await ensurePackages('nginx', 'wrk');
  return onAir(async (server) => {
    const nginx = await startNginx(`${server.url}${PLAYLIST}`);
    try {
      const ownLoad = (seconds: number) => wrk(`${server.url}${PLAYLIST}`, seconds, () => ownCpuSeconds(server.pid));
      const peerLoad = (seconds: number) => wrk(`${nginx.url}${PLAYLIST}`, seconds, () => cpuSeconds(nginx.pid));
      // Both are warm, and V8 has compiled what is hot.
      await ownLoad(10);
      await peerLoad(2);
      const rounds: { own: Load; peer: Load }[] = [];
      for (let round = 0; round < options.rounds; round++) {
        const own = await ownLoad(options.seconds);
        const peer = await peerLoad(options.seconds);
        rounds.push({ own, peer });
        const told = (load: Load) =>
          `${load.perSecond.toFixed(0)}/s on ${(load.busy * 100).toFixed(0)} % of a core = ${load.perCoreSecond.toFixed(0)}, P99 ${load.p99Ms.toFixed(1)} ms`;
        say(
          `playlist, round ${round + 1}: ${told(own)}; nginx ${told(peer)}; ratio ${(own.perCoreSecond / peer.perCoreSecond).toFixed(3)}`,
        );
      }
      const of = (key: keyof Load, which: 'own' | 'peer') => median(rounds.map((round) => round[which][key]));
      const ratio = median(rounds.map(({ own, peer }) => own.perCoreSecond / peer.perCoreSecond));
      const worstP99 = (which: 'own' | 'peer') => Math.max(...rounds.map((round) => round[which].p99Ms));
      // By CPU time, because the load generator is not always faster than nginx, and would flatter us.
      return [
        figure(
          'live playlist, requests/s on one core ÷ nginx with the same bytes',
          ratio,
          '×',
          { least: 0.3 },
          { name: 'nginx', value: 1 },
        ),
        figure('live playlist, requests per second of one core', of('perCoreSecond', 'own'), '', undefined, {
          name: 'nginx',
          value: of('perCoreSecond', 'peer'),
        }),
        figure('live playlist, requests/s as measured', of('perSecond', 'own'), '', undefined, {
          name: 'nginx',
          value: of('perSecond', 'peer'),
        }),
        figure('the same under full load, P99', worstP99('own'), 'ms', { most: 50 }, { name: 'nginx', value: worstP99('peer') }),
      ];
    } finally {
      await nginx.stop();
    }
  });
}

async function startNginx(playlistUrl: string): Promise<{ url: string; pid: number; stop(): Promise<void> }> {
  const response = await fetch(playlistUrl, { headers: { 'accept-encoding': 'identity' } });
  const body = Buffer.from(await response.arrayBuffer());
  const dir = await mkdtemp(join(tmpdir(), 'veza-nginx-'));
  await mkdir(join(dir, 'root', 'live', 'bench', RENDITION), { recursive: true });
  await writeFile(join(dir, 'root', PLAYLIST), body);
  const same = ['cache-control', 'vary', 'access-control-allow-origin', 'access-control-expose-headers'];
  const headers = same.map((name) => `add_header ${name} "${response.headers.get(name)}";`).join('\n      ');
  const [port] = await freePorts(1);
  await writeFile(
    join(dir, 'nginx.conf'),
    `user root;
daemon off;
worker_processes 1;
pid ${dir}/nginx.pid;
error_log stderr warn;
events { worker_connections 4096; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 75s;
  keepalive_requests 100000000;
  open_file_cache max=16;
  default_type ${response.headers.get('content-type')};
  server {
    listen 127.0.0.1:${port} backlog=4096;
    root ${dir}/root;
    location / {
      ${headers}
    }
  }
}
`,
  );
  const nginx = start('taskset', ['-c', SERVER_CPU, 'nginx', '-c', join(dir, 'nginx.conf')]);
  const url = `http://127.0.0.1:${port}`;
  await eventually('nginx answers', async () => {
    if (nginx.child.exitCode !== null) throw new Error(nginx.stderr());
    const answer = await fetch(`${url}${PLAYLIST}`, { headers: { 'accept-encoding': 'identity' } });
    return Buffer.from(await answer.arrayBuffer()).equals(body) ? true : undefined;
  });
  return {
    url,
    pid: nginx.child.pid!,
    stop: async () => {
      await nginx.kill('SIGTERM');
      await rm(dir, { recursive: true, force: true });
    },
  };
}

interface BlockedRound {
  readonly msn: number;
  readonly part: number;
  readonly firstSentMs: number;
  readonly lastSentMs: number;
  readonly doneMs: number[];
}

/**
 * Clients that are all blocked on one playlist: from the part being ready to the last byte of each one's answer. "Ready" is the moment at which
 * another connection, one that downloads the segment in the making, has the part's bytes: they are sent as the part is published, before any
 * playlist. It is read in another process than the clients', on the same clock. What the clients' own process takes to read 10,000 answers is in the figure.
 */
export async function measureBlocked(options: { clients: number; parts: number }): Promise<Figure[]> {
  return onAir(async (server) => {
    const probe = probeParts(server);
    const load = start('taskset', [
      ...['-c', OTHER_CPU, process.execPath, '--import', 'tsx', new URL('./blocked-clients.ts', import.meta.url).pathname],
      // The first rounds warm the server up.
      ...[String(server.port), PLAYLIST, String(options.clients), String(options.parts + 3)],
    ]);
    try {
      const { stdout, code, stderr } = await load.ended;
      if (code !== 0) throw new Error(`the clients ended with ${code}: ${stderr}`);
      const rounds = stdout
        .toString()
        .split('\n')
        .filter((line) => line.startsWith('{'))
        .map((line) => JSON.parse(line) as BlockedRound)
        .slice(3);
      const delays: number[] = [];
      let used = 0;
      for (const { msn, part, firstSentMs, lastSentMs, doneMs } of rounds) {
        const readyMs = probe.readyMs(msn, part);
        const sorted = doneMs.toSorted((a, b) => a - b);
        if (readyMs === undefined) {
          say(`blocked on ${msn}.${part}: the probe missed it (not counted)`);
          continue;
        }
        // Otherwise not all of them were blocked.
        const blocked = readyMs > lastSentMs;
        say(
          `blocked on ${msn}.${part}: sent in ${(lastSentMs - firstSentMs).toFixed(0)} ms, ${(readyMs - lastSentMs).toFixed(0)} ms before the part was ready; ` +
            `answers whole after ${(sorted[0]! - readyMs).toFixed(0)} … ${(sorted.at(-1)! - readyMs).toFixed(0)} ms${blocked ? '' : ' (not counted)'}`,
        );
        if (!blocked) continue;
        used++;
        for (const ms of doneMs) delays.push(ms - readyMs);
      }
      if (used < options.parts / 2) throw new Error(`only in ${used} of ${options.parts} rounds all clients were blocked in time`);
      const what = `${options.clients} clients blocked on one playlist, part ready to last byte`;
      return [
        figure(`${what}, P50`, percentile(delays, 0.5), 'ms', undefined),
        figure(`${what}, P99`, percentile(delays, 0.99), 'ms', { most: 400 }),
      ];
    } finally {
      probe.stop();
      await load.kill();
    }
  });
}

const nowMs = () => Number(process.hrtime.bigint()) / 1e6;

/** Downloads segment after segment while they are made, and notes when each part (a `moof`) came. */
function probeParts(server: Server): { readyMs(msn: number, part: number): number | undefined; stop(): void } {
  const seen = new Map<string, number>();
  let stopped = false;
  let stop = () => {};
  const segment = (path: string, msn: number) =>
    new Promise<void>((resolve, reject) => {
      let part = 0;
      let tail = '';
      const request = get(`${server.url}${path}`, (response) => {
        if (response.statusCode !== 200) {
          response.resume();
          reject(new Error(`${path}: ${response.statusCode}`));
          return;
        }
        response.on('data', (bytes: Buffer) => {
          const atMs = nowMs();
          const text = tail + bytes.toString('latin1');
          for (let at = text.indexOf('moof'); at >= 0; at = text.indexOf('moof', at + 4)) seen.set(`${msn}.${part++}`, atMs);
          tail = text.slice(-3);
        });
        response.once('end', resolve);
        response.once('error', reject);
      });
      request.once('error', reject);
      stop = () => request.destroy();
    });
  const follow = async () => {
    while (!stopped) {
      const playlist = (await server.text(PLAYLIST)) ?? '';
      const hint = /PRELOAD-HINT:TYPE=PART,URI="(\w+)-(\d+)\.\d+\.m4s"/.exec(playlist);
      if (!hint) throw new Error('the playlist has no hint');
      try {
        for (let msn = Number(hint[2]); !stopped; msn++) await segment(`/live/bench/${RENDITION}/${hint[1]}-${msn}.m4s`, msn);
      } catch (error) {
        if (!stopped) say(`the probe begins again: ${error}`);
      }
    }
  };
  follow().catch((error) => say(`the probe ended: ${error}`));
  return {
    readyMs: (msn, part) => seen.get(`${msn}.${part}`),
    stop: () => {
      stopped = true;
      stop();
    },
  };
}
