import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Batched } from '../../src/runtime/batched.js';

function source() {
  const questions: string[][] = [];
  const answers: { resolve: (found: ReadonlyMap<string, number>) => void; reject: (error: Error) => void }[] = [];
  const batched = new Batched<number>((keys) => {
    questions.push([...keys]);
    return new Promise((resolve, reject) => answers.push({ resolve, reject }));
  });
  return { batched, questions, answers };
}

test('what is asked for in one step, and what is asked for while an answer is awaited, goes together', async () => {
  const { batched, questions, answers } = source();
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
  assert.deepEqual(questions[1], ['a', 'c']);
  answers[1]!.resolve(
    new Map([
      ['a', 2],
      ['c', 3],
    ]),
  );
  assert.deepEqual(await second, [2, 3]);
});

test('what fails is told to all who asked, and the next are asked for as before', async () => {
  const { batched, questions, answers } = source();
  const first = Promise.allSettled([batched.load('a'), batched.load('b')]);
  await turn();
  const second = batched.load('a');
  answers[0]!.reject(new Error('away'));
  assert.deepEqual(
    (await first).map(({ status }) => status),
    ['rejected', 'rejected'],
  );
  await turn();
  answers[1]!.resolve(new Map([['a', 1]]));
  assert.equal(await second, 1);
  assert.deepEqual(questions, [['a', 'b'], ['a']]);
});

test('a question has at most 200 keys', async () => {
  const { batched, questions, answers } = source();
  const all = Promise.all(Array.from({ length: 450 }, (_, n) => batched.load(`k${n}`)));
  for (let n = 0; n < 3; n++) {
    await turn();
    answers[n]!.resolve(new Map(questions[n]!.map((key) => [key, n])));
  }
  assert.equal((await all).filter((n) => n === 1).length, 200);
  assert.deepEqual(
    questions.map(({ length }) => length),
    [200, 200, 50],
  );
});
