import assert from 'node:assert/strict';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Ffmpeg } from '../../src/backing/ffmpeg.js';
import { LADDER } from '../../src/media/ladder.js';
import { SystemClock } from '../../src/runtime/clock.js';

test('an ffmpeg that works passes; one that is missing or is something else is named, with what is wrong', async () => {
  const clock = new SystemClock();
  await new Ffmpeg(undefined).check(LADDER, clock);
  const folder = await mkdtemp(join(tmpdir(), 'veza-ffmpeg-'));
  const other = join(folder, 'something-else');
  await writeFile(other, '#!/bin/sh\necho "no such encoder: libopus" >&2\nexit 1\n');
  await chmod(other, 0o755);
  const silent = join(folder, 'silent');
  await writeFile(silent, '#!/bin/sh\ncat > /dev/null\n');
  await chmod(silent, 0o755);
  for (const [path, reason] of [
    [join(folder, 'missing'), /FFMPEG_PATH: .*missing does not work/],
    [other, /no such encoder: libopus/],
    [silent, /it puts nothing out/],
  ] as const) {
    await assert.rejects(new Ffmpeg(path).check(LADDER, clock), reason);
  }
  await rm(folder, { recursive: true });
});
