// `npm run demo`, after its build: what a newcomer meets first.
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { decode, findHoles, loudnessDbfs, RATE_HZ } from '../support/audio.js';
import { freePorts } from '../support/free-port.js';
import { bePunctual } from '../support/on-air.js';
import { Players } from '../support/players.js';
import { eventually, start } from '../support/process.js';
import { publishRtmp } from '../support/publishers.js';

async function demo(dataDir: string, ports: readonly number[]) {
  const [PORT, INGEST_PORT, RTMP_PORT, PROMETHEUS_PORT] = ports.map(String);
  const { PATH, HOME } = process.env;
  return start(process.execPath, ['dist/src/demo/demo.js'], {
    env: { PATH, HOME, HOST: '127.0.0.1', DATA_DIR: dataDir, PORT, WS_PORT: PORT, INGEST_PORT, RTMP_PORT, PROMETHEUS_PORT },
  });
}

async function inTempDir(body: (dataDir: string) => Promise<void>): Promise<void> {
  const dataDir = await mkdtemp(join(tmpdir(), 'veza-demo-'));
  try {
    await body(dataDir);
  } finally {
    await rm(dataDir, { recursive: true, force: true, maxRetries: 5 });
  }
}

test('the demo is on air with music, can be taken over, comes back, keeps its key, and ends at Ctrl-C', () =>
  inTempDir(async (dataDir) => {
    bePunctual();
    const ports = await freePorts(4);
    const url = `http://127.0.0.1:${ports[0]}`;
    const text = async (path: string) => {
      const response = await fetch(`${url}${path}`);
      return response.ok ? response.text() : undefined;
    };
    let first = await demo(dataDir, ports);
    const players = await Players.start();
    try {
      const key = await first.printed(/Stream key +(\S+)/);
      await first.printed(/Ctrl-C stops it/);
      assert.equal((await readFile(join(dataDir, 'demo-key'), 'utf8')).trim(), key);
      assert.equal((await stat(join(dataDir, 'demo-key'))).mode & 0o777, 0o600);
      const page = await text('/c/demo');
      assert.ok(page?.includes('<html'), 'the printed address is a page');

      const player = await players.play('hls.js', `${url}/live/demo/master.m3u8`);
      await player.playedOn(4);
      const { samples } = await player.take();
      assert.ok(loudnessDbfs(samples, RATE_HZ) > -40, `${loudnessDbfs(samples, RATE_HZ)} dBFS`);
      await player.close();
      const music = await decode(`${url}/live/demo/master.m3u8`, { seconds: 5 });
      assert.notDeepEqual(music.left, music.right, 'stereo');
      assert.ok(
        music.left.every((x) => Math.abs(x) < 0.95),
        'no clipping',
      );
      assert.deepEqual(findHoles(music.left.subarray(RATE_HZ), { floorDbfs: -70 }), []);
      await eventually('a title is shown', async () => ((await text('/api/v1/channels/demo'))?.includes('Lamps Along') ? true : undefined));

      // Somebody's own encoder with the printed key is heard instead; when it stops the music is back.
      const own = publishRtmp(`rtmp://127.0.0.1:${ports[2]}/live/${key}`, { seconds: 4 });
      assert.equal((await own.ended).code, 0);
      await eventually('the music is back', async () =>
        (await text('/api/v1/channels/demo'))?.includes('"state":"live"') ? true : undefined,
      );

      assert.equal((await first.kill('SIGINT')).code, 0);
      first = await demo(dataDir, ports);
      assert.equal(await first.printed(/Stream key +(\S+)/), key, 'an encoder that was set up once goes on working');
      assert.equal((await first.kill('SIGINT')).code, 0);
    } finally {
      await players.stop();
      await first.kill('SIGKILL');
    }
  }));

test('a port that is taken is named, with what to do', () =>
  inTempDir(async (dataDir) => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
    const { port } = taken.address() as { port: number };
    try {
      const [a, b, c] = (await freePorts(3)) as [number, number, number];
      for (const [name, ports] of [
        ['PORT', [port, a, b, c]],
        ['RTMP_PORT', [a, b, port, c]],
      ] as const) {
        const { code, stderr } = await (await demo(dataDir, ports)).ended;
        assert.equal(code, 1);
        assert.equal(stderr.trim(), `Port ${port} is in use by another program. Choose another one: ${name}=${port + 1000} npm run demo`);
      }
    } finally {
      await new Promise((resolve) => taken.close(resolve));
    }
  }));
