import { VezaError } from '../runtime/errors.js';

/**
 * Reads bare frames out of CMAF chunks (ISO/IEC 14496-12 §8.8) for `/listen`. Boxes other than
 * `moof` and `mdat` (`emsg`, `prft`, `styp`) are skipped. It reads one track, with sizes in `trun`
 * or with one default size.
 */

const MOOF = 0x6d6f6f66;
const TRAF = 0x74726166;
const TFHD = 0x74666864;
const TRUN = 0x7472756e;

/**
 * The frames of one or more chunks, as views of the given bytes. Throws VezaError `bad_request`
 * when a chunk is incomplete or malformed.
 */
export function samplesOf(bytes: Uint8Array): Uint8Array[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const samples: Uint8Array[] = [];
  try {
    for (const [type, start, end] of boxes(view, 0, view.byteLength)) {
      if (type !== MOOF) continue;
      for (const [inner, from, to] of boxes(view, start, end)) if (inner === TRAF) readTraf(view, start - 8, from, to, samples);
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new VezaError('bad_request', 'a CMAF chunk is cut short', { cause: error });
  }
  return samples;
}

/**
 * For each box its type, the start of its content and its end. Throws RangeError when a box does
 * not fit.
 */
function* boxes(view: DataView, from: number, to: number): Generator<[type: number, start: number, end: number]> {
  for (let at = from; at < to; ) {
    const size = view.getUint32(at);
    if (size < 8 || at + size > to) throw new RangeError('box size');
    yield [view.getUint32(at + 4), at + 8, at + size];
    at += size;
  }
}

function readTraf(view: DataView, moofAt: number, from: number, to: number, samples: Uint8Array[]): void {
  let defaultBytes = 0;
  for (const [type, start] of boxes(view, from, to)) {
    const flags = view.getUint32(start) & 0xffffff;
    if (type === TFHD) {
      let at = start + 8;
      if (flags & 0x1) at += 8;
      if (flags & 0x2) at += 4;
      if (flags & 0x8) at += 4;
      if (flags & 0x10) defaultBytes = view.getUint32(at);
    } else if (type === TRUN) {
      const count = view.getUint32(start + 4);
      if (!(flags & 0x1)) throw new RangeError('a trun without a data offset');
      let dataAt = moofAt + view.getInt32(start + 8);
      let at = start + 12 + (flags & 0x4 ? 4 : 0);
      for (let i = 0; i < count; i++) {
        if (flags & 0x100) at += 4;
        let size = defaultBytes;
        if (flags & 0x200) {
          size = view.getUint32(at);
          at += 4;
        }
        if (flags & 0x400) at += 4;
        if (flags & 0x800) at += 4;
        if (dataAt < 0 || dataAt + size > view.byteLength) throw new RangeError('sample outside');
        // Refuses a `trun` that claims many samples of no bytes: its list would be endless.
        if (size === 0) throw new RangeError('an empty sample');
        samples.push(new Uint8Array(view.buffer, view.byteOffset + dataAt, size));
        dataAt += size;
      }
    }
  }
}
