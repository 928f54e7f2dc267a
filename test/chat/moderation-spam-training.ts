// npx tsx test/chat/moderation-spam-training.ts [--write]
//
// Trains the classifier of spam and prints how good it is on messages that it was not trained on. With --write it writes
// src/chat/automod/spam-model.ts; moderation-spam.test.ts trains it again and compares. Every step is exact: no Math.exp (its last bit
// is the engine's own affair), a fixed order, a split by hash.
//
// The corpus: SMS Spam Collection v.1 (Almeida, Gómez Hidalgo, Yamakami 2011; UCI Machine Learning Repository, CC BY 4.0), 5,574 text messages in English,
// as the npm package spam-filter ships it.
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { fold } from '../../src/chat/automod/fold.js';
import { FEATURES, featuresOf, MIN_WORDS, type SpamModel } from '../../src/chat/automod/spam.js';

export interface Message {
  readonly spam: boolean;
  readonly text: string;
  readonly features: readonly number[];
  readonly words: number;
}

/** The corpus without copies, in two parts. Copies that differ in digits and signs only are on the same side. */
export function readCorpus(): { train: Message[]; tune: Message[]; heldOut: Message[]; all: number } {
  const folder = dirname(createRequire(import.meta.url).resolve('spam-filter/package.json'));
  const lines = readFileSync(join(folder, 'dataSet.txt'), 'utf8')
    .split(/\r?\n/)
    .filter((line) => line.includes('\t'));
  const parts = { train: [] as Message[], tune: [] as Message[], heldOut: [] as Message[], all: lines.length };
  const known = new Set<string>();
  for (const line of lines) {
    const text = line.slice(line.indexOf('\t') + 1);
    const letters = text.toLowerCase().replace(/[^a-z]+/g, ' ');
    if (known.has(letters)) continue;
    known.add(letters);
    const folded = fold(text);
    if (!folded) continue;
    const features: number[] = [];
    const words = featuresOf(folded, (feature) => features.push(feature));
    const side = createHash('sha256').update(letters).digest()[0]!;
    parts[side < 51 ? 'heldOut' : side < 76 ? 'tune' : 'train'].push({ spam: line.startsWith('bad'), text, features, words });
  }
  return parts;
}

/** e to the x by sums and products alone, so that every machine gets the same bits. */
function exp(x: number): number {
  const halvings = 10;
  const small = Math.max(-40, Math.min(40, x)) / 1024;
  let term = 1;
  let sum = 1;
  for (let n = 1; n <= 12; n++) {
    term = (term * small) / n;
    sum += term;
  }
  for (let n = 0; n < halvings; n++) sum *= sum;
  return sum;
}

const EPOCHS = 30;
const RATE = 0.15;
const DECAY = 1e-4;

function train(messages: readonly Message[]): SpamModel {
  const weights = new Float64Array(FEATURES);
  let bias = 0;
  const order = messages.map((_, index) => index);
  let state = 20111;
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state % below;
  };
  for (let epoch = 0; epoch < EPOCHS; epoch++) {
    for (let index = order.length - 1; index > 0; index--) {
      const other = random(index + 1);
      [order[index], order[other]] = [order[other]!, order[index]!];
    }
    const rate = RATE / (1 + epoch / 4);
    for (const index of order) {
      const { features, spam } = messages[index]!;
      let sum = bias;
      for (const feature of features) sum += weights[feature]!;
      const error = (spam ? 1 : 0) - 1 / (1 + exp(-sum));
      bias += rate * error;
      for (const feature of features) weights[feature] = weights[feature]! * (1 - DECAY) + rate * error;
    }
  }
  const largest = weights.reduce((most, weight) => Math.max(most, Math.abs(weight)), 0);
  const scale = Math.ceil((largest / 127) * 1e6) / 1e6;
  return {
    bias: Math.round(bias * 1e4) / 1e4,
    scale,
    threshold: 1,
    weights: Int8Array.from(weights, (weight) => Math.round(weight / scale)),
  };
}

const scoreOf = ({ bias, scale, weights }: SpamModel, { features, words }: Message) => {
  let sum = 0;
  for (const feature of features) sum += weights[feature]!;
  return words < MIN_WORDS ? 0 : 1 / (1 + exp(-(bias + sum * scale)));
};

export interface Quality {
  readonly messages: number;
  readonly spam: number;
  readonly truePositives: number;
  readonly falsePositives: number;
  readonly precision: number;
  readonly recall: number;
}

function measure(model: SpamModel, messages: readonly Message[], threshold = model.threshold): Quality {
  const called = messages.filter((message) => scoreOf(model, message) >= threshold);
  const truePositives = called.filter(({ spam }) => spam).length;
  const spam = messages.filter((message) => message.spam).length;
  const falsePositives = called.length - truePositives;
  return {
    messages: messages.length,
    spam,
    truePositives,
    falsePositives,
    precision: truePositives / Math.max(1, called.length),
    recall: truePositives / spam,
  };
}

/** The lowest threshold at which the tuning part has no false positive, but not below 0.9: a held message is somebody's. */
function withThreshold(model: SpamModel, tune: readonly Message[]): SpamModel {
  const thresholds = Array.from({ length: 100 }, (_, index) => (900 + index) / 1000);
  return { ...model, threshold: thresholds.find((threshold) => measure(model, tune, threshold).falsePositives === 0) ?? 0.999 };
}

export function source({ bias, scale, threshold, weights }: SpamModel): string {
  const text = Buffer.from(weights.buffer, weights.byteOffset, weights.length).toString('base64');
  return `// Made by test/chat/moderation-spam-training.ts from the SMS Spam Collection (Almeida, Gómez Hidalgo, Yamakami 2011; CC BY 4.0). Not written by hand.
export const SPAM_MODEL = {
  bias: ${bias},
  scale: ${scale},
  threshold: ${threshold},
  weights:
    '${text}',
};
`;
}

export function build(): { model: SpamModel; heldOut: Quality; trained: number; tuned: number; all: number } {
  const corpus = readCorpus();
  const model = withThreshold(train(corpus.train), corpus.tune);
  return { model, heldOut: measure(model, corpus.heldOut), trained: corpus.train.length, tuned: corpus.tune.length, all: corpus.all };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const { model, heldOut, trained, tuned, all } = build();
  console.log(`corpus ${all}, trained on ${trained}, threshold ${model.threshold} chosen on ${tuned}`);
  console.log(
    `held out: ${heldOut.messages} messages, ${heldOut.spam} of them spam; ${heldOut.truePositives} found, ${heldOut.falsePositives} others called spam`,
  );
  console.log(`precision ${(heldOut.precision * 100).toFixed(1)} %, recall ${(heldOut.recall * 100).toFixed(1)} %`);
  if (process.argv.includes('--write')) {
    writeFileSync('src/chat/automod/spam-model.ts', source(model));
    console.log('written to src/chat/automod/spam-model.ts');
  }
}
