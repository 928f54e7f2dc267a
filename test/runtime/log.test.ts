import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { withoutSecrets } from '../../src/runtime/log.js';

const LOG = fileURLToPath(new URL('../../src/runtime/log.ts', import.meta.url));

/** Says that it is ready on stderr, logs when it is told to on stdin, and ends: `how`. */
function logging(lines: number, how = 'void exit(3)', stdout: 'pipe' | number = 'pipe'): ChildProcess {
  const script = `
    const { createLog, exit } = await import(${JSON.stringify(LOG)});
    const log = createLog({ level: 'info', service: 'test', version: '1' });
    process.stdin.once('data', () => {
      for (let line = 0; line < ${lines}; line++) log.info({ line, token: 'secret' }, 'a line');
      ${how};
    });
    console.error('ready');`;
  return spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], { stdio: ['pipe', stdout, 'pipe'] });
}

test('everything that was logged is there when the process has ended, without secrets', async () => {
  const child = logging(5000);
  let text = '';
  child.stdout!.on('data', (data) => {
    text += data;
  });
  await once(child.stderr!, 'data');
  child.stdin!.write('go\n');
  assert.deepEqual(await once(child, 'close'), [3, null]);
  const lines = text.trim().split('\n');
  assert.equal(lines.length, 5000);
  assert.equal(JSON.parse(lines[4999]!).line, 4999);
  assert.ok(!text.includes('secret'));
});

test('secrets are known by their form, wherever they stand in a line', () => {
  const token = `k1a2.t8xk2p.${'L'.repeat(16)}.${'s'.repeat(42)}_`;
  const bound = `k1a2.t8xk2p.${'L'.repeat(16)}.ac.${'s'.repeat(43)}`;
  for (const secret of [
    token,
    bound,
    `vz_${'0'.repeat(26)}`,
    `vza_${'a'.repeat(26)}`,
    `vzr_${'-'.repeat(43)}`,
    `eyJ${'h'.repeat(20)}.e30.sig`,
  ])
    for (const line of [
      secret,
      `/T/${secret}/live/x`,
      `https://a.example/c/x?t=${secret}#x`,
      `{"referer":"${secret}"}`,
      `Error: ${secret}: no`,
    ])
      assert.ok(!withoutSecrets(line).includes(secret.slice(-20)), line);
  for (const line of [`/t/${token.slice(0, 40)}`, `/t/${token.replaceAll('.', '%2E')}/live`, '/x?access_token=short', '/x?a=b&token=short'])
    assert.match(withoutSecrets(line), /\[removed\]/, line);
  const plain = '{"path":"/api/v1/channels/radio","at":"2026-11-30T18:00:00.000Z","stack":"at x (file:///a/b.js:1:2)"}';
  assert.equal(withoutSecrets(plain), plain);
});

test('a process ends whose log nobody reads any more, or reads on', async (t) => {
  const gone = logging(5000);
  const stalled = logging(5000);
  t.after(() => {
    gone.kill('SIGKILL');
    stalled.kill('SIGKILL');
  });
  stalled.stdout!.pause();
  await Promise.all([once(gone.stderr!, 'data'), once(stalled.stderr!, 'data')]);
  gone.stdout!.destroy();
  await once(gone.stdout!, 'close');
  gone.stdin!.write('go\n');
  stalled.stdin!.write('go\n');
  assert.deepEqual(await Promise.all([once(gone, 'exit'), once(stalled, 'exit')]), [
    [3, null],
    [3, null],
  ]);
});

test('to end twice is to end once, and a crash ends too', async (t) => {
  const twice = logging(1, 'void exit(3); void exit(4)');
  const crashed = logging(5000, "throw new Error('a crash')");
  t.after(() => crashed.kill('SIGKILL'));
  await Promise.all([once(twice.stderr!, 'data'), once(crashed.stderr!, 'data')]);
  twice.stdin!.write('go\n');
  assert.deepEqual(await once(twice, 'exit'), [3, null]);
  crashed.stdout!.destroy();
  await once(crashed.stdout!, 'close');
  crashed.stdin!.write('go\n');
  assert.deepEqual(await once(crashed, 'exit'), [1, null]);
});

test('a log on a full disk ends nothing', async () => {
  const full = openSync('/dev/full', 'w');
  const more = "setTimeout(() => { log.info({}, 'more'); setTimeout(() => { console.error('alive'); void exit(3); }, 50); }, 50)";
  const child = logging(100, more, full);
  closeSync(full);
  let said = '';
  child.stderr!.on('data', (data) => {
    said += data;
  });
  await once(child.stderr!, 'data');
  child.stdin!.write('go\n');
  assert.deepEqual(await once(child, 'close'), [3, null], said);
  assert.match(said, /alive/);
});
