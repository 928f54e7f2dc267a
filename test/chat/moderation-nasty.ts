/** What a text is made of that is meant to cost much. Data of moderation-cost.test.ts and of the bench. */
export const NASTY: Readonly<Record<string, string>> = {
  'ordinary chat': 'I really love this tune, the bass is amazing and the vocals remind me of that record from 1998; ',
  'one letter': 'a',
  spaces: ' ',
  'first letters of words': 'fu',
  'found everywhere': 'fuck ',
  'allowed everywhere': 'shitake ',
  'spaced letters': 'f ',
  'letters and full stops': 'f.',
  'taken apart': 'f_u-c.k ',
  leet: '5h1t$ ',
  'masked by stars': 'f*',
  hosts: 'a.b ',
  'known endings': 'a.com ',
  addresses: 'http://a.b ',
  schemes: '://',
  'dots in words': '(dot) com ',
  'prefixes of terms': 'abab ',
  'a term, nearly': 'ababababab',
  'marks in bad order': 'a\u0315\u0300\u0327',
  'marks alone': '\u0315\u0300\u0327',
  'turned text': '\u202ea\u202c',
  'long expansions': '\ufdfa',
  'mixed scripts': 'аsс ',
  'dressed letters': '𝓯𝓾',
  flags: '🇫🇺',
  emoji: '😀',
  'joined emoji': '👨‍👩‍👧‍👦',
  mentions: '@a ',
  unspaced: '音楽',
  syllables: '가',
  offers: 'make $1',
  'offers, begun': 'hot girls buy free ',
  numbers: '1 2 ',
  'numbers and letters': '1 f 2 ',
  'unseen characters': 'f\u200b',
  'lone surrogates': '\ud800',
};

export const filled = (unit: string, bytes: number) => unit.repeat(Math.max(1, Math.floor(bytes / Buffer.byteLength(unit))));

/** 200 terms that begin alike. */
export const nastyTerms = () => Array.from({ length: 200 }, (_, index) => `${'ab'.repeat((index % 18) + 1)}c${index}`.slice(0, 40));
