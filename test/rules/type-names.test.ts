/**
 * The name of a type is declared once in the code base, file-local types included: a reader who
 * searches for a name finds one thing.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type SourceFile, sourceFiles } from '../support/source-files.js';

const MODIFIERS = String.raw`^[ \t]*(?:export )?(?:default )?(?:declare )?`;
/** A declaration is known by what follows its name: `type Entry,` in a list of imports is none. */
const DECLARATION = new RegExp(
  [
    String.raw`${MODIFIERS}(?:(?:abstract )?class|interface|(?:const )?enum) (?<named>\w+)(?=\s*[<{]|\s+(?:extends|implements)\b)`,
    String.raw`${MODIFIERS}type (?<alias>\w+)(?=\s*[<=])`,
  ].join('|'),
  'gm',
);

const typeNamesIn = (text: string) => [...text.matchAll(DECLARATION)].map(({ groups }) => groups!.named ?? groups!.alias!);

/** Returns a line for each name that is declared more than once, with its files, sorted by name. */
function declaredAgain(files: readonly SourceFile[]): string[] {
  const places = new Map<string, string[]>();
  for (const { path, text } of files) for (const name of typeNamesIn(text)) places.set(name, [...(places.get(name) ?? []), path]);
  return [...places]
    .filter(([, paths]) => paths.length > 1)
    .map(([name, paths]) => `${name}: ${paths.join(', ')}`)
    .sort();
}

const files = sourceFiles(['src', 'workers', 'player-demo/src']);

test('the name of every type is declared once', () => {
  const found = files.flatMap(({ text }) => typeNamesIn(text)).length;
  assert.ok(found > 1000, `${found} types were found`);
  assert.deepEqual(declaredAgain(files), []);
});

test('a name that is declared again is reported, exported or not, for every kind of type', () => {
  const again = [
    "export interface Edge extends Map<string, string> {\n  readonly name: 'edge';\n}",
    "type LiveView = 'here' | 'away';",
    'export type MediaSettings<T> = Readonly<Record<string, T>>;',
    'class Broadcast implements Disposable {}',
    'export default abstract class RemoteMedia<T> {}',
    'export const enum LiveWindow {\n  First,\n}',
    'function made() {\n  interface Recording {\n    readonly id: string;\n  }\n}',
  ].join('\n\n');
  const names = ['Broadcast', 'Edge', 'LiveView', 'LiveWindow', 'MediaSettings', 'Recording', 'RemoteMedia'];
  const reported = declaredAgain([...files, { path: 'player-demo/src/breach.ts', text: again }]);
  assert.deepEqual(
    reported.map((line) => line.slice(0, line.indexOf(':'))),
    names,
  );
  for (const line of reported) assert.match(line, /^\w+: src\/live\/[\w/-]+\.ts, player-demo\/src\/breach\.ts$/);
  const twice = { path: 'src/live/breach.ts', text: "type Twice = 'a';\n{\n  type Twice = 'b';\n}" };
  assert.deepEqual(declaredAgain([...files, twice]), ['Twice: src/live/breach.ts, src/live/breach.ts']);
});

test('to import, export again, name or describe a type is not to declare it', () => {
  const uses = [
    "import {\n  type Broadcast,\n  type Edge as LiveEdge,\n} from './edge.js';",
    "import type { LiveView } from './edge.js';",
    "export { type Edge, type LiveView } from './edge.js';\nexport type { Recording };",
    '/**\n * interface Edge {\n */\n// class Broadcast {}',
    "const type = LiveView;\nconst text = 'class Broadcast {';",
  ].join('\n');
  assert.deepEqual(typeNamesIn(uses), []);
});
