import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { runTestFile } from './test-file.js';

const dir = mkdtempSync(join(tmpdir(), 'veza-runner-'));
after(() => rmSync(dir, { recursive: true }));

const START = `import { before, describe, test } from 'node:test';\n`;

async function runText(text: string, options: { only?: readonly string[]; timeoutMs?: number } = {}) {
  const file = join(dir, `${Math.random()}.test.mjs`);
  writeFileSync(file, START + text);
  // This process is a test of node:test itself; a child that knows this answers in another format.
  const {
    durationMs: _d,
    output: _o,
    file: _f,
    ...result
  } = await runTestFile(file, {
    timeoutMs: 60_000,
    env: { NODE_TEST_CONTEXT: '' },
    ...options,
  });
  return result;
}

const GOOD = { passed: 1, failed: 0, failedNames: [], failedOutside: undefined, broken: [] };

test('names of failed tests are those by which they run again: the outermost test, and not the suite around it', async () => {
  const text = `
    test('fails (1+1)', () => { throw new Error(); });
    test('outer', async (t) => { await t.test('good', () => {}); await t.test('bad', () => { throw new Error(); }); });
    describe('suite', () => { test('good inside', () => {}); test('bad inside', () => { throw new Error(); }); });
    test('good', () => {});`;
  const { passed, failedNames, failedOutside, broken } = await runText(text);
  assert.deepEqual(failedNames, ['fails (1+1)', 'outer', 'bad inside']);
  assert.deepEqual([passed, failedOutside, broken], [3, undefined, []]);
  const second = await runText(text, { only: ['fails (1+1)', 'bad inside'] });
  assert.deepEqual([second.passed, second.failed, second.failedNames], [0, 2, ['fails (1+1)', 'bad inside']]);
  assert.deepEqual(second.broken, [], 'those that are left out are not skipped');
  assert.deepEqual(await runText(text, { only: ['good inside'] }), GOOD);
  assert.deepEqual((await runText(text, { only: ['nobody'] })).broken, ['ran no test']);
  const hook = await runText(`describe('hook', () => { before(() => { throw new Error(); }); test('never', () => {}); });`);
  assert.deepEqual([hook.passed, hook.failedNames], [0, ['never']]);
});

test('a skipped test, one to do, no test and a process left behind break a rule', async () => {
  assert.deepEqual((await runText(`test('a', { skip: 'later' }, () => {}); test('b', { todo: true }, () => {});`)).broken, [
    'skipped or to do: a, b (a test runs or is deleted)',
  ]);
  assert.deepEqual((await runText('')).broken, ['ran no test']);
  const left = `import { spawn } from 'node:child_process'; test('a', () => { spawn('sleep', ['60'], { stdio: 'ignore' }).unref(); });`;
  assert.deepEqual(await runText(left), { ...GOOD, broken: ['left a process behind'] });
});

test('a file that hangs, or fails where no test is, has failed outside of its tests', async () => {
  const hangs = await runText(`test('a', () => {}); setInterval(() => {}, 1000);`, { timeoutMs: 3000 });
  assert.match(hangs.failedOutside ?? '', /did not end within 3 s/);
  assert.equal((await runText(`throw new Error();`)).failedOutside, 'ended with 1');
  assert.deepEqual(await runText(`test('a', () => {});`), GOOD);
});
