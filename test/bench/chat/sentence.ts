const WORDS =
  'piano drums bass guitar singer chorus bridge verse melody rhythm evening morning winter summer river garden window street coffee letter story picture quiet loud gentle bright early late again never always maybe almost really hardly today'.split(
    ' ',
  );

/** No two alike: whoever says the same again and again is refused. */
export const sentence = (seed: number): string =>
  Array.from({ length: 6 }, (_, word) => WORDS[Math.floor(Math.abs(Math.sin(seed * 7 + word * 13.7)) * WORDS.length)]).join(' ');
