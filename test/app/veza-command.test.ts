import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { configurationReference } from '../../src/config/reference.js';
import { startApp, type TestApp } from '../support/app.js';

let app: TestApp;
before(async () => {
  app = await startApp();
});
after(() => app.stop());

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

function veza(args: string, env: Record<string, string> = {}): Promise<Ended> {
  const given = { PATH: process.env.PATH, PORT: String(app.listener.port), DATA_DIR: app.dataDir, ...env };
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      ['--import', 'tsx', 'src/cli/veza.ts', ...args.split(' ').filter(Boolean)],
      { env: given },
      (error, stdout, stderr) => {
        resolve({ code: error ? Number(error.code) : 0, stdout, stderr });
      },
    );
  });
}

test('channels are administered, for people and for programs', async () => {
  const created = await veza('channel create radio --json');
  assert.equal(created.stderr, '');
  const { channel, streamKey, ...rest } = JSON.parse(created.stdout);
  assert.equal(channel, 'radio');
  assert.deepEqual(rest, {});
  assert.equal((await app.channels.verifyKey(streamKey, () => false))?.slug, 'radio');

  const shown = await veza('channel create talk --title Talk --visibility unlisted --no-recording');
  assert.equal(shown.code, 0);
  assert.match(shown.stdout, /server +rtmp:\/\/radio\.example:1935\/live\n +stream key +vz_[0-9a-z]{26}\n/);
  assert.match(shown.stdout, /server radio\.example, port 8000, mount \/talk, user source\n +password +vz_/);
  assert.match(shown.stdout, /Listen at http:\/\/radio\.example:8080\/c\/talk/);
  assert.equal((await app.channels.get('talk'))?.recording, false);

  assert.deepEqual(
    JSON.parse((await veza('channel list --json')).stdout).map((item: { slug: string; visibility: string }) => [
      item.slug,
      item.visibility,
    ]),
    [
      ['radio', 'public'],
      ['talk', 'unlisted'],
    ],
  );
  assert.match((await veza('channel list')).stdout, /^radio +offline +0 +public +radio$/m);
  assert.match((await veza('channel show talk')).stdout, /^title +Talk$/m);

  const rotated = JSON.parse((await veza('channel rotate-key radio --json')).stdout);
  assert.notEqual(rotated.streamKey, streamKey);
  assert.equal((await app.channels.verifyKey(rotated.streamKey, () => false))?.slug, 'radio');

  app.live.shows.set('radio', { state: 'live', listeners: 0, nowPlaying: undefined });
  assert.equal((await veza('channel end radio')).code, 0);
  const again = await veza('channel end radio');
  assert.equal(again.code, 1);
  assert.equal(again.stderr, 'veza: The channel is off air. (conflict)\n');
  assert.equal((await veza('channel delete radio')).code, 0);
  assert.equal(await app.channels.get('radio'), undefined);
});

test('what is refused is said, with an exit code', async () => {
  const taken = await veza('channel create admin --json');
  assert.equal(taken.code, 1);
  assert.match(JSON.parse(taken.stderr).error, /reserved/);
  assert.match((await veza('channel show none')).stderr, /There is no channel "none"/);
  const wrong = ['', 'channel', 'channel sing x', 'channel create', 'channel show a b', 'channel list --loudly'];
  await Promise.all(
    wrong.map(async (args) => {
      const { code, stdout, stderr } = await veza(args);
      assert.equal(code, 2, args);
      assert.match(stdout + stderr, /usage: veza COMMAND/);
    }),
  );
  assert.equal((await veza('--help')).code, 0);
  assert.equal((await veza('channel list', { LOG_LEVEL: 'loud' })).stderr.split(';')[0], 'veza: LOG_LEVEL is "loud"');
});

test('a server that is not there, is another, or has another token', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'veza-command-'));
  const none = await veza('channel list', { DATA_DIR: dir });
  assert.equal(none.code, 3);
  assert.match(none.stderr, /admin-token: the server has not been started yet, or with another DATA_DIR/);
  await writeFile(join(dir, 'admin-token'), 'wrong\n');
  assert.match((await veza('channel list', { DATA_DIR: dir })).stderr, /does not accept the admin token/);

  const other = createServer((_req, res) => res.end('<html>'));
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
  const port = String((other.address() as AddressInfo).port);
  assert.match((await veza('channel list', { PORT: port })).stderr, /is not Veza/);
  await new Promise((resolve) => other.close(resolve));
  const gone = await veza('channel list', { PORT: port });
  assert.equal(gone.code, 3);
  assert.match(gone.stderr, /no server answers at http:\/\/127\.0\.0\.1:\d+/);
  await rm(dir, { recursive: true });
});

test('the configuration reference needs no server', async () => {
  assert.equal((await veza('config reference', { PORT: '1' })).stdout, configurationReference());
});
