/** What the documents and the files beside the code say is so in the code. */
import assert from 'node:assert/strict';
import { access, readdir, readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { Server } from '../support/server.js';

const text = (path: string) => readFile(path, 'utf8');
const all = (from: string, pattern: RegExp) => [...new Set([...from.matchAll(pattern)].map((match) => match[1]!))];

let readme: string;
let server: Server;

before(async () => {
  readme = await text('README.md');
  server = await Server.start();
});
after(() => server?.stop());

test('links of the README lead somewhere', async () => {
  const titles = all(readme, /^#+ (.*)$/gm).map((title) =>
    title
      .toLowerCase()
      .replace(/[^\w -]/g, '')
      .replaceAll(' ', '-'),
  );
  const links = all(readme, /\]\(([^)\s]+)\)/g).filter((link) => !link.startsWith('http'));
  assert.ok(links.length > 10);
  for (const link of links) {
    if (link.startsWith('#')) assert.ok(titles.includes(link.slice(1)), link);
    else await access(link);
  }
});

test('variables that the README and the files for operators name are in the reference', async () => {
  const reference = all(await text('docs/configuration.md'), /^\| `([A-Z0-9_]+)`/gm);
  assert.ok(reference.length > 40);
  const files = ['README.md', 'CHANGELOG.md', 'infra/nginx/veza.conf', 'infra/systemd/veza.service', 'infra/compose/compose.yaml'];
  const ofOthers = new Set(['VEZA_LONG_MINUTES', 'VEZA_SEED', 'NODE_ENV', 'CAP_NET_BIND_SERVICE', 'AF_INET', 'AF_INET6', 'AF_UNIX']);
  for (const file of [...files, 'infra/prometheus/veza.rules.yml', 'Dockerfile']) {
    for (const name of all(await text(file), /(?<![\w-])([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?![\w-])/g)) {
      assert.ok(reference.includes(name) || ofOthers.has(name), `${name} in ${file}`);
    }
  }
});

test('files and rooms that the README names are there', async () => {
  const rooms = (await readdir('src', { withFileTypes: true })).filter((entry) => entry.isDirectory()).map(({ name }) => name);
  for (const room of rooms) assert.match(readme, new RegExp(`^\\| \`${room}\` \\|`, 'm'), `src/${room} is told of`);
  const files = all(readme, /`((?:runtime|media|backing|ingest|live|vod|access|app)\/[\w-]+(?:\.ts)?)`/g);
  assert.ok(files.length > 15);
  for (const file of files) {
    const path = `src/${file.replace(/\.ts$/, '')}`;
    await access(`${path}.ts`).catch(() => access(path));
  }
});

test('files that docs/security.md names are there, its links lead somewhere, and each promise has a test', async () => {
  const security = await text('docs/security.md');
  const files = all(security, /`((?:src|test)\/[\w./-]+)`/g);
  assert.ok(files.length > 40);
  for (const file of files) await access(file);
  for (const link of all(security, /\]\(([^)#\s]+)/g)) await access(`docs/${link}`);
  const promises = security.slice(security.indexOf('## Promises'), security.indexOf('## Known limits')).split('\n');
  for (const row of promises.filter((line) => /^\| [A-Z]/.test(line))) assert.match(row, /`test\/[\w./-]+\.test\.ts`/, row);
});

test('every dependency is explained in the README, and nothing else', async () => {
  const { dependencies, devDependencies } = JSON.parse(await text('package.json')) as Record<string, Record<string, string>>;
  const section = (from: string, to: string) => readme.slice(readme.indexOf(from), readme.indexOf(to, readme.indexOf(from)));
  const named = (table: string) =>
    table
      .split('\n')
      .filter((line) => line.startsWith('| `'))
      .flatMap((line) => all(line.split('|')[1]!, /`([^`]+)`/g))
      .sort();
  assert.deepEqual(named(section('| at run time |', '| for building')), Object.keys(dependencies!).sort());
  assert.deepEqual(named(section('| for building', '\n## ')), Object.keys(devDependencies!).sort());
});

test('metrics that the alert rules and the README name are there', async () => {
  const exported = await (await fetch(`http://127.0.0.1:${server.metricsPort}/metrics`)).text();
  const names = all(exported, /^# TYPE (\w+) /gm);
  const rules = await text('infra/prometheus/veza.rules.yml');
  const inRules = all(rules, /\b([a-z0-9_]+)\{job="veza"/g).map((name) => name.replace(/_(?:bucket|count|sum)$/, ''));
  assert.ok(inRules.length > 10);
  const inReadme = all(readme, /`([a-z0-9]+(?:_[a-z0-9]+)*_(?:total|seconds|percent|active|bits|backlog))`/g);
  // What is lost for good is told to somebody.
  for (const name of names.filter((one) => /_lost_(?:\w+_)?total$/.test(one))) assert.ok(inRules.includes(name), name);
  assert.ok(inReadme.length > 15);
  for (const name of [...inRules, ...inReadme]) assert.ok(name === 'up' || names.includes(name), name);
  const inAdvice = all(rules, /\b((?:cpu|memory|nodejs|segment)_\w+)\b/g).map((name) => name.replace(/_bucket$/, ''));
  for (const name of inAdvice) assert.ok(names.includes(name), name);
});
