import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Import, importsOf, sourceFiles } from '../support/source-files.js';

/**
 * Which room may import which others: nothing else is allowed. A room is a folder; the longest name that fits a file is its
 * room. `docs/architecture.md` says why.
 */
const BELOW_LIVE = ['src/runtime', 'src/media', 'src/backing'];
const ROOMS_OF_CHAT = ['protocol', 'rooms', 'moderation', 'automod', 'gateway', 'processes'].map((room) => `src/chat/${room}`);
const BELOW_APP = [...BELOW_LIVE, 'src/ingest', 'src/live', 'src/library', 'src/access', ...ROOMS_OF_CHAT];
const BELOW_MAIN = [...BELOW_APP, 'src/app', 'src/config', 'src/compose'];

const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  'src/runtime': [],
  'src/media': ['src/runtime/errors'],
  'src/backing': ['src/runtime', 'src/media'],
  'src/ingest': BELOW_LIVE,
  'src/live': BELOW_LIVE,
  'src/library': BELOW_LIVE,
  'src/access': BELOW_LIVE,
  'src/chat/protocol': BELOW_LIVE,
  'src/chat/automod': BELOW_LIVE,
  'src/chat/rooms': [...BELOW_LIVE, 'src/chat/protocol'],
  'src/chat/moderation': [...BELOW_LIVE, 'src/chat/protocol', 'src/chat/rooms', 'src/chat/automod'],
  'src/chat/gateway': [...BELOW_LIVE, 'src/chat/protocol', 'src/chat/rooms', 'src/chat/moderation', 'src/chat/automod'],
  'src/chat/processes': [...BELOW_LIVE, 'src/chat/protocol', 'src/chat/rooms', 'src/chat/gateway'],
  'src/chat-client': [],
  'src/config': BELOW_LIVE,
  'src/app': BELOW_APP,
  'src/compose': [...BELOW_APP, 'src/app', 'src/config'],
  'src/validator': ['src/runtime', 'src/media'],
  'src/cli': BELOW_MAIN,
  'src/demo': BELOW_MAIN,
  'src/main': ['src/compose'],
  workers: ['src/compose'],
  // The browser loads nothing of the service but the chat client.
  'player-demo/src/ui': [],
  'player-demo/src/chat': ['player-demo/src/ui', 'src/chat-client'],
  'player-demo/src/player': ['player-demo/src/ui', 'player-demo/src/chat', 'src/chat-client'],
  'player-demo/src/desk': ['player-demo/src/ui', 'player-demo/src/chat', 'src/chat-client'],
  'player-demo/src/account': ['player-demo/src/ui', 'player-demo/src/chat'],
  'player-demo/src/admin': ['player-demo/src/ui'],
  'player-demo/src/api-docs': [],
  'player-demo/src': ['ui', 'chat', 'player', 'desk', 'account', 'admin'].map((room) => `player-demo/src/${room}`),
};

/** Packages that one file, or one folder, stands for: everything else asks it. */
const PACKAGE_OWNERS: Readonly<Record<string, string>> = {
  'fluent-ffmpeg': 'src/backing/ffmpeg',
  '@ffmpeg-installer/ffmpeg': 'src/backing/ffmpeg',
  pg: 'src/backing/database',
  '@electric-sql/pglite': 'src/backing/database',
  '@electric-sql/pglite/nodefs': 'src/backing/database',
  '@electric-sql/pglite-socket': 'src/backing/database',
  ioredis: 'src/backing/redis',
  'mmdb-lib': 'src/backing/geoip',
  pino: 'src/runtime/log',
  'prom-client': 'src/runtime/metrics',
  koa: 'src/app',
  '@koa/router': 'src/app',
  nodemailer: 'src/access/accounts/mail',
  '@node-rs/argon2': 'src/access/accounts/password-worker',
  'hls.js': 'player-demo/src/player',
};
/** Rooms that do no input or output: no package and no module of Node but these. */
const PURE: Readonly<Record<string, readonly string[]>> = {
  'src/media': [],
  'src/chat-client': ['ws'],
  'src/validator': ['node:url', 'node:util'],
};

const isBelow = (file: string, folder: string) => file === folder || file.startsWith(`${folder}/`);
const NAMES = Object.keys(MAY_IMPORT).sort((a, b) => b.length - a.length);
const roomOf = (file: string) => NAMES.find((room) => isBelow(file.replace(/\.ts$/, ''), room));

/** Undefined: the import is allowed. */
function breachOf({ from, to, isTypeOnly }: Import): string | undefined {
  const room = roomOf(from);
  if (room === undefined) return `${from} is in no room`;
  if (!/^(?:src|workers|player-demo)\//.test(to)) {
    const owner = PACKAGE_OWNERS[to];
    if (owner !== undefined && !isBelow(from.replace(/\.ts$/, ''), owner)) return `${from} imports ${to}, which belongs to ${owner}`;
    const pure = PURE[room];
    if (pure && !pure.includes(to)) return `${from} imports ${to}: ${room} does no input or output`;
    return undefined;
  }
  if (roomOf(to) === room) return undefined;
  if (isTypeOnly && room.startsWith('player-demo') && to.startsWith('src/')) return undefined;
  if (MAY_IMPORT[room]!.some((allowed) => isBelow(to, allowed))) return undefined;
  return `${from} imports ${to}: ${room} may not`;
}

const files = sourceFiles(['src', 'workers', 'player-demo/src']);
const imports = files.flatMap(importsOf);

test('every import goes in a direction that is allowed', () => {
  assert.ok(imports.length > 1000, `${imports.length} imports were found`);
  assert.deepEqual(imports.map(breachOf).filter(Boolean), []);
});

test('a breach is found for every room: an import of each other room that is not on its list', () => {
  for (const [room, allowed] of Object.entries(MAY_IMPORT)) {
    const from = room === 'src/main' ? 'src/main.ts' : `${room}/breach.ts`;
    const others = NAMES.filter((other) => other !== room && !allowed.some((name) => isBelow(other, name) || isBelow(name, other)));
    for (const other of others) {
      const breach = { from, to: `${other}/thing`, isTypeOnly: false };
      assert.notEqual(breachOf(breach), undefined, `${from} that imports ${other} is not found`);
    }
    const isPage = room.startsWith('player-demo');
    const types = { from, to: 'src/demo/thing', isTypeOnly: true };
    if (room !== 'src/demo') assert.equal(breachOf(types) === undefined, isPage, `types of the demo in ${room}`);
  }
  assert.match(breachOf({ from: 'src/elsewhere/file.ts', to: 'zod', isTypeOnly: false })!, /no room/);
});

test('a breach is found for every package that has an owner, and for every pure room', () => {
  for (const [name, owner] of Object.entries(PACKAGE_OWNERS)) {
    const stranger = owner.startsWith('src/app') ? 'src/live/breach.ts' : 'src/app/breach.ts';
    assert.match(breachOf({ from: stranger, to: name, isTypeOnly: false })!, /belongs to/);
  }
  for (const room of Object.keys(PURE))
    for (const to of ['node:fs', 'node:fs/promises', 'node:net', 'node:child_process', 'zod'])
      assert.match(breachOf({ from: `${room}/breach.ts`, to, isTypeOnly: false })!, /no input or output/);
});

test('imports are found however they are written', () => {
  const text = [
    "import { a } from './a.js';",
    "import type { B } from '../media/b.js';",
    "import {\n  c,\n  d,\n} from '../chat/c.js';",
    "export * from './e.js';",
    "export { f } from './f.js';",
    "import './style.css';",
    "import './g';",
    "const later = await import('./h.js');",
  ].join('\n');
  const found = importsOf({ path: 'src/live/file.ts', text });
  assert.deepEqual(
    found.map(({ to, isTypeOnly }) => `${to}${isTypeOnly ? ' (type)' : ''}`),
    ['src/live/a', 'src/media/b (type)', 'src/chat/c', 'src/live/e', 'src/live/f', 'src/live/g', 'src/live/h'],
  );
});

test('no file imports itself in a circle', () => {
  const targets = new Map(files.map(({ path }) => [path.replace(/\.ts$/, ''), new Set<string>()]));
  for (const { from, to, isTypeOnly } of imports) if (!isTypeOnly && targets.has(to)) targets.get(from.replace(/\.ts$/, ''))!.add(to);
  const done = new Set<string>();
  const circles: string[] = [];
  const walk = (file: string, way: readonly string[]) => {
    if (way.includes(file)) circles.push([...way.slice(way.indexOf(file)), file].join(' → '));
    if (done.has(file) || way.includes(file)) return;
    for (const next of targets.get(file)!) walk(next, [...way, file]);
    done.add(file);
  };
  for (const file of targets.keys()) walk(file, []);
  assert.deepEqual(circles, []);
});

test('the environment is read by the configuration alone', () => {
  const readers = files.filter(({ text }) => /process\.env\b/.test(text)).map(({ path }) => path);
  assert.deepEqual(
    readers.filter((file) => !file.startsWith('src/config/')),
    [],
  );
});

test('a file has at most 500 lines, and a folder at most 22 files', () => {
  const long = files.filter(({ text }) => text.split('\n').length > 501).map(({ path, text }) => `${path} ${text.split('\n').length}`);
  assert.deepEqual(long, []);
  const counts = new Map<string, number>();
  for (const { path } of files) {
    const folder = path.slice(0, path.lastIndexOf('/'));
    counts.set(folder, (counts.get(folder) ?? 0) + 1);
  }
  assert.deepEqual(
    [...counts].filter(([, count]) => count > 22),
    [],
  );
});
