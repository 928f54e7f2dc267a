import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { RegExpMatcher } from 'obscenity';
import { Behaviour, DEFAULT_LIMITS } from '../../src/chat/automod/behaviour.js';
import { type Classification, Classifier, RULES } from '../../src/chat/automod/classifier.js';
import {
  type ClassifierSettings,
  checkClassifierSettings,
  DEFAULT_CLASSIFIER_SETTINGS,
} from '../../src/chat/automod/classifier-settings.js';
import { buildDataSet, Lexicon } from '../../src/chat/automod/lexicon.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { VezaError } from '../../src/runtime/errors.js';
import { EVASIONS, INNOCENT } from './moderation-battery.js';

interface Room {
  readonly clock: FakeClock;
  readonly moderation: Classifier;
  judge(
    text: string,
    settings?: Partial<ClassifierSettings>,
    who?: { authorId?: string; messageId?: string; privileged?: boolean; roomId?: string },
  ): Classification;
}

function room(): Room {
  const clock = new FakeClock();
  const moderation = new Classifier({ clock });
  let authors = 0;
  return {
    clock,
    moderation,
    judge: (text, settings = {}, { authorId = `author ${authors++}`, messageId, privileged = false, roomId = 'room' } = {}) =>
      moderation.classify({ roomId, authorId, messageId, privileged, text, settings: { ...DEFAULT_CLASSIFIER_SETTINGS, ...settings } }),
  };
}

const rulesOf = (verdict: Classification) => (verdict.action === 'allow' ? [] : verdict.reasons.map(({ rule }) => rule));

test('a masked word keeps its length and what stands around it', () => {
  const { judge } = room();
  assert.deepEqual(judge('what a shit show, f.u.c.k it'), {
    action: 'mask',
    text: 'what a **** show, ******* it',
    reasons: [{ category: 'profanity', score: 1, rule: 'profanity' }],
  });
  assert.deepEqual(judge('🅵🆄🅲🅺 you'), {
    action: 'mask',
    text: '**** you',
    reasons: [{ category: 'profanity', score: 1, rule: 'profanity' }],
  });
  assert.equal((judge('f\u200bu\u0301ck') as { text: string }).text, '****');
});

test('letters of another script are read as Latin ones only where that is what they are there for', () => {
  const { judge } = room();
  assert.equal(judge('соск').action, 'mask');
  assert.equal(judge('what a соск').action, 'mask');
  assert.equal(judge('это соск, добрый вечер').action, 'allow');
  assert.equal(judge('добрый вечер, fuсk').action, 'mask');
});

test('what a room wants done about a word is done', () => {
  const { judge } = room();
  for (const profanity of ['hold', 'refuse'] as const) {
    const verdict = judge('you nigger', { profanity });
    assert.equal(verdict.action, profanity);
    assert.deepEqual(verdict.action === 'hold' || verdict.action === 'refuse' ? verdict.reasons : [], [
      { category: 'slur', score: 1, rule: 'profanity' },
    ]);
  }
  assert.deepEqual(judge('you nigger', { profanity: 'allow' }), { action: 'allow' });
  assert.deepEqual(judge('you nigger', { enabled: false }), { action: 'allow' });
  assert.deepEqual(judge('you nigger', {}, { privileged: true }), { action: 'allow' });
});

test('refusing goes before holding, and holding before masking', () => {
  const { judge } = room();
  const settings = { blockedTerms: ['spoiler'], links: 'hold' } as const;
  assert.equal(judge('shit, see http://x.example', settings).action, 'hold');
  const verdict = judge('shit spoiler http://x.example', settings);
  assert.equal(verdict.action, 'refuse');
  assert.deepEqual(rulesOf(verdict), ['term', 'link', 'profanity']);
});

test('a text that becomes too long is refused, for those who moderate too', () => {
  const { judge } = room();
  for (const text of ['\ufdfa'.repeat(2730), 'a'.repeat(8193), 'ﷺ'.repeat(500)]) {
    assert.deepEqual(judge(text), { action: 'refuse', reasons: [{ category: 'length', score: 1, rule: 'too-long' }] });
    assert.equal(judge(text, { enabled: false }, { privileged: true }).action, 'refuse');
  }
  assert.equal(judge('x '.repeat(4096), { spam: 'allow' }).action, 'allow');
});

test('terms of a room: words and phrases, in disguise too, not inside other words', () => {
  const { judge } = room();
  const blockedTerms = ['Voldemort', 'red wedding', 'spoil*', '*gate', '音楽', '🍆', 'große', 'Москва'];
  const caught = (text: string) => rulesOf(judge(text, { blockedTerms })).includes('term');
  for (const text of [
    'voldemort!',
    'VOLDEMORT',
    'V0ld3m0rt',
    'v o l d e m o r t',
    'v.o.l.d.e.m.o.r.t',
    'voldemooooort',
    'v\u200boldemort',
    'ｖｏｌｄｅｍｏｒｔ',
    'vоldеmоrt',
    'the red   wedding',
    'red-wedding',
    'no spoilers please',
    'watergate',
    '今日の音楽です',
    'an 🍆 emoji',
    'GROSSE no, große yes',
    'где москва?',
  ])
    assert.ok(caught(text), text);
  for (const text of ['voldemortish', 'bored wedding', 'red carpet wedding', 'gates', 'despoil', '音', 'gross'])
    assert.ok(!caught(text), text);
});

test('what a room allows is allowed, and only that', () => {
  const { judge } = room();
  const allowedTerms = ['bloody shit show', 'arse'];
  assert.equal(judge('what an arse', { allowedTerms }).action, 'allow');
  assert.equal(judge('the Bloody Shit Show is a band', { allowedTerms }).action, 'allow');
  assert.equal(judge('that is shit, bloody shit show', { allowedTerms }).action, 'mask');
  assert.equal((judge('shit. The bloody shit show', { allowedTerms }) as { text: string }).text, '****. The bloody shit show');
});

test('a term is refused at one past each limit, and when it would match everything', () => {
  const bad = (settings: Partial<ClassifierSettings>, message: RegExp) =>
    assert.throws(
      () => checkClassifierSettings({ ...DEFAULT_CLASSIFIER_SETTINGS, ...settings }),
      (error) => error instanceof VezaError && error.code === 'bad_request' && message.test(error.message),
    );
  const some = (count: number, length = 5) => Array.from({ length: count }, (_, index) => `${index}`.padStart(length, 'x'));
  checkClassifierSettings({
    ...DEFAULT_CLASSIFIER_SETTINGS,
    blockedTerms: some(200, 40),
    allowedTerms: [...some(1, 100), '🍆', '*gate'],
    allowedHosts: ['*.example.org'],
  });
  bad({ blockedTerms: some(201) }, /201 terms; at most 200/);
  bad({ blockedTerms: some(1, 101) }, /101 characters; at most 100/);
  bad({ blockedTerms: some(81, 100) }, /8100 characters in all/);
  bad({ blockedTerms: [' * '] }, /nothing to look for/);
  bad({ blockedTerms: ['\u200b'] }, /nothing to look for/);
  bad({ allowedTerms: ['a*'] }, /nearly every message/);
  bad({ allowedHosts: some(101) }, /101 hosts/);
  bad({ allowedHosts: ['http://x.example/'] }, /not a host name/);
});

test('terms are compiled once for each change, and for so many rooms', () => {
  const clock = new FakeClock();
  const moderation = new Classifier({ clock, rooms: 3 });
  const judge = (roomId: string, blockedTerms: readonly string[]) =>
    moderation.classify({
      roomId,
      authorId: 'a',
      privileged: false,
      text: `hello ${clock.monotonicMs()}`,
      settings: { ...DEFAULT_CLASSIFIER_SETTINGS, blockedTerms },
    });
  for (let count = 0; count < 10; count++) judge('one', ['a word']);
  assert.equal(moderation.compilations, 1);
  judge('one', ['another word']);
  assert.equal(moderation.compilations, 2);
  for (let count = 0; count < 10; count++) judge(`room ${count}`, []);
  assert.equal(moderation.rooms, 3);
  moderation.forgetRoom('room 9');
  assert.equal(moderation.rooms, 2);
});

test('links: allowed hosts and what lies below them; not what only looks like them', () => {
  const { judge } = room();
  const settings = { links: 'refuse', allowedHosts: ['Example.org', '*.radio.example'], spam: 'allow' } as const;
  const caught = (text: string) => rulesOf(judge(text, settings)).includes('link');
  for (const text of [
    'http://evil.example',
    'HTTPS://EVIL.EXAMPLE/x',
    'evil.com',
    'see evil.com/x, ok?',
    'www.evil.example',
    '(evil.io)',
    'evil[.]com',
    'evil (dot) com',
    'http://example.org.evil.example',
    'http://example.org@evil.example',
    'http://evil.example\\@example.org',
    'http://notexample.org',
    'http://exаmple.org',
    'http://exámple.org',
    'http://example.org,http://evil.example',
    'ｅｖｉｌ.ｃｏｍ',
    'e\u200bvil.com',
    'http://192.0.2.1/x',
    'http://evil.example:8080',
    'tg://resolve?domain=x',
    't.me/evil',
  ])
    assert.ok(caught(text), text);
  for (const text of [
    'http://example.org',
    'https://www.Example.org/a?b=c#d',
    'example.org.',
    'live.radio.example/x',
    'http://example.org:8080/',
    'http://user@example.org/',
    'end.This is a sentence',
    'e.g. this, i.e. that',
    'version 1.2.3',
    'mail me@evil.com',
    'and/or',
    'at 20:30',
    'node.js and index.ts',
    'wait...what',
    '3.5mm jack',
  ])
    assert.ok(!caught(text), text);
  assert.equal(judge('http://evil.example', { links: 'hold' }).action, 'hold');
  assert.equal(judge('http://fine.example', {}).action, 'allow');
});

test('a flood is refused and passes', () => {
  const { judge, clock } = room();
  const say = (text: string) => rulesOf(judge(text, {}, { authorId: 'one' }));
  for (let count = 0; count < DEFAULT_LIMITS.floodBurst; count++)
    assert.deepEqual(say(`message number ${'abcdefghijklmnopqrstuvwxyz'[count]}`), []);
  assert.deepEqual(say('one more'), ['flood']);
  assert.deepEqual(rulesOf(judge('somebody else', {}, { authorId: 'two' })), []);
  assert.deepEqual(rulesOf(judge('elsewhere', {}, { authorId: 'one', roomId: 'other' })), []);
  clock.advance(499);
  assert.deepEqual(say('too early'), ['flood']);
  clock.advance(1);
  assert.deepEqual(say('now it goes'), []);
});

test('the same again is refused, whatever its numbers, spaces and signs', () => {
  const { judge, clock } = room();
  const say = (text: string) => rulesOf(judge(text, {}, { authorId: 'one' }));
  assert.deepEqual(say('Come to my party at 5'), []);
  assert.deepEqual(say('come to my party at 6 !!!'), []);
  assert.deepEqual(say('C\u200bome to my... party at 7'), []);
  assert.deepEqual(say('come to my party at 8'), ['repeat']);
  assert.deepEqual(rulesOf(judge('come to my party at 9', {}, { authorId: 'two' })), []);
  clock.advance(60_000);
  assert.deepEqual(say('come to my party at 8'), []);
  for (let count = 0; count < DEFAULT_LIMITS.shortRepeats; count++) assert.deepEqual(say('lol'), []);
  assert.deepEqual(say('lol'), ['repeat']);
});

test('a message that is sent again, since nobody knew what became of it, is neither a flood nor a repetition', () => {
  const { judge } = room();
  const say = (text: string, messageId: string) => rulesOf(judge(text, {}, { authorId: 'one', messageId }));
  for (let times = 0; times < 100; times++) assert.deepEqual(say('good evening everybody', 'k1'), []);
  // As many as may be under way over two connections.
  for (let times = 0; times < 3; times++)
    for (let count = 0; count < 15; count++) assert.deepEqual(say(`number ${'abcdefghijklmno'[count]}`, `n${count}`), []);
  for (const id of ['k2', 'k3', 'k4', 'k4', 'k2']) assert.deepEqual(say('this evening is a good one', id), []);
  assert.deepEqual(say('this evening is a good one', 'k2b'), ['repeat'], 'another message is');
  assert.deepEqual(say('what else', 'k2'), ['flood'], 'and another text under an old id is looked at as any other');
});

test('many links in a minute are a flood, also where links are allowed', () => {
  const { judge, clock } = room();
  const say = (text: string) => rulesOf(judge(text, {}, { authorId: 'one' }));
  const letters = 'abcdefgh';
  for (let count = 0; count < DEFAULT_LIMITS.linksPerMinute; count++)
    assert.deepEqual(say(`my song ${letters[count]} http://host.example/${letters[count]}`), []);
  assert.deepEqual(say('yet another song http://host.example/z'), ['link-flood']);
  clock.advance(60_000);
  assert.deepEqual(say('a last song http://host.example/y'), []);
  assert.deepEqual(say('http://h.example '.repeat(400)), ['link-flood']);
});

test('shouting, emoji and mentions beyond measure are held', () => {
  const { judge } = room();
  assert.deepEqual(rulesOf(judge('THIS IS SO GOOD I WANT TO HEAR IT FOREVER AND EVER AND EVER PLEASE PLAY IT AGAIN AND AGAIN')), ['caps']);
  assert.deepEqual(rulesOf(judge('ЭТО ТАК ХОРОШО ЧТО Я ХОЧУ СЛУШАТЬ ЭТО ВСЕГДА И ВЕЗДЕ И ЕЩЕ МНОГО МНОГО МНОГО РАЗ ПОДРЯД')), ['caps']);
  assert.deepEqual(rulesOf(judge('WHAT A TUNE')), []);
  assert.deepEqual(rulesOf(judge('😀'.repeat(DEFAULT_LIMITS.emoji - 1))), []);
  assert.deepEqual(rulesOf(judge('😀'.repeat(DEFAULT_LIMITS.emoji))), ['emoji']);
  assert.deepEqual(rulesOf(judge('👨‍👩‍👧‍👦'.repeat(DEFAULT_LIMITS.emoji - 1))), [], 'a family is one');
  assert.deepEqual(rulesOf(judge('👍🏽'.repeat(DEFAULT_LIMITS.emoji - 1))), [], 'a tone is none');
  const mentions = (count: number) => Array.from({ length: count }, (_, index) => `@user${index}`).join(' ');
  assert.deepEqual(rulesOf(judge(mentions(DEFAULT_LIMITS.mentions - 1))), []);
  assert.deepEqual(rulesOf(judge(mentions(DEFAULT_LIMITS.mentions))), ['mentions']);
  assert.deepEqual(rulesOf(judge('mail a@b.example or c@d.example, e@f, g@h, i@j, k@l, m@n, o@p, q@r')), []);
});

test('marks in towers and turned text are published without', () => {
  const { judge } = room();
  const tower = judge(`z${'\u0300\u0315\u0327'.repeat(10)}algo`);
  assert.deepEqual(tower, {
    action: 'mask',
    text: 'z\u0300\u0315\u0327\u0300algo',
    reasons: [{ category: 'format', score: 1, rule: 'format' }],
  });
  assert.deepEqual(judge('abc \u202edlrow\u202c def'), {
    action: 'mask',
    text: 'abc world def',
    reasons: [{ category: 'format', score: 1, rule: 'format' }],
  });
  assert.equal((judge('\u202ekcuf') as { text: string }).text, '****');
  for (const text of ['e\u0301te\u0301', 'שָׁלוֹם', 'مَرْحَبًا', '\u2067עברית\u2069 and English', 'नमस्ते', 'Việt Nam'])
    assert.equal(judge(text).action, 'allow', text);
});

test('memory of authors is bounded: the one seen longest ago is forgotten', () => {
  const behaviour = new Behaviour({ ...DEFAULT_LIMITS, authors: 100 });
  for (let count = 0; count < 1000; count++) behaviour.noteMessage('room', `author ${count}`, { hash: count, said: 10 }, 0, 0);
  assert.equal(behaviour.authors, 100);
  behaviour.noteMessage('room', 'author 900', { hash: 1, said: 10 }, 0, 0);
  for (let count = 0; count < 99; count++) behaviour.noteMessage('other', `author ${count}`, { hash: 1, said: 10 }, 0, 0);
  behaviour.forgetRoom('other');
  assert.equal(behaviour.authors, 1, 'who was seen again was kept');
});

test('the list is matched as the library matches it', () => {
  const set = buildDataSet();
  const lexicon = new Lexicon(set);
  const { blacklistedTerms, whitelistedTerms = [] } = set.build();
  const library = new RegExpMatcher({ blacklistedTerms, whitelistedTerms });
  const ours = (text: string) => {
    const allowed = lexicon.allowedIn(text);
    let found = false;
    lexicon.search(text, ({ start, end }) => {
      if (allowed.some((place) => place.start <= start && place.end >= end)) return 'allowed';
      found = true;
      return 'enough';
    });
    return found;
  };
  for (const text of [...EVASIONS, ...INNOCENT]) assert.equal(ours(text.toLowerCase()), library.hasMatch(text.toLowerCase()), text);
  const words = [
    'fuck',
    'shit',
    'shitake',
    'ass',
    'assa',
    'cock',
    'hancock',
    ' ',
    ' ',
    '.',
    'a',
    's',
    'analog',
    'en retard',
    'retard',
    'pussy',
    'cat',
    'f',
    'ck',
    'fick',
    '*',
    'ing',
    'tit',
    'x',
  ];
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...words), { maxLength: 12 }), (parts) => {
      const text = parts.join('');
      assert.equal(ours(text), library.hasMatch(text), text);
    }),
    { numRuns: 1000 },
  );
});

test('any text and any settings: a verdict, never an exception; a masked text is no longer than it was', () => {
  const { moderation, clock } = room();
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 300 }),
    fc.string({ unit: 'grapheme', maxLength: 300 }),
    fc
      .array(fc.constantFrom(...EVASIONS, ...INNOCENT, ' ', '\u202e', '\u202c', '://', '.', '\u0300', '\ud800', '\udc00', '@', '*'), {
        maxLength: 12,
      })
      .map((parts) => parts.join('')),
    fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 100 }).map((units) => String.fromCharCode(...units)),
  );
  const settings = fc.record({
    enabled: fc.boolean(),
    blockedTerms: fc.array(fc.string({ unit: 'binary', maxLength: 20 }), { maxLength: 5 }),
    allowedTerms: fc.array(fc.string({ maxLength: 20 }), { maxLength: 5 }),
    links: fc.constantFrom('allow', 'hold', 'refuse'),
    allowedHosts: fc.array(fc.string({ maxLength: 20 }), { maxLength: 3 }),
    profanity: fc.constantFrom('allow', 'mask', 'hold', 'refuse'),
    spam: fc.constantFrom('allow', 'hold', 'refuse'),
    remote: fc.constant('off'),
    remoteFails: fc.constant('open'),
  }) as fc.Arbitrary<ClassifierSettings>;
  fc.assert(
    fc.property(text, settings, fc.nat({ max: 50 }), (message, room, author) => {
      clock.advance(10_000);
      const verdict = moderation.classify({ roomId: 'room', authorId: `${author}`, privileged: false, text: message, settings: room });
      if (verdict.action === 'allow') return;
      assert.ok(verdict.reasons.length > 0 && verdict.reasons.length <= 8);
      for (const { rule, score } of verdict.reasons) assert.ok(RULES.includes(rule) && score >= 0 && score <= 1);
      if (verdict.action !== 'mask') return;
      assert.ok(Buffer.byteLength(verdict.text) <= Buffer.byteLength(message), 'no longer than it was');
    }),
    { numRuns: 800 },
  );
});
