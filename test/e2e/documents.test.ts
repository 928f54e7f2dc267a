/** Documents that only a running service can be held against, and its reference of the API. Everything else is in test/rules/documents.test.ts. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import type { Page } from 'playwright-core';
import { DESKTOP, launchChromium } from '../support/chromium.js';
import { uniqueMatches } from '../support/markdown.js';
import { Server } from '../support/server.js';

const PATIENCE_MS = 30_000;
const METHODS = new Set(['get', 'put', 'post', 'patch', 'delete', 'head', 'options']);

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

test('the reference of the API opens on a desktop and a phone, shows every operation, and tries one', async () => {
  const browser = await launchChromium();
  try {
    const description = (await (await fetch(`${server.url}/api/v1/openapi.json`)).json()) as { paths: Record<string, object> };
    const count = Object.values(description.paths).flatMap((path) => Object.keys(path).filter((key) => METHODS.has(key))).length;
    for (const viewport of [DESKTOP.viewport!, { width: 390, height: 844 }]) {
      const context = await browser.newContext({ viewport });
      const page = await context.newPage();
      const complaints: string[] = [];
      page.on('pageerror', (error) => complaints.push(String(error)));
      page.on('console', (message) => {
        if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text());
      });
      const requested = new Set<string>();
      page.on('request', (request) => requested.add(new URL(request.url()).origin));
      await page.goto(`${server.url}/docs/api`);
      await page.locator('#reference:not([aria-busy]) .opblock').first().waitFor({ timeout: PATIENCE_MS });
      assert.equal(await page.locator('.opblock').count(), count);
      await tryChannelList(page);
      const overflowPx = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(overflowPx <= 0, `${viewport.width}: the page is ${overflowPx} px wider than the window`);
      if (process.env.VEZA_SCREENSHOTS) await page.screenshot({ path: `${process.env.VEZA_SCREENSHOTS}/api-${viewport.width}.png` });
      assert.deepEqual(complaints, []);
      assert.deepEqual([...requested], [server.url], 'nothing is fetched from elsewhere');
      await context.close();
    }
  } finally {
    await browser.close();
  }
});

/** As somebody does who wants to see an answer: open, try, execute. */
async function tryChannelList(page: Page): Promise<void> {
  const operation = page.locator('.opblock-get', { has: page.locator('[data-path="/channels"]') });
  await operation.locator('.opblock-summary-control').click();
  await operation.getByRole('button', { name: 'Try it out' }).click();
  await operation.getByRole('button', { name: 'Execute' }).click();
  await operation.locator('.live-responses-table .response-col_status', { hasText: '200' }).waitFor({ timeout: PATIENCE_MS });
}
