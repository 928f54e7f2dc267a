import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { type ClassificationInput, Classifier } from '../../src/chat/automod/classifier.js';
import { DEFAULT_CLASSIFIER_SETTINGS } from '../../src/chat/automod/classifier-settings.js';
import { OpenAiClassifier, type OpenAiClassifierOptions } from '../../src/chat/automod/remote-classifier.js';
import { FakeClock } from '../../src/runtime/clock.js';

type Fetch = NonNullable<OpenAiClassifierOptions['fetch']>;

const KEY = 'sk-a-secret-of-the-operator';
const flagged = {
  results: [
    { flagged: true, categories: { hate: true, violence: false, harassment: true }, category_scores: { hate: 0.91, violence: 0.1 } },
  ],
};
const fine = { results: [{ flagged: false, categories: { hate: false }, category_scores: { hate: 0.01 } }] };
const answers =
  (body: unknown, status = 200): Fetch =>
  async () =>
    new Response(typeof body === 'string' ? body : JSON.stringify(body), { status });
const never: Fetch = () => new Promise(() => {});

function remoteRoom(fetch: Fetch, options: Partial<OpenAiClassifierOptions> = {}) {
  const clock = new FakeClock();
  const calls: { url: string; init: Parameters<Fetch>[1] }[] = [];
  let answer = fetch;
  const judge = new OpenAiClassifier({
    url: 'https://judge.example/v1/moderations',
    apiKey: KEY,
    clock,
    fetch: (url, init) => {
      calls.push({ url, init });
      return answer(url, init);
    },
    ...options,
  });
  const moderation = new Classifier({ clock, remote: judge });
  const input = (settings: Partial<ClassificationInput['settings']>): ClassificationInput => ({
    roomId: 'room',
    authorId: 'author',
    privileged: false,
    text: 'a text',
    settings: { ...DEFAULT_CLASSIFIER_SETTINGS, ...settings },
  });
  return { clock, calls, judge, moderation, input, answerWith: (next: Fetch) => (answer = next) };
}

test('a question is asked in the shape of POST /v1/moderations, with the key as bearer token', async () => {
  const { moderation, input, calls } = remoteRoom(answers(fine), { model: 'some-model' });
  assert.deepEqual(await moderation.classifyRemotely(input({ remote: 'hold' })), { action: 'allow' });
  const { url, init } = calls[0]!;
  assert.equal(url, 'https://judge.example/v1/moderations');
  assert.equal(init.method, 'POST');
  assert.equal(init.headers.authorization, `Bearer ${KEY}`);
  assert.deepEqual(JSON.parse(init.body), { input: 'a text', model: 'some-model' });
  assert.equal(init.redirect, 'error', 'the key goes nowhere else');
});

test('what is flagged is held, with category and score', async () => {
  const { moderation, input } = remoteRoom(answers(flagged));
  const reasons = [
    { category: 'hate', score: 0.91, rule: 'remote' },
    { category: 'harassment', score: 1, rule: 'remote' },
  ];
  assert.deepEqual(await moderation.classifyRemotely(input({ remote: 'hold' })), { action: 'hold', reasons });
  assert.deepEqual(await moderation.classifyRemotely(input({ remote: 'retract' })), { action: 'hold', reasons });
});

test('nobody is asked where nobody is to be asked', async () => {
  const { moderation, input, calls } = remoteRoom(answers(flagged));
  assert.deepEqual(await moderation.classifyRemotely(input({ remote: 'off' })), { action: 'allow' });
  assert.deepEqual(await moderation.classifyRemotely(input({ remote: 'hold', enabled: false })), { action: 'allow' });
  assert.deepEqual(await moderation.classifyRemotely({ ...input({ remote: 'hold' }), privileged: true }), { action: 'allow' });
  assert.deepEqual(await new Classifier({ clock: new FakeClock() }).classifyRemotely(input({ remote: 'hold' })), { action: 'allow' });
  assert.equal(calls.length, 0);
});

test('a judge that fails: open allows, closed holds; every way to fail, and never an exception', async () => {
  const ways: readonly (readonly [string, Fetch])[] = [
    ['error', async () => Promise.reject(new Error('refused'))],
    [
      'error',
      () => {
        throw new Error('at once');
      },
    ],
    ['status', answers({ error: { message: `wrong key ${KEY}` } }, 401)],
    ['status', answers('busy', 503)],
    ['answer', answers('not JSON')],
    ['answer', answers('null')],
    ['answer', answers({ results: [] })],
    ['answer', answers({ results: [{ flagged: 'yes' }] })],
    ['answer', answers(`{"results":[{"flagged":true,"x":"${'x'.repeat(70_000)}"}]}`)],
  ];
  for (const [why, fetch] of ways) {
    const { moderation, input } = remoteRoom(fetch);
    assert.deepEqual(await moderation.classifyRemotely(input({ remote: 'hold', remoteFails: 'open' })), { action: 'allow' });
    const verdict = await moderation.classifyRemotely(input({ remote: 'retract', remoteFails: 'closed' }));
    assert.deepEqual(verdict, { action: 'hold', reasons: [{ category: `unavailable:${why}`, score: 1, rule: 'remote' }] });
    assert.ok(!JSON.stringify(verdict).includes(KEY));
  }
  const rude = new Classifier({ clock: new FakeClock(), remote: { ask: () => Promise.reject(new Error('a judge of another make')) } });
  assert.equal((await rude.classifyRemotely(remoteRoom(never).input({ remote: 'hold', remoteFails: 'closed' }))).action, 'hold');
});

test('after 300 ms it has not answered, also when it ignores that it was told to stop', async () => {
  const { moderation, input, clock, calls } = remoteRoom(never);
  let verdict: unknown;
  const asked = moderation.classifyRemotely(input({ remote: 'hold', remoteFails: 'closed' })).then((given) => {
    verdict = given;
  });
  clock.advance(299);
  await turn();
  assert.equal(verdict, undefined);
  clock.advance(1);
  await asked;
  assert.deepEqual(verdict, { action: 'hold', reasons: [{ category: 'unavailable:timeout', score: 1, rule: 'remote' }] });
  assert.ok(calls[0]!.init.signal.aborted);
});

test('a body that trickles does not last longer than the time-out', async () => {
  const { judge, clock } = remoteRoom(async () => new Response(new ReadableStream({ pull: () => new Promise(() => {}) })));
  const asked = judge.ask('a text');
  await turn();
  clock.advance(300);
  assert.deepEqual(await asked, { outcome: 'failed', why: 'timeout' });
});

test('after five failures it is left alone for 15 s; then one question decides', async () => {
  const { judge, clock, calls, answerWith } = remoteRoom(answers('', 500));
  for (let count = 0; count < 5; count++) assert.deepEqual(await judge.ask('x'), { outcome: 'failed', why: 'status' });
  assert.equal(judge.state, 'open');
  assert.deepEqual(await judge.ask('x'), { outcome: 'failed', why: 'open' });
  assert.equal(calls.length, 5);
  clock.advance(14_999);
  assert.deepEqual(await judge.ask('x'), { outcome: 'failed', why: 'open' });
  clock.advance(1);
  assert.equal(judge.state, 'half-open');
  // Two at once: one of them is the question that decides.
  assert.deepEqual(await Promise.all([judge.ask('x'), judge.ask('x')]), [
    { outcome: 'failed', why: 'status' },
    { outcome: 'failed', why: 'open' },
  ]);
  assert.equal(calls.length, 6);
  assert.equal(judge.state, 'open');
  clock.advance(15_000);
  answerWith(answers(fine));
  assert.equal((await judge.ask('x')).outcome, 'judged');
  assert.equal(judge.state, 'closed');
  answerWith(answers('', 500));
  for (let count = 0; count < 4; count++) await judge.ask('x');
  assert.equal(judge.state, 'closed', 'a good answer begins the count anew');
});

test('so many questions are out at once, and no more', async () => {
  const { judge, clock, calls } = remoteRoom(never, { concurrent: 3 });
  const asked = [judge.ask('1'), judge.ask('2'), judge.ask('3')];
  assert.deepEqual(await judge.ask('4'), { outcome: 'failed', why: 'busy' });
  assert.equal(calls.length, 3);
  clock.advance(300);
  assert.ok((await Promise.all(asked)).every((answer) => answer.outcome === 'failed'));
});
