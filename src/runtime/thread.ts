import { Worker, type WorkerOptions } from 'node:worker_threads';

/**
 * A thread that runs `./{name}.js` beside the file whose `import.meta.url` is `from`. Node 20 has no way to start one from TypeScript, so when
 * the sources run as they are (tests) the thread registers tsx first.
 */
export function startThread(from: string, name: string, options: WorkerOptions = {}): Worker {
  if (from.endsWith('.js')) return new Worker(new URL(`./${name}.js`, from), options);
  const entry = new URL(`./${name}.ts`, from).href;
  return new Worker(`import('tsx/esm/api').then((tsx) => { tsx.register(); return import('${entry}'); })`, { ...options, eval: true });
}
