import { AsyncLocalStorage } from 'node:async_hooks';
import { type Browser, type BrowserContext, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import { ensurePackages } from './packages.js';

/**
 * Debian's Chromium, headless. Sound plays without a click unless `autoplay` is 'ask' (then it wants one, as a browser at
 * home does).
 */
export async function launchChromium(options: { autoplay?: 'allow' | 'ask' } = {}): Promise<Browser> {
  await ensurePackages('chromium');
  return chromium.launch({
    executablePath: '/usr/bin/chromium',
    headless: true,
    // playwright itself mutes a headless browser; a muted one plays and meters all the same.
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      `--autoplay-policy=${options.autoplay === 'ask' ? 'user-gesture-required' : 'no-user-gesture-required'}`,
    ],
  });
}

export const DESKTOP: BrowserContextOptions = { viewport: { width: 1280, height: 800 } };
export const PHONE: BrowserContextOptions = { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

const contextsOfTest = new AsyncLocalStorage<BrowserContext[]>();

/** Runs a part of a test; afterwards the contexts that it has opened are closed, and those of tests beside it are not. */
export async function closingContexts(run: () => Promise<void>): Promise<void> {
  const contexts: BrowserContext[] = [];
  try {
    await contextsOfTest.run(contexts, run);
  } finally {
    await Promise.all(contexts.map((context) => context.close()));
  }
}

/** A context inside `closingContexts`. */
export async function openContext(browser: Browser, options: BrowserContextOptions): Promise<BrowserContext> {
  const context = await browser.newContext(options);
  contextsOfTest.getStore()?.push(context);
  return context;
}

/** Sums every layout shift from before the first paint on; `readLayoutShift` gives the sum. */
export async function watchLayoutShift(page: Page): Promise<void> {
  await page.addInitScript(() => {
    const seen = { sum: 0, nodes: [] as string[] };
    Object.assign(window, { layoutShift: seen });
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) {
        const shift = entry as PerformanceEntry & { value: number; sources: { node: Node | null }[] };
        seen.sum += shift.value;
        for (const { node } of shift.sources) {
          const element = node instanceof Element ? node : node?.parentElement;
          seen.nodes.push(`${element?.tagName ?? '?'}.${element?.className ?? ''}`);
        }
      }
    }).observe({ type: 'layout-shift', buffered: true });
  });
}

export function readLayoutShift(page: Page): Promise<{ sum: number; nodes: string[] }> {
  return page.evaluate(() => (window as unknown as { layoutShift: { sum: number; nodes: string[] } }).layoutShift);
}
