import { DIGIT, type Folded, KIND, LETTER } from './fold.js';
import { SPAM_MODEL } from './spam-model.js';

/**
 * Scores how much a message looks like spam: logistic regression over hashed words, pairs of words
 * and a few signs. Trained by `test/chat/moderation-spam-training.ts` on the SMS Spam Collection.
 * docs/moderation.md says what that corpus means for a chat.
 */
export const FEATURES = 1 << 13;
/**
 * The number of words that are scored, from the start of a text. More words would only dilute the
 * score.
 */
const MAX_WORDS = 400;
/** A message with fewer words is not scored: it has too few features for a verdict. */
export const MIN_WORDS = 4;

const hash = (seed: number, unit: number) => Math.imul(seed ^ unit, 0x01000193);
const SEED = 0x811c9dc5;
const slot = (value: number) => ((value ^ (value >>> 15)) >>> 0) & (FEATURES - 1);

const CURRENCY = new Set([...'£$€'].map((sign) => sign.charCodeAt(0)));
const named = (name: string) => [...name].reduce((seed, character) => hash(seed, character.charCodeAt(0)), SEED);
const [LINK, NUMBER_SHORT, NUMBER_LONG, MONEY, SHOUT, MIXED] = ['#link', '#short', '#long', '#money', '#shout', '#mixed'].map(named) as [
  number,
  number,
  number,
  number,
  number,
  number,
];

const seen = new Uint32Array(FEATURES);
let stamp = 0;

/** Calls `visit` once for each feature of a text. Returns the number of words in the text. */
export function featuresOf({ text }: Folded, visit: (feature: number) => void): number {
  if (++stamp === 0xffffffff) {
    seen.fill(0);
    stamp = 1;
  }
  const add = (value: number) => {
    const feature = slot(value);
    if (seen[feature] === stamp) return;
    seen[feature] = stamp;
    visit(feature);
  };
  let words = 0;
  let before = SEED;
  let index = 0;
  while (index < text.length && words < MAX_WORDS) {
    const unit = text.charCodeAt(index);
    if (!(KIND[unit]! & (LETTER | DIGIT))) {
      if (CURRENCY.has(unit)) add(MONEY);
      else if (unit === 0x21 && text.charCodeAt(index + 1) === 0x21) add(SHOUT);
      else if (unit === 0x3a && text.startsWith('//', index + 1)) add(LINK);
      index++;
      continue;
    }
    const start = index;
    let value = SEED;
    let digits = 0;
    while (index < text.length && KIND[text.charCodeAt(index)]! & (LETTER | DIGIT)) {
      const next = text.charCodeAt(index++);
      if (KIND[next]! & DIGIT) digits++;
      value = hash(value, next);
    }
    const length = index - start;
    // The length of a number is a feature, its digits are not: four digits are often a year, more a
    // telephone number.
    if (digits === length) value = length >= 5 ? NUMBER_LONG : NUMBER_SHORT;
    else if (digits > 0) add(MIXED);
    if (length === 3 && text.startsWith('www', start)) add(LINK);
    words++;
    add(value);
    add(hash(hash(before, 0x20), value));
    before = value;
  }
  return words;
}

/** The weights as the model file stores them: signed bytes times a scale, with the bias. */
export interface SpamModel {
  readonly bias: number;
  readonly scale: number;
  /** A score of at least this is spam, from 0 to 1. */
  readonly threshold: number;
  readonly weights: Int8Array;
}

function loadModel({ bias, scale, threshold, weights }: { bias: number; scale: number; threshold: number; weights: string }): SpamModel {
  const bytes = Buffer.from(weights, 'base64');
  return { bias, scale, threshold, weights: new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length) };
}

const MODEL = loadModel(SPAM_MODEL);

/** The spam score of a text from 0 to 1. A text that is too short gets 0. */
export function spamScore(folded: Folded, model: SpamModel = MODEL): number {
  let sum = 0;
  const words = featuresOf(folded, (feature) => {
    sum += model.weights[feature]!;
  });
  return words < MIN_WORDS ? 0 : 1 / (1 + Math.exp(-(model.bias + sum * model.scale)));
}

export const isSpam = (score: number): boolean => score >= MODEL.threshold;
