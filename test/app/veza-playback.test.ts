import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, test } from 'node:test';
import { parseToken } from '../../src/access/playback/playback-token.js';
import { startApp, type TestApp } from '../support/app.js';

let app: TestApp;
before(async () => {
  app = await startApp();
  await app.channels.create('secret', { title: 'Secret', visibility: 'private', recording: true });
});
after(() => app.stop());

function veza(args: string): Promise<{ code: number; stdout: string; stderr: string }> {
  const env = { PATH: process.env.PATH, PORT: String(app.listener.port), DATA_DIR: app.dataDir };
  return new Promise((resolve) => {
    execFile(process.execPath, ['--import', 'tsx', 'src/cli/veza.ts', ...args.split(' ')], { env }, (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code) : 0, stdout, stderr });
    });
  });
}

test('links and their keys from the command line', async () => {
  const link = await veza('link create secret --expires 600');
  assert.equal(link.stderr, '');
  const token = /\/t\/([^/]+)\/live\/secret\/master\.m3u8/.exec(link.stdout)?.[1] ?? '';
  assert.ok(app.access.playbackLinks.admits('live', 'secret', token, { address: () => '', country: () => undefined }));

  const exported = JSON.parse((await veza('playback-keys export')).stdout);
  assert.deepEqual(exported, app.access.playbackKeys.export());
  assert.ok(Object.hasOwn(exported.keys, parseToken(token)?.keyId ?? ''));

  const replaced = JSON.parse((await veza('playback-keys replace --signs-in 0 --json')).stdout);
  assert.equal(replaced.length, 2);
  assert.match((await veza('playback-keys list')).stdout, new RegExp(`^${replaced[0].id}  made .*\n${replaced[1].id}  made .*\n$`));

  const wrong = await veza('link create secret --expires soon');
  assert.deepEqual([wrong.code, wrong.stderr], [2, 'veza: --expires is "soon"; allowed: a whole number of seconds\n']);
  assert.equal((await veza('link create nobody')).code, 1);
});
