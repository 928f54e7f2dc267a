import { setPriority } from 'node:os';
import { parentPort } from 'node:worker_threads';
import { hashSync, verifySync } from '@node-rs/argon2';

/** A thread of `password-pool`: what takes tens of milliseconds of CPU, and megabytes, away from the thread that serves listeners. */
export type PasswordTask =
  | { readonly task: 'hash'; readonly password: string; readonly cost: PasswordCost }
  | { readonly task: 'verify'; readonly password: string; readonly hash: string }
  /** Is it, but for case, common letter swaps and a few digits at its end, one of the most used passwords, or one of `own`? */
  | { readonly task: 'guessable'; readonly password: string; readonly own: readonly string[] };

export type PasswordAnswer = { readonly done: string | boolean } | { readonly failed: string };

export interface PasswordCost {
  readonly memoryKib: number;
  readonly passes: number;
  readonly lanes: number;
}

// On Linux this is the thread's own niceness: a flood of sign-ins takes only what the live path leaves.
if (process.platform === 'linux') {
  try {
    setPriority(10);
  } catch {
    // Not allowed here: it works without.
  }
}

parentPort?.on('message', async (task: PasswordTask) => {
  let answer: PasswordAnswer;
  try {
    answer = { done: await run(task) };
  } catch (error) {
    answer = { failed: error instanceof Error ? error.message : String(error) };
  }
  parentPort!.postMessage(answer);
});

function run(task: PasswordTask): string | boolean | Promise<boolean> {
  switch (task.task) {
    case 'hash':
      return hashSync(task.password, {
        // Argon2id, as a number: the package's enum exists for the compiler alone.
        algorithm: 2,
        memoryCost: task.cost.memoryKib,
        timeCost: task.cost.passes,
        parallelism: task.cost.lanes,
      });
    case 'verify':
      return verifySync(task.hash, task.password);
    case 'guessable':
      return guessable(task.password, task.own);
  }
}

/** The 49,000 most used passwords, read when the first password is chosen: most processes never need them. */
let common: Promise<ReadonlySet<string>> | undefined;

async function commonPasswords(): Promise<ReadonlySet<string>> {
  const { dictionary } = await import('@zxcvbn-ts/language-common');
  return new Set(dictionary['passwords-common']);
}

const SWAPS: Readonly<Record<string, string>> = { '@': 'a', '4': 'a', '3': 'e', '0': 'o', '1': 'i', '!': 'i', $: 's', '5': 's', '7': 't' };
/** What people put behind a word when they are told to: a year and a sign, at most. */
const TAIL = /[\d\p{P}\p{S}]{1,5}$/u;

async function guessable(password: string, own: readonly string[]): Promise<boolean> {
  common ??= commonPasswords();
  const known = await common;
  const lower = password.toLowerCase();
  if (known.has(lower) || isPattern(lower)) return true;
  const stem = lower.replace(TAIL, '');
  for (const word of new Set([lower, stem])) {
    const plain = word.replace(/[@430!$517]/g, (sign) => SWAPS[sign] ?? sign);
    if (word.length >= 4 && (known.has(word) || known.has(plain))) return true;
    for (const name of own) {
      const given = name.normalize('NFC').toLowerCase();
      if (given.length >= 3 && (word === given || plain === given || lower.replaceAll(given, '').length < 4)) return true;
    }
  }
  return false;
}

/** One piece of up to four characters again and again, or letters or digits in their order. */
function isPattern(lower: string): boolean {
  if (/^(.{1,4}?)\1+.{0,3}$/su.test(lower)) return true;
  const points = [...lower].map((character) => character.codePointAt(0)!);
  const steps = new Set(points.slice(1).map((point, i) => point - points[i]!));
  return steps.size === 1 && (steps.has(1) || steps.has(-1));
}
