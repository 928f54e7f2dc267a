import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

export interface SourceFile {
  /** From the root of the repository, with `/`. */
  readonly path: string;
  readonly text: string;
}

export interface Import {
  readonly from: string;
  /** A path from the root of the repository, without its ending, or the name of a package. */
  readonly to: string;
  readonly isTypeOnly: boolean;
}

/** Every TypeScript file below the folders, sorted by path. */
export function sourceFiles(folders: readonly string[]): SourceFile[] {
  return folders
    .flatMap((folder) => readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((file) => `${folder}/${file}`))
    .filter((file) => file.endsWith('.ts'))
    .sort()
    .map((file) => ({ path: file, text: readFileSync(file, 'utf8') }));
}

const STATEMENT = /^(?:import|export)(?<type> type)?[^'"`;]*?from\s*'(?<from>[^']+)'|^import '(?<bare>[^']+)'/gm;
const DYNAMIC = /\bimport\(\s*'([^']+)'\s*\)/g;

/** What a file imports, exports again or loads later. Style sheets are left out. */
export function importsOf({ path: from, text }: SourceFile): Import[] {
  const found = [
    ...[...text.matchAll(STATEMENT)].map(({ groups }) => ({
      specifier: groups!.from ?? groups!.bare!,
      isTypeOnly: groups!.type !== undefined,
    })),
    ...[...text.matchAll(DYNAMIC)].map(([, specifier]) => ({ specifier: specifier!, isTypeOnly: false })),
  ];
  return found
    .filter(({ specifier }) => !specifier.endsWith('.css'))
    .map(({ specifier, isTypeOnly }) => ({ from, to: resolved(from, specifier), isTypeOnly }));
}

function resolved(from: string, specifier: string): string {
  if (!specifier.startsWith('.')) return specifier;
  return path.posix.join(path.posix.dirname(from), specifier).replace(/\.(?:js|ts)$/, '');
}
