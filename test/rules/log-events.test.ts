import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { logEvents, logEventsPage } from '../support/log-events.js';
import { sourceFiles } from '../support/source-files.js';

test('docs/log-events.md lists every log event: npm run -s log-events', async () => {
  assert.equal(await readFile('docs/log-events.md', 'utf8'), logEventsPage());
});

test('the list has every event that the source names', () => {
  const events = logEvents();
  assert.ok(events.length > 150, `${events.length} events were found`);
  const named = sourceFiles(['src', 'workers']).flatMap(({ text }) =>
    [...text.matchAll(/\bevent: '([a-z_]+\.[a-z_]+)'/g)].map(([, name]) => name!),
  );
  // Webhooks have events of their own.
  const ofWebhooks = /^(?:channel\.(?:on_air|off_air)|recording\.ready|account\.banned|webhook\.test)$/;
  const unlisted = named.filter((name) => !ofWebhooks.test(name) && !events.some(({ event }) => event === name));
  assert.deepEqual(unlisted, [], 'the list finds every event that the source names');
});

test('an alert, a document or a test that names a log event names one that is there', async () => {
  const events = new Set(logEvents().map(({ event }) => event));
  const documents = await Promise.all(
    ['docs/operations.md', 'docs/security.md', 'infra/prometheus/veza.rules.yml'].map((file) => readFile(file, 'utf8')),
  );
  const areas = new Set([...events].map((event) => event.slice(0, event.indexOf('.'))));
  const named = documents.flatMap((text) => [...text.matchAll(/`([a-z_]+)\.([a-z_]+)`/g)].filter(([, area]) => areas.has(area!)));
  for (const [, area, name] of named) assert.ok(events.has(`${area}.${name}`) || /^channel|^recording/.test(area!), `${area}.${name}`);
});
