import type { Report } from './report.js';

/**
 * Rules 32 and 33: the boxes of fragmented MP4 (ISO/IEC 14496-12, 23000-19). No byte outside the
 * given bytes is read.
 */

const MAX_DEPTH = 8;
const MAX_BOXES = 10_000;
const CONTAINERS = new Set(['moov', 'trak', 'mdia', 'mvex', 'moof', 'traf']);

interface Box {
  readonly type: string;
  /** The content of the box, without its header. */
  readonly view: DataView;
  readonly children: readonly Box[];
}

/** Returns the tree of boxes; undefined when a box exceeds the box around it, or a limit. */
function boxesOf(view: DataView, budget: { boxes: number }, depth = 0): Box[] | undefined {
  const found: Box[] = [];
  let at = 0;
  while (at < view.byteLength) {
    if (view.byteLength - at < 8 || depth > MAX_DEPTH || ++budget.boxes > MAX_BOXES) return undefined;
    let size = view.getUint32(at);
    let header = 8;
    if (size === 1) {
      if (view.byteLength - at < 16) return undefined;
      size = Number(view.getBigUint64(at + 8));
      header = 16;
    } else if (size === 0) size = view.byteLength - at;
    if (size < header || at + size > view.byteLength) return undefined;
    const type = String.fromCharCode(...[0, 1, 2, 3].map((index) => view.getUint8(at + 4 + index)));
    const content = new DataView(view.buffer, view.byteOffset + at + header, size - header);
    const children = CONTAINERS.has(type) ? boxesOf(content, budget, depth + 1) : [];
    if (!children) return undefined;
    found.push({ type, view: content, children });
    at += size;
  }
  return found;
}

function parse(bytes: Uint8Array): Box[] | undefined {
  return boxesOf(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), { boxes: 0 });
}

function* all(boxes: readonly Box[], type: string): Generator<Box> {
  for (const box of boxes) {
    if (box.type === type) yield box;
    yield* all(box.children, type);
  }
}

const first = (boxes: readonly Box[], type: string): Box | undefined => all(boxes, type).next().value as Box | undefined;

export interface InitFacts {
  readonly timescale: number;
  /** The default duration of a frame in samples, from `trex`. */
  readonly defaultDuration: number;
}

/** Checks rule 32. Returns undefined when the bytes are not an init segment. */
export function checkInit(bytes: Uint8Array, where: string, report: Report): InitFacts | undefined {
  report.count('init segments');
  try {
    return readInit(bytes, where, report);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    report.breach(32, where, 'a box of the init segment is cut short');
    return undefined;
  }
}

function readInit(bytes: Uint8Array, where: string, report: Report): InitFacts | undefined {
  const boxes = parse(bytes);
  const ftyp = boxes?.find((box) => box.type === 'ftyp');
  if (!boxes || !ftyp) {
    report.breach(32, where, 'the init segment is not a whole file with ftyp');
    return undefined;
  }
  const brands = new Set<string>();
  for (let at = 0; at + 4 <= ftyp.view.byteLength; at += 4) {
    // The second word is the minor version, not a brand.
    if (at !== 4) brands.add(String.fromCharCode(...[0, 1, 2, 3].map((index) => ftyp.view.getUint8(at + index))));
  }
  if (!brands.has('cmfc')) report.breach(32, where, `no cmfc brand among ${[...brands].join(' ')}`);
  const trex = first(boxes, 'trex');
  if (!first(boxes, 'mvex') || !trex) report.breach(32, where, 'no mvex with trex');
  for (const [type, offsetV0, offsetV1] of [
    ['mvhd', 16, 24],
    ['tkhd', 20, 28],
    ['mdhd', 16, 24],
  ] as const) {
    const box = first(boxes, type);
    if (!box) {
      report.breach(32, where, `no ${type}`);
      continue;
    }
    const long = box.view.getUint8(0) === 1;
    const duration = long ? Number(box.view.getBigUint64(offsetV1)) : box.view.getUint32(offsetV0);
    if (duration !== 0) report.breach(32, where, `${type} has duration ${duration}, not 0`);
  }
  const mdhd = first(boxes, 'mdhd');
  if (!mdhd) return undefined;
  const timescale = mdhd.view.getUint32(mdhd.view.getUint8(0) === 1 ? 20 : 12);
  return { timescale, defaultDuration: trex && trex.view.byteLength >= 16 ? trex.view.getUint32(12) : 0 };
}

/** The start and end of a segment or part, in units of the track's timescale. */
export interface MediaSpan {
  readonly start: number;
  readonly end: number;
}

/**
 * Checks rule 33 within one segment or part; the caller compares neighbours. Returns undefined when
 * the bytes contain no media.
 */
export function checkMedia(bytes: Uint8Array, init: InitFacts | undefined, where: string, report: Report): MediaSpan | undefined {
  report.count('segments and parts');
  try {
    return readMedia(bytes, init, where, report);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    report.breach(33, where, 'a box is cut short');
    return undefined;
  }
}

function readMedia(bytes: Uint8Array, init: InitFacts | undefined, where: string, report: Report): MediaSpan | undefined {
  const boxes = parse(bytes);
  if (!boxes) {
    report.breach(33, where, 'the boxes do not add up to the file');
    return undefined;
  }
  let [start, end]: [number | undefined, number | undefined] = [undefined, undefined];
  let [moofs, mdats] = [0, 0];
  for (const box of boxes) {
    if (box.type === 'mdat') mdats += 1;
    if (box.type !== 'moof') continue;
    moofs += 1;
    for (const traf of all([box], 'traf')) {
      const tfhd = first([traf], 'tfhd');
      if (!tfhd || (tfhd.view.getUint32(0) & 0x020000) === 0) report.breach(33, where, 'a traf without default-base-is-moof');
      const tfdt = first([traf], 'tfdt');
      if (!tfdt) {
        report.breach(33, where, 'a traf without tfdt');
        continue;
      }
      const time = tfdt.view.getUint8(0) === 1 ? Number(tfdt.view.getBigUint64(4)) : tfdt.view.getUint32(4);
      if (end !== undefined && time !== end) report.breach(33, where, `tfdt ${time} does not follow ${end}`);
      start ??= time;
      end = time + durationOf(traf, tfhd, init);
    }
  }
  if (moofs === 0 || moofs !== mdats) report.breach(33, where, `${moofs} moof and ${mdats} mdat`);
  return start === undefined || end === undefined ? undefined : { start, end };
}

function durationOf(traf: Box, tfhd: Box | undefined, init: InitFacts | undefined): number {
  let each = init?.defaultDuration ?? 0;
  if (tfhd) {
    const flags = tfhd.view.getUint32(0) & 0xffffff;
    if (flags & 0x08) each = tfhd.view.getUint32(8 + (flags & 0x01 ? 8 : 0) + (flags & 0x02 ? 4 : 0));
  }
  let total = 0;
  for (const trun of all([traf], 'trun')) {
    const flags = trun.view.getUint32(0) & 0xffffff;
    const count = trun.view.getUint32(4);
    if ((flags & 0x100) === 0) {
      total += count * each;
      continue;
    }
    const step = 4 * [0x100, 0x200, 0x400, 0x800].filter((flag) => flags & flag).length;
    let at = 8 + (flags & 0x01 ? 4 : 0) + (flags & 0x04 ? 4 : 0);
    for (let sample = 0; sample < count; sample++, at += step) total += trun.view.getUint32(at);
  }
  return total;
}
