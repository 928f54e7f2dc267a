import { Worker, type WorkerOptions } from 'node:worker_threads';

/**
 * Starts a thread that runs `./{name}.js` beside the caller's file; `from` is the caller's
 * `import.meta.url`. Node 20 cannot start a thread from TypeScript. When the sources run uncompiled
 * (tests), the thread registers tsx first.
 */
export function startThread(from: string, name: string, options: WorkerOptions = {}): Worker {
  if (from.endsWith('.js')) return new Worker(new URL(`./${name}.js`, from), options);
  const entry = new URL(`./${name}.ts`, from).href;
  return new Worker(`import('tsx/esm/api').then((tsx) => { tsx.register(); return import('${entry}'); })`, { ...options, eval: true });
}
