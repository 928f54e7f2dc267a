import { setPriority } from 'node:os';
import { parentPort } from 'node:worker_threads';
import { hashSync, verifySync } from '@node-rs/argon2';

/**
 * A task for a thread of `password-pool`. Hashing takes tens of milliseconds of CPU and many
 * megabytes, which the thread that serves listeners cannot spare.
 */
export type PasswordTask =
  | { readonly task: 'hash'; readonly password: string; readonly cost: PasswordCost }
  | { readonly task: 'verify'; readonly password: string; readonly hash: string }
  /**
   * Whether the password is one of the most used passwords or one of `own`, apart from case, common
   * letter swaps and up to five digits or signs at its end.
   */
  | { readonly task: 'guessable'; readonly password: string; readonly own: readonly string[] };

export type PasswordAnswer = { readonly done: string | boolean } | { readonly failed: string };

export interface PasswordCost {
  readonly memoryKib: number;
  readonly passes: number;
  readonly lanes: number;
}

// On Linux this sets the niceness of this thread alone: a flood of sign-ins gets only the CPU time
// that the live path leaves.
if (process.platform === 'linux') {
  try {
    setPriority(10);
  } catch {
    // The process may lack the right to set priorities. The thread works without it.
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
        // 2 is Argon2id. The package's enum is a `const enum`, which exists only for the compiler.
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

/**
 * The 49,000 most used passwords. They are loaded when the first password is chosen, because most
 * processes never need them.
 */
let common: Promise<ReadonlySet<string>> | undefined;

async function commonPasswords(): Promise<ReadonlySet<string>> {
  const { dictionary } = await import('@zxcvbn-ts/language-common');
  return new Set(dictionary['passwords-common']);
}

const SWAPS: Readonly<Record<string, string>> = { '@': 'a', '4': 'a', '3': 'e', '0': 'o', '1': 'i', '!': 'i', $: 's', '5': 's', '7': 't' };
/**
 * The ending that people add to a word when a rule asks for digits or signs: usually a year and a
 * sign.
 */
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

/**
 * Whether the text repeats one piece of up to four characters, or is a run of neighbouring
 * characters such as `abcd` or `4321`.
 */
function isPattern(lower: string): boolean {
  if (/^(.{1,4}?)\1+.{0,3}$/su.test(lower)) return true;
  const points = [...lower].map((character) => character.codePointAt(0)!);
  const steps = new Set(points.slice(1).map((point, i) => point - points[i]!));
  return steps.size === 1 && (steps.has(1) || steps.has(-1));
}
