import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Classifier } from '../../src/chat/automod/classifier.js';
import { DEFAULT_CLASSIFIER_SETTINGS } from '../../src/chat/automod/classifier-settings.js';
import { fold } from '../../src/chat/automod/fold.js';
import { isSpam, spamScore } from '../../src/chat/automod/spam.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { build, readCorpus, source } from './moderation-spam-training.js';

const built = build();

test('the model in the source is the one that the corpus gives', () => {
  const kept = readFileSync('src/chat/automod/spam-model.ts', 'utf8').replace(/\s+/g, '');
  assert.equal(kept, source(built.model).replace(/\s+/g, ''), 'run: npx tsx test/chat/moderation-spam-training.ts --write');
});

test('the documentation states how good it is, to the digit', () => {
  const { heldOut, trained, tuned, all } = built;
  const docs = readFileSync('docs/moderation.md', 'utf8').replace(/\s+/g, ' ');
  const percent = (share: number) => `${(share * 100).toFixed(1)} %`;
  for (const statement of [
    `${all.toLocaleString('en')} messages`,
    `trained on ${trained.toLocaleString('en')}`,
    `chosen on ${tuned.toLocaleString('en')} others`,
    `${heldOut.messages.toLocaleString('en')} messages that it has not seen, ${heldOut.spam} of them spam`,
    `precision ${percent(heldOut.precision)} (${heldOut.falsePositives} of`,
    `recall ${percent(heldOut.recall)} (${heldOut.truePositives} of ${heldOut.spam})`,
  ])
    assert.ok(docs.includes(statement), `docs/moderation.md does not say "${statement}"`);
});

test('no message is on two sides of the split', () => {
  const { train, tune, heldOut } = readCorpus();
  const key = (text: string) => text.toLowerCase().replace(/[^a-z]+/g, ' ');
  const all = [...train, ...tune, ...heldOut].map(({ text }) => key(text));
  assert.equal(new Set(all).size, all.length);
});

test('what runs scores as what was measured', () => {
  const { heldOut } = readCorpus();
  const called = heldOut.filter(({ text }) => isSpam(spamScore(fold(text)!)));
  assert.equal(called.filter(({ spam }) => spam).length, built.heldOut.truePositives);
  assert.equal(called.length, built.heldOut.truePositives + built.heldOut.falsePositives);
});

test('spam is held, refused or allowed as the room wants it, with its score', () => {
  const moderation = new Classifier({ clock: new FakeClock() });
  const text = 'URGENT! You have won a 1000 pound prize, call 09061701461 to claim now';
  const judge = (spam: 'allow' | 'hold' | 'refuse') =>
    moderation.classify({ roomId: 'room', authorId: spam, privileged: false, text, settings: { ...DEFAULT_CLASSIFIER_SETTINGS, spam } });
  assert.deepEqual(judge('allow'), { action: 'allow' });
  for (const action of ['hold', 'refuse'] as const) {
    const verdict = judge(action);
    assert.equal(verdict.action, action);
    const [reason] = verdict.action === 'hold' || verdict.action === 'refuse' ? verdict.reasons : [];
    assert.equal(reason?.rule, 'spam');
    assert.ok(reason.score > 0.9);
  }
});
