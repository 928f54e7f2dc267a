import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, test } from 'node:test';
import { permissionReference } from '../../src/access/roles.js';
import { startApp, type TestApp } from '../support/app.js';
import { callAs, type Person, personOf } from '../support/people.js';

let app: TestApp;
let owner: Person;
before(async () => {
  app = await startApp();
  owner = await personOf(app, 'broadcaster', false);
});
after(() => app.stop());

function veza(args: string, env: Record<string, string> = {}): Promise<{ code: number; stdout: string; stderr: string }> {
  const given = { PATH: process.env.PATH, PORT: String(app.listener.port), DATA_DIR: app.dataDir, ...env };
  return new Promise((resolve) => {
    execFile(process.execPath, ['--import', 'tsx', 'src/cli/veza.ts', ...args.split(' ')], { env: given }, (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code) : 0, stdout, stderr });
    });
  });
}

test('an API key of an account', async () => {
  const created = await veza(`key create playout --scopes channels:write,links --user ${owner.email} --expires 3600`);
  assert.equal(created.stderr, '');
  const [secret] = created.stdout.split('\n');
  assert.match(secret!, /^vza_/);
  assert.match(created.stdout, /For channels:write, links, until \d{4}-/);
  assert.equal((await callAs(app, secret, 'POST', '/channels', { slug: 'by-key' })).status, 201);
  assert.equal((await app.channels.get('by-key'))?.ownerId, owner.id);
  const json = JSON.parse((await veza(`key create other --scopes links --user ${owner.email} --json`)).stdout);
  assert.deepEqual([json.apiKey.name, json.apiKey.scopes, json.apiKey.expiresAt], ['other', ['links'], null]);

  assert.match((await veza(`key create x --scopes admin --user ${owner.email}`)).stderr, /of no use to a broadcaster: admin/);
  for (const [args, code] of [
    [`key create x --user ${owner.email}`, 2],
    ['key create x --scopes links', 2],
    [`key create x --scopes links --user ${owner.email} --expires soon`, 2],
    ['key create x --scopes links --user nobody@example.org', 1],
    [`key create x --scopes everything --user ${owner.email}`, 1],
  ] as const)
    assert.equal((await veza(args)).code, code, args);
});

test('the key that the database is encrypted with', async () => {
  const rotated = JSON.parse((await veza('key rotate --json')).stdout);
  assert.equal(rotated.keyId, 2);
  assert.equal(rotated.unreadable, 0);
  assert.match((await veza('key rotate')).stdout, /^Key 3 encrypts from now on; \d+ values were encrypted again\.\n$/);
});

test('a second factor that was lost', async () => {
  assert.equal((await callAs(app, owner.token, 'GET', '/me')).status, 200);
  assert.equal((await veza(`user remove-second-factor ${owner.email}`)).code, 0);
  assert.equal((await callAs(app, owner.token, 'GET', '/me')).status, 401);
});

test('the audit log, with nothing in it that speaks to a terminal', async () => {
  await app.access.audit.record({ principal: 'system', action: 'odd', details: { name: 'x' }, target: 'a\u001b[31m\u202eb' });
  const odd = (await veza('audit --action odd')).stdout;
  assert.match(odd, /^\d{4}-\S+Z {2}system {2}odd {2}a\ufffd\[31m\ufffdb {2}\{"name":"x"\}\n$/);
  for (let i = 0; i < 250; i++) await app.access.audit.record({ principal: 'system', action: 'many', details: { i } });
  assert.equal(JSON.parse((await veza('audit --action many --limit 240 --json')).stdout).length, 240);
  assert.equal((await veza('audit --action many')).stdout.trimEnd().split('\n').length, 50);
  assert.equal((await veza('audit --action nothing')).stdout, 'There is no such entry.\n');
  assert.equal((await veza('audit --limit 0')).code, 2);
  assert.equal((await veza('audit --from yesterday')).code, 1);
});

test('the permissions need no server', async () => {
  assert.equal((await veza('permissions', { PORT: '1' })).stdout, permissionReference());
});
