/**
 * Loaded into a process and its threads (`--require`), keeps a second directory with what a power cut would leave of the first: what was written counts there when its file
 * was synced, and not before. `POWER_CUT_OF` is the first, `POWER_CUT_LEAVES` the second; it begins as a copy. Creating, renaming, cutting and removing
 * files counts at once, as if the file system's journal never lost any of it.
 */
const fs = require('node:fs');
const { syncBuiltinESMExports } = require('node:module');
const { join, relative, resolve } = require('node:path');

const from = resolve(process.env.POWER_CUT_OF);
const to = resolve(process.env.POWER_CUT_LEAVES);
const paths = new Map();
/** Path → writes that are not synced. */
const unsynced = new Map();

const shadowOf = (path) => {
  const inside = relative(from, resolve(String(path)));
  return inside.startsWith('..') ? undefined : join(to, inside);
};

const original = { ...fs };

fs.openSync = (path, ...more) => {
  const descriptor = original.openSync(path, ...more);
  const shadow = shadowOf(path);
  if (shadow === undefined) return descriptor;
  paths.set(descriptor, shadow);
  if (!original.existsSync(shadow) && original.fstatSync(descriptor).isFile()) original.writeFileSync(shadow, '');
  return descriptor;
};

fs.writeSync = (descriptor, buffer, offset, length, position) => {
  const written = original.writeSync(descriptor, buffer, offset, length, position);
  const shadow = paths.get(descriptor);
  if (shadow !== undefined) {
    if (typeof position !== 'number') throw new Error('a write without a position');
    const waiting = unsynced.get(shadow) ?? [];
    unsynced.set(shadow, waiting);
    waiting.push({ position, bytes: Buffer.from(buffer.buffer, buffer.byteOffset + offset, written).toString('base64') });
  }
  return written;
};

fs.fsyncSync = (descriptor) => {
  original.fsyncSync(descriptor);
  const shadow = paths.get(descriptor);
  const waiting = unsynced.get(shadow);
  if (!waiting) return;
  unsynced.delete(shadow);
  const target = original.openSync(shadow, 'r+');
  for (const { position, bytes } of waiting) {
    const data = Buffer.from(bytes, 'base64');
    original.writeSync(target, data, 0, data.length, position);
  }
  original.closeSync(target);
};

fs.closeSync = (descriptor) => {
  paths.delete(descriptor);
  original.closeSync(descriptor);
};

fs.renameSync = (path, target) => {
  original.renameSync(path, target);
  const [before, after] = [shadowOf(path), shadowOf(target)];
  if (before === undefined || after === undefined) return;
  original.renameSync(before, after);
  for (const [descriptor, shadow] of paths) if (shadow === before) paths.set(descriptor, after);
  const waiting = unsynced.get(before);
  unsynced.delete(before);
  unsynced.delete(after);
  if (waiting) unsynced.set(after, waiting);
};

for (const name of ['unlinkSync', 'truncateSync', 'mkdirSync', 'rmdirSync']) {
  fs[name] = (path, ...more) => {
    const result = original[name](path, ...more);
    const shadow = shadowOf(path);
    if (shadow === undefined) return result;
    if (name === 'unlinkSync') unsynced.delete(shadow);
    original[name](shadow, ...more);
    return result;
  };
}

fs.ftruncateSync = (descriptor, length) => {
  original.ftruncateSync(descriptor, length);
  const shadow = paths.get(descriptor);
  if (shadow !== undefined) original.truncateSync(shadow, length);
};

syncBuiltinESMExports();
