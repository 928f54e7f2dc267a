import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Classifier } from '../../src/chat/automod/classifier.js';
import { DEFAULT_CLASSIFIER_SETTINGS } from '../../src/chat/automod/classifier-settings.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { filled, NASTY, nastyTerms } from './moderation-nasty.js';

const settings = { ...DEFAULT_CLASSIFIER_SETTINGS, links: 'hold', blockedTerms: nastyTerms() } as const;
const many = Number.MAX_SAFE_INTEGER;
const moderation = new Classifier({
  clock: new FakeClock(),
  limits: { floodBurst: many, repeats: many, shortRepeats: many, linksPerMinute: many, authors: 10 },
});
const judge = (text: string) => moderation.classify({ roomId: 'room', authorId: 'author', privileged: false, text, settings });

/** The shortest of several runs: what the machine does beside it only makes a run longer. */
function shortestMs(text: string): number {
  let shortest = Number.POSITIVE_INFINITY;
  for (let run = 0; run < 25; run++) {
    const startMs = performance.now();
    judge(text);
    shortest = Math.min(shortest, performance.now() - startMs);
  }
  return shortest;
}

test('eight times the text is at most sixteen times the work, whatever the text is', () => {
  for (const unit of Object.values(NASTY)) judge(filled(unit, 8192));
  // Quadratic work would be 64 times.
  for (const [name, unit] of Object.entries(NASTY)) {
    const ratio = shortestMs(filled(unit, 8192)) / Math.max(0.02, shortestMs(filled(unit, 1024)));
    assert.ok(ratio < 16, `${name}: ${ratio.toFixed(1)} times`);
  }
});
