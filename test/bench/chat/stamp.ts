/** The moment of sending, written into a message: µs of the machine's monotonic clock, which all its processes share, as `~T` and 8 digits of base 36. */
const MARK = '~T';
const DIGITS = 8;
export const STAMP_BYTES = MARK.length + DIGITS;
const WRAP = 36 ** DIGITS;

export const nowUs = () => Number(process.hrtime.bigint() / 1000n);

export const stamp = () => MARK + (nowUs() % WRAP).toString(36).padStart(DIGITS, '0');

/** Calls back with the age of each stamp in the bytes, and gives their number. */
export function readStamps(bytes: Buffer, from: number, to: number, now: number, each: (ageUs: number) => void): number {
  let count = 0;
  for (
    let at = bytes.indexOf(MARK, from, 'latin1');
    at >= 0 && at + STAMP_BYTES <= to;
    at = bytes.indexOf(MARK, at + STAMP_BYTES, 'latin1')
  ) {
    count++;
    const digits = bytes.toString('latin1', at + MARK.length, at + STAMP_BYTES);
    // Moderation masks what reads like a word that it knows, also within a stamp.
    if (/^[0-9a-z]+$/.test(digits)) each((now - Number.parseInt(digits, 36) + WRAP) % WRAP);
  }
  return count;
}
