import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';

/** How a program ended, with all that it printed. */
export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: Buffer;
  stderr: string;
}

export interface Running {
  readonly child: ChildProcess;
  /** Resolves when the program has ended and its pipes are read out; never rejects once it has started. */
  readonly ended: Promise<Ended>;
  /** What it has printed on stderr until now. */
  stderr(): string;
  /** Resolves when `pattern` has come on stdout or stderr; rejects when the program ends without it. */
  printed(pattern: RegExp): Promise<string>;
  /** Sends the signal if the program is still there, and waits for its end. */
  kill(signal?: NodeJS.Signals): Promise<Ended>;
}

const running = new Set<ChildProcess>();
// A test that throws must not leave a player or a publisher behind.
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** The last lines of a text, for error messages. */
export const tail = (text: string, lines = 15) => text.trimEnd().split('\n').slice(-lines).join('\n');

export function start(command: string, args: readonly string[], options: SpawnOptions & { input?: Uint8Array } = {}): Running {
  const { input, ...spawnOptions } = options;
  const child = spawn(command, [...args], { stdio: ['pipe', 'pipe', 'pipe'], ...spawnOptions });
  running.add(child);
  const out: Buffer[] = [];
  let err = '';
  let text = '';
  const watchers = new Set<() => void>();
  const seen = (chunk: Buffer) => {
    text = (text + chunk.toString('latin1')).slice(-1 << 20);
    for (const watch of watchers) watch();
  };
  child.stdout?.on('data', (chunk: Buffer) => {
    out.push(chunk);
    seen(chunk);
  });
  child.stderr?.on('data', (chunk: Buffer) => {
    err = (err + chunk.toString()).slice(-1 << 20);
    seen(chunk);
  });
  // A program that closes its input early says why on stderr; the broken pipe itself is no news.
  child.stdin?.on('error', () => undefined);
  if (input !== undefined) child.stdin?.end(input);
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once('error', (error) => {
      running.delete(child);
      reject(error);
    });
    child.once('close', (code, signal) => {
      running.delete(child);
      resolve({ code, signal, stdout: Buffer.concat(out), stderr: err });
    });
  });
  ended.catch(() => undefined);
  return {
    child,
    ended,
    stderr: () => err,
    printed: (pattern) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const match = pattern.exec(text);
          if (!match) return;
          watchers.delete(look);
          resolve(match[1] ?? match[0]);
        };
        watchers.add(look);
        look();
        ended.then((end) => reject(new Error(`${command} ended (${end.code ?? end.signal}) without ${pattern}:\n${tail(text)}`)), reject);
      }),
    kill: (signal = 'SIGKILL') => {
      if (child.exitCode === null && child.signalCode === null) child.kill(signal);
      return ended;
    },
  };
}

/** Runs a program to its end; rejects with its last words when it fails. */
export async function run(
  command: string,
  args: readonly string[],
  options: SpawnOptions & { input?: Uint8Array; timeoutMs?: number } = {},
): Promise<Ended> {
  const { timeoutMs, ...rest } = options;
  const program = start(command, args, rest);
  if (options.input === undefined) program.child.stdin?.end();
  const timer = timeoutMs === undefined ? undefined : setTimeout(() => program.child.kill('SIGKILL'), timeoutMs);
  const end = await program.ended;
  clearTimeout(timer);
  if (end.code !== 0) throw new Error(`${command} ended with ${end.code ?? end.signal}:\n${tail(end.stderr)}`);
  return end;
}

/**
 * Asks again until `probe` gives something other than undefined and false. For what only another process or a page knows and cannot announce; the
 * deadline is there to end a test that would wait for ever, not to measure anything.
 */
export async function eventually<T>(
  what: string,
  probe: () => Promise<T | undefined | false> | T | undefined | false,
  timeoutMs = 60_000,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const value = await probe();
      if (value !== undefined && value !== false) return value;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`, { cause: last });
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
