import { boundsRefusal } from './audio-bounds.js';

const PCM = 1;
const FLOAT = 3;
const A_LAW = 6;
const MU_LAW = 7;
const EXTENSIBLE = 0xfffe;
/** The bits per sample that the decoders accept, by `wFormatTag`. */
const BITS: ReadonlyMap<number, readonly number[]> = new Map([
  [PCM, [8, 16, 24, 32]],
  [FLOAT, [32, 64]],
  [A_LAW, [8]],
  [MU_LAW, [8]],
]);

/**
 * Finds the format of a WAV or RF64 in its first bytes. Keeps its offset between calls, so that
 * bytes which arrive one by one cost no more.
 */
export class WavJudge {
  /** The offset of the next chunk of the RIFF. */
  #at = 12;

  /**
   * Returns `wav`, why the stream is refused, or `more` when more bytes are needed. `bytes`:
   * everything that has arrived, from the first byte on.
   */
  judge(bytes: Buffer): 'wav' | 'more' | { refused: string } {
    if (bytes.length < 12) return 'more';
    if (bytes.toString('latin1', 8, 12) !== 'WAVE') return { refused: 'this is RIFF, but not WAV' };
    for (;;) {
      if (bytes.length < this.#at + 8) return 'more';
      const id = bytes.toString('latin1', this.#at, this.#at + 4);
      const sizeBytes = bytes.readUInt32LE(this.#at + 4);
      if (id === 'data') return { refused: 'this is a WAV without a format' };
      if (id === 'fmt ') {
        if (sizeBytes < 16) return { refused: 'this is a WAV without a format' };
        const end = this.#at + 8 + Math.min(sizeBytes, 40);
        if (bytes.length < end) return 'more';
        const refused = formatRefusal(bytes.subarray(this.#at + 8, end));
        return refused === undefined ? 'wav' : { refused };
      }
      // Chunks of a RIFF begin at even offsets.
      this.#at += 8 + sizeBytes + (sizeBytes & 1);
    }
  }
}

function formatRefusal(format: Buffer): string | undefined {
  let tag = format.readUInt16LE(0);
  const channels = format.readUInt16LE(2);
  const bits = format.readUInt16LE(14);
  // The sub-format is a GUID; its first two bytes are the tag.
  if (tag === EXTENSIBLE) tag = format.length >= 40 ? format.readUInt16LE(24) : 0;
  const known = BITS.get(tag);
  if (!known) return `this is a WAV with the codec 0x${tag.toString(16).padStart(4, '0')}`;
  if (!known.includes(bits)) return `this is a WAV of ${bits} bits a sample`;
  if (format.readUInt16LE(12) !== (channels * bits) / 8) return 'this is a WAV whose frames have another length than its samples';
  const refused = boundsRefusal(format.readUInt32LE(4), channels);
  return refused === undefined ? undefined : `this is a WAV with ${refused}`;
}
