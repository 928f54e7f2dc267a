import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Batched } from '../../src/runtime/batched.js';
import { FakeClock } from '../../src/runtime/clock.js';

function source() {
  const questions: string[][] = [];
  const answers: { resolve: (found: ReadonlyMap<string, number>) => void; reject: (error: Error) => void }[] = [];
  const clock = new FakeClock();
  const batched = new Batched<number>(clock, (keys) => {
    questions.push([...keys]);
    return new Promise((resolve, reject) => answers.push({ resolve, reject }));
  });
  /** What is gathered after an answer is asked. */
  const gathered = async () => {
    await turn();
    clock.advance(1000);
    await turn();
  };
  return { batched, questions, answers, gathered };
}

test('what is asked for in one step, and what is asked for while an answer is awaited and just after it, goes together', async () => {
  const { batched, questions, answers, gathered } = source();
  const first = Promise.all([batched.load('a'), batched.load('b'), batched.load('a')]);
  await turn();
  assert.deepEqual(questions, [['a', 'b']]);
  // Asked again: the answer that is awaited may be older than the question.
  const second = Promise.all([batched.load('a'), batched.load('c')]);
  await turn();
  assert.equal(questions.length, 1);
  answers[0]!.resolve(new Map([['a', 1]]));
  assert.deepEqual(await first, [1, undefined, 1]);
  await turn();
  const third = batched.load('d');
  assert.equal(questions.length, 1, 'there may be more');
  await gathered();
  assert.deepEqual(questions[1], ['a', 'c', 'd']);
  answers[1]!.resolve(
    new Map([
      ['a', 2],
      ['c', 3],
    ]),
  );
  assert.deepEqual(await second, [2, 3]);
  assert.equal(await third, undefined);
  await turn();
  void batched.load('e');
  await turn();
  assert.deepEqual(questions[2], ['e'], 'who asks alone waits for nobody');
});

test('what fails is told to all who asked, and the next are asked for as before', async () => {
  const { batched, questions, answers, gathered } = source();
  const first = Promise.allSettled([batched.load('a'), batched.load('b')]);
  await turn();
  const second = batched.load('a');
  answers[0]!.reject(new Error('away'));
  assert.deepEqual(
    (await first).map(({ status }) => status),
    ['rejected', 'rejected'],
  );
  await gathered();
  answers[1]!.resolve(new Map([['a', 1]]));
  assert.equal(await second, 1);
  assert.deepEqual(questions, [['a', 'b'], ['a']]);
});

test('a question has at most 200 keys', async () => {
  const { batched, questions, answers, gathered } = source();
  const all = Promise.all(Array.from({ length: 450 }, (_, n) => batched.load(`k${n}`)));
  for (let n = 0; n < 3; n++) {
    await (n < 2 ? turn() : gathered());
    answers[n]!.resolve(new Map(questions[n]!.map((key) => [key, n])));
  }
  assert.equal((await all).filter((n) => n === 1).length, 200);
  assert.deepEqual(
    questions.map(({ length }) => length),
    [200, 200, 50],
  );
});
