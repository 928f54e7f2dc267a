import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, test } from 'node:test';
import { startApp, type TestApp } from '../support/app.js';

let app: TestApp;
before(async () => {
  app = await startApp();
});
after(() => app.stop());

function veza(args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const env = { PATH: process.env.PATH, PORT: String(app.listener.port), DATA_DIR: app.dataDir };
  return new Promise((resolve) => {
    execFile(process.execPath, ['--import', 'tsx', 'src/cli/veza.ts', ...args], { env }, (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code) : 0, stdout, stderr });
    });
  });
}

test('accounts are administered, for people and for programs', async () => {
  const made = await veza(['user', 'create', 'ann@radio.example', '--name', 'Ann', '--role', 'broadcaster']);
  assert.equal(made.stderr, '');
  assert.match(made.stdout, /^ann@radio\.example \(Ann\): broadcaster, invited\n/);
  const token = /http:\/\/radio\.example:8080\/account#token=([\w-]{43})&for=invitation/.exec(made.stdout)![1]!;
  await app.access.registration.reset(token, 'three quiet herons', '192.0.2.1');

  const again = await veza(['user', 'create', 'Ann@radio.example', '--json']);
  assert.equal(again.code, 1);
  assert.match(JSON.parse(again.stderr).error, /already/);
  const json = JSON.parse((await veza(['user', 'create', 'bob@radio.example', '--json'])).stdout);
  assert.deepEqual([json.account.name, json.account.role], ['bob', 'listener']);
  assert.match(json.link, /#token=/);

  assert.match((await veza(['user', 'list', '--query', 'radio.example'])).stdout, /^ann@radio\.example +broadcaster +active +Ann$/m);
  assert.deepEqual(
    JSON.parse((await veza(['user', 'list', '--json'])).stdout)
      .map(({ email }: { email: string }) => email)
      .sort(),
    ['admin@localhost', 'ann@radio.example', 'bob@radio.example'],
  );

  assert.match((await veza(['user', 'set-role', 'ANN@radio.example', 'moderator'])).stdout, /moderator, active/);
  assert.match((await veza(['user', 'ban', 'ann@radio.example', '--reason', 'spam'])).stdout, /moderator, banned/);
  assert.equal((await app.access.accounts.byEmail('ann@radio.example'))!.banReason, 'spam');
  assert.match((await veza(['user', 'link', 'ann@radio.example'])).stderr, /banned/);
  assert.match((await veza(['user', 'unban', 'ann@radio.example'])).stdout, /moderator, active/);
  assert.match((await veza(['user', 'link', 'ann@radio.example'])).stdout, /for=recovery/);
  assert.equal((await veza(['user', 'delete', 'ann@radio.example', '--channels', 'delete'])).code, 0);
  assert.equal(await app.access.accounts.byEmail('ann@radio.example'), undefined);
});

test('what is refused is said, with an exit code', async () => {
  const [none, word, role, missing, more, channels] = await Promise.all([
    veza(['user', 'ban', 'nobody@radio.example']),
    veza(['user', 'ban', 'nobody']),
    veza(['user', 'create', 'x@radio.example', '--role', 'king']),
    veza(['user', 'set-role', 'x@radio.example']),
    veza(['user', 'list', 'x']),
    veza(['user', 'delete', 'admin@localhost', '--channels', 'x']),
  ]);
  assert.deepEqual([none.code, word.code, role.code, missing.code, more.code, channels.code], [1, 2, 1, 2, 2, 1]);
  assert.match(none.stderr, /there is no account/);
  assert.match(role.stderr, /body\.role/);
  assert.match(missing.stderr, /takes EMAIL and ROLE/);
});
