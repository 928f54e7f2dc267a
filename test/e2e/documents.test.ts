/** Metrics that the documents and the alert rules name are those of a running service. Everything else is in test/rules/documents.test.ts. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { uniqueMatches } from '../support/markdown.js';
import { Server } from '../support/server.js';

let server: Server;

before(async () => {
  server = await Server.start();
});
after(() => server?.stop());

test('metrics that the alert rules, docs/operations.md and docs/workers.md name are there', async () => {
  const exported = await (await fetch(`http://127.0.0.1:${server.metricsPort}/metrics`)).text();
  const names = uniqueMatches(exported, /^# TYPE (\w+) /gm);
  const rules = await readFile('infra/prometheus/veza.rules.yml', 'utf8');
  const inRules = uniqueMatches(rules, /\b([a-z0-9_]+)\{job="veza"/g).map((name) => name.replace(/_(?:bucket|count|sum)$/, ''));
  assert.ok(inRules.length > 10);
  // What is lost for good is told to somebody.
  for (const name of names.filter((one) => /_lost_(?:\w+_)?total$/.test(one))) assert.ok(inRules.includes(name), name);
  const pages = await Promise.all(['docs/operations.md', 'docs/workers.md'].map((page) => readFile(page, 'utf8')));
  const inPages = uniqueMatches(pages.join('\n'), /`([a-z0-9]+(?:_[a-z0-9]+)*_(?:total|seconds|percent|active|bits|backlog))`/g);
  assert.ok(inPages.length > 15);
  for (const name of [...inRules, ...inPages]) assert.ok(name === 'up' || names.includes(name), name);
  const inAdvice = uniqueMatches(rules, /\b((?:cpu|memory|nodejs|segment)_\w+)\b/g).map((name) => name.replace(/_bucket$/, ''));
  for (const name of inAdvice) assert.ok(names.includes(name), name);
});
