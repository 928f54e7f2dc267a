import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { fold, MAX_FOLDED_LENGTH } from '../../src/chat/automod/fold.js';

const folded = (text: string) => fold(text)?.text;

test('letters in other clothes are those letters', () => {
  for (const text of [
    'Ｆｕｎｋ',
    '🅵🆄🅽🅺',
    '🅕🅤🅝🅚',
    'Ⓕⓤⓝⓚ',
    '𝓯𝓾𝓷𝓴',
    '𝕱𝖚𝖓𝖐',
    'ᶠᵘⁿᵏ',
    '🇫🇺🇳🇰',
    'f\u200bu\u2060n\u00adk',
    'f\u0301\u0321u\u035fn\u20ddk\ufe0f',
  ])
    assert.equal(folded(text), 'funk', text);
  assert.equal(folded('ﬁne\u3000½'), 'fine 1⁄2');
});

test('flags beside each other are no letters', () => {
  assert.equal(folded('🇨🇺🇲🇪'), '····');
});

test('marks that are letters to their readers stay', () => {
  assert.equal(folded('नमस्ते'), 'नमस्ते');
  assert.equal(folded('สวัสดี'), 'สวัสดี'.normalize('NFKD'));
  assert.equal(folded('한국어'), '한국어');
});

test('a short text that becomes long is refused, at one past the limit', () => {
  assert.equal('\ufdfa'.repeat(2730).normalize('NFKC').length, 49_140);
  assert.equal(fold('\ufdfa'.repeat(2730)), undefined);
  assert.equal(folded('a'.repeat(MAX_FOLDED_LENGTH))?.length, MAX_FOLDED_LENGTH);
  assert.equal(fold('a'.repeat(MAX_FOLDED_LENGTH + 1)), undefined);
  assert.equal(folded(`${'a'.repeat(MAX_FOLDED_LENGTH)}\u200b`)?.length, MAX_FOLDED_LENGTH);
  assert.equal(fold('😀'.repeat(MAX_FOLDED_LENGTH / 2 + 1)), undefined);
});

test('any text: each unit knows the character that it came from, in order, and folding twice is folding once', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 400 }), (text) => {
      const result = fold(text);
      if (result === undefined) return;
      assert.equal(result.origin.length, result.text.length + 1);
      assert.equal(result.origin.at(-1), text.length);
      for (let index = 1; index < result.origin.length; index++) assert.ok(result.origin[index]! >= result.origin[index - 1]!);
      assert.equal(fold(fold(result.text)?.text ?? '')?.text, fold(result.text)?.text);
    }),
    { numRuns: 300 },
  );
});
