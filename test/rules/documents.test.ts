/** What the documents and the files for operators name is there. Nothing is started here; metrics are in test/e2e/documents.test.ts. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';
import { anchorsOf, linksOf, type Page, pathsOf, uniqueMatches } from '../support/markdown.js';

const MOST_README_BYTES = 12 * 1024;
const read = (path: string): Page => ({ path, text: readFileSync(path, 'utf8') });
const DOCS = readdirSync('docs', { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.md'));
const PAGES = ['README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'CHANGELOG.md', ...DOCS.map((file) => join('docs', file))].map(read);
const page = (path: string) => PAGES.find((one) => one.path === path)!.text;

const ROOMS = readdirSync('src', { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? [entry.name] : []));

/** What the build makes is looked for where it is made from, and a room below `src`. */
const sourceOf = (path: string) => (ROOMS.includes(path.split('/', 1)[0]!) ? `src/${path}` : path.replace(/^dist\/(.*)\.js$/, '$1.ts'));

/** One line for each link, anchor and path that leads nowhere. */
function broken(pages: readonly Page[]): string[] {
  const anchors = new Map(pages.map(({ path, text }) => [path, anchorsOf(text)]));
  return pages.flatMap(({ path, text }) => [
    ...pathsOf(text, ROOMS)
      .filter((named) => !existsSync(sourceOf(named)))
      .map((named) => `${path}: there is no ${named}`),
    ...linksOf(text).flatMap((link) => {
      const [file = '', anchor] = link.split('#');
      const target = file === '' ? path : normalize(join(dirname(path), file));
      if (!anchors.has(target) && !existsSync(target)) return [`${path}: link to ${link} leads nowhere`];
      const isThere = anchor === undefined || anchors.get(target)?.includes(anchor);
      return isThere ? [] : [`${path}: ${target} has no heading #${anchor}`];
    }),
  ]);
}

test('files, links and headings that the documents name exist', () => {
  assert.deepEqual(broken(PAGES), []);
  assert.ok(PAGES.flatMap(({ text }) => pathsOf(text, ROOMS)).length > 200);
  assert.ok(PAGES.flatMap(({ text }) => linksOf(text)).length > 80);
});

test('a page that names what is not there is reported', () => {
  const text = [
    '# A page',
    '`src/nowhere.ts`, `docs/nowhere/`, `live/nowhere`, [gone](nowhere.md), [no heading](#elsewhere), [fine](#a-page), `dist/workers/nowhere.js`',
    '```sh\nnpx tsx test/nowhere.ts\n# Not a heading\n```\n[not one](#not-a-heading)',
  ].join('\n\n');
  assert.deepEqual(broken([{ path: 'docs/example.md', text }]), [
    'docs/example.md: there is no src/nowhere.ts',
    'docs/example.md: there is no docs/nowhere/',
    'docs/example.md: there is no live/nowhere',
    'docs/example.md: there is no dist/workers/nowhere.js',
    'docs/example.md: there is no test/nowhere.ts',
    'docs/example.md: link to nowhere.md leads nowhere',
    'docs/example.md: docs/example.md has no heading #elsewhere',
    'docs/example.md: docs/example.md has no heading #not-a-heading',
  ]);
});

test('the README is short and has the two commands that start everything', () => {
  assert.ok(statSync('README.md').size <= MOST_README_BYTES, `${statSync('README.md').size} bytes`);
  for (const command of ['npm ci && npm run demo', 'npm ci && npm test'])
    assert.ok(page('README.md').includes(`\`\`\`sh\n${command}\n\`\`\``), command);
});

test('every page is listed in docs/README.md', () => {
  const listed = linksOf(page('docs/README.md'));
  for (const file of readdirSync('docs').filter((name) => /\.(?:md|json|sql)$/.test(name) && name !== 'README.md'))
    assert.ok(listed.includes(file), `docs/${file}`);
});

test('npm scripts that the documents name are in package.json', () => {
  const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: Record<string, string> };
  const named = PAGES.flatMap(({ text }) => uniqueMatches(text, /npm run (?:-s )?([a-z][a-z:-]*)/g));
  assert.ok(named.length > 20);
  for (const name of named) assert.ok(Object.hasOwn(scripts, name), `npm run ${name}`);
});

test('docs/commands.md names every command of veza, and the documents name no other', () => {
  const { stdout } = spawnSync(process.execPath, ['--import', 'tsx', 'src/cli/veza.ts', '--help'], { encoding: 'utf8' });
  const commands = uniqueMatches(stdout, /^ {2}([a-z-]+(?: [a-z-]+)?)/gm);
  assert.ok(commands.length > 20, stdout);
  const table = uniqueMatches(page('docs/commands.md'), /`((?!npm|node)[a-z-]+(?: [a-z-]+)?)[^`]*`/g);
  for (const command of commands) assert.ok(table.includes(command), command);
  for (const { path, text } of PAGES)
    for (const command of uniqueMatches(text, /(?:veza -- |dist\/src\/cli\/veza\.js |`veza )([a-z-]+(?: [a-z-]+)?)/g))
      assert.ok(
        commands.some((one) => `${command} `.startsWith(`${one} `)),
        `veza ${command} in ${path}`,
      );
});

test('variables that the documents and the files for operators name are in the reference', () => {
  const reference = uniqueMatches(page('docs/configuration.md'), /^\| `([A-Z0-9_]+)`/gm);
  assert.ok(reference.length > 40);
  const infra = ['nginx/veza.conf', 'systemd/veza.service', 'compose/compose.yaml', 'prometheus/veza.rules.yml'].map((file) =>
    read(join('infra', file)),
  );
  const ofOthers = new Set(
    `VEZA_LONG_MINUTES VEZA_SEED VEZA_KEY WEBHOOK_SECRET NODE_ENV CAP_NET_BIND_SERVICE AF_INET AF_INET6 AF_UNIX RTMP_PING_TIMEOUT`.split(
      ' ',
    ),
  );
  for (const { path, text } of [...PAGES, ...infra, read('Dockerfile')])
    for (const name of uniqueMatches(text, /(?<![\w-])([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?![\w-])/g))
      assert.ok(reference.includes(name) || ofOthers.has(name), `${name} in ${path}`);
});

test('docs/architecture.md has a row for every room of src', () => {
  for (const name of ROOMS) assert.match(page('docs/architecture.md'), new RegExp(`^\\| \`${name}\` \\|`, 'm'));
});

test('each promise of docs/security.md has a test', () => {
  const security = page('docs/security.md');
  const promises = security.slice(security.indexOf('## Promises'), security.indexOf('## Known limits')).split('\n');
  const rows = promises.filter((line) => /^\| [A-Z]/.test(line));
  assert.ok(rows.length > 20);
  for (const row of rows) assert.match(row, /`test\/[\w./-]+\.test\.ts`/, row);
});

test('every dependency is explained in docs/dependencies.md, and nothing else', () => {
  const { dependencies, devDependencies } = JSON.parse(readFileSync('package.json', 'utf8')) as Record<string, Record<string, string>>;
  const [, atRunTime = '', forTests = ''] = page('docs/dependencies.md').split(/^(?=\| (?:at run time|for building))/m);
  const named = (table: string) =>
    table
      .split('\n')
      .filter((line) => line.startsWith('| `'))
      .flatMap((line) => uniqueMatches(line.split('|')[1]!, /`([^`]+)`/g))
      .sort();
  assert.deepEqual(named(atRunTime), Object.keys(dependencies!).sort());
  assert.deepEqual(named(forTests), Object.keys(devDependencies!).sort());
});
