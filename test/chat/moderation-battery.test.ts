import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DEFAULT_ROOM_MODERATION, Moderation } from '../../src/chat/moderation/moderation.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { EVASIONS, INNOCENT } from './moderation-battery.js';

/** Minima; docs/moderation.md states what there is. */
const LEAST_RECALL = 0.98;
const MOST_FALSE_POSITIVES = 0;

const moderation = new Moderation({ clock: new FakeClock() });
const judged = (text: string, authorId: string) =>
  moderation.judge({ roomId: 'room', authorId, privileged: false, text, settings: DEFAULT_ROOM_MODERATION });

test('evasions are found', () => {
  assert.ok(EVASIONS.length >= 150);
  assert.equal(new Set(EVASIONS).size, EVASIONS.length);
  const missed = EVASIONS.filter((text, index) => judged(text, `evader ${index}`).action === 'allow');
  const recall = 1 - missed.length / EVASIONS.length;
  console.log(
    `# ${EVASIONS.length - missed.length} of ${EVASIONS.length} evasions found (${(recall * 100).toFixed(1)} %); not found: ${JSON.stringify(missed)}`,
  );
  assert.ok(recall >= LEAST_RECALL, `recall ${recall}`);
});

test('innocent messages are left alone', () => {
  assert.ok(INNOCENT.length >= 200);
  assert.equal(new Set(INNOCENT).size, INNOCENT.length);
  const caught = INNOCENT.filter((text, index) => judged(text, `innocent ${index}`).action !== 'allow');
  console.log(`# ${caught.length} of ${INNOCENT.length} innocent messages caught: ${JSON.stringify(caught)}`);
  assert.ok(caught.length <= MOST_FALSE_POSITIVES);
});
