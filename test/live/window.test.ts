import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LiveWindow } from '../../src/live/window.js';
import { LADDER } from '../../src/media/ladder.js';
import { makeGrid } from '../../src/media/timeline.js';
import { unexpectedIn } from '../support/unexpected.js';

test('a listener that fails at what is published fails neither the publisher nor the other listeners', (t) => {
  const errors = unexpectedIn(t);
  const rendition = LADDER.find(({ codec }) => codec === 'aac')!;
  const from = { broadcastId: 'b', grid: makeGrid(1920, 320), firstNumber: 6, runs: [], gaps: [], titles: [] };
  const window = new LiveWindow('radio', [rendition], from);
  window.beginRun({ id: 'r', firstNumber: 6, discontinuity: 0, startWallMs: 0 });
  const publish = (part: number) => window.appendPart(['aac'], 6, part, new Map([[rendition, Buffer.from([part])]]));
  publish(0);
  const media = window.media(rendition.name, 'r-6.m4s')!;
  const heard: unknown[] = [];
  const fail = () => {
    throw new Error('a defect of one response');
  };
  media.follow(fail);
  media.follow((chunk) => heard.push(chunk?.[0]));
  window.onChange(fail);
  window.onChange(() => heard.push('changed'));
  publish(1);
  assert.deepEqual(heard, [1, 'changed']);
  assert.equal(window.progress.aac?.openParts, 2);
  assert.equal(errors.length, 2);
});
