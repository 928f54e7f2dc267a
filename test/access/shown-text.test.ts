import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkedName } from '../../src/access/accounts/account-rows.js';
import { titleSchema } from '../../src/app/api/channels/channels.js';

test('names and titles are one line that is seen as it is written', () => {
  for (const text of ['Radio', 'רדיו 88', 'راديو', '電台', '👩‍🚀', 'é', 'a\u200db', '1']) {
    assert.equal(titleSchema.parse(` ${text} `), text);
    assert.equal(checkedName(` ${text} `), text.normalize('NFC'));
  }
  for (const text of [
    'gnp.\u202eexe',
    '\u2066x\u2069',
    'x\u200f',
    '\u200b',
    '\u200b\u200d\u2060',
    '\u00ad',
    '\u3164\u115f',
    '\u2800',
    '\u180e \u2003',
    '\u{e0041}',
    'a\u2028b',
    'a\nb',
    '\ud83d',
    ' ',
    '',
  ]) {
    assert.equal(titleSchema.safeParse(text).success, false, JSON.stringify(text));
    assert.throws(() => checkedName(text), { code: 'bad_request' }, JSON.stringify(text));
  }
});

test('a long text is looked through in one pass', () => {
  assert.equal(titleSchema.safeParse('\u200b'.repeat(60_000)).success, false);
  assert.equal(titleSchema.safeParse(`${'a'.repeat(60_000)}\u202e`).success, false);
});
