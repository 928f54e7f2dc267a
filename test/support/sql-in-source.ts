import type { SourceFile } from './source-files.js';

/** A table that a statement in a source file names. */
export interface NamedTable {
  readonly file: string;
  readonly table: string;
}

const STATEMENT = /\b(?:select|insert|update|delete|from|join|where)\b/i;

/**
 * Which of the tables the SQL of a file names. SQL is what stands in strings and templates behind `from`, `join`,
 * `into` or `update`, and in constants `table: '…'`, from which statements are put together.
 */
export function tablesNamedIn({ path: file, text }: SourceFile, tables: readonly string[]): NamedTable[] {
  const literals = literalsOf(text);
  const sql = literals.filter((literal) => STATEMENT.test(literal)).join(';\n');
  return tables
    .filter(
      (table) =>
        new RegExp(`\\b(?:from|join|into|update|lock table|truncate)\\s+(?:only\\s+)?${table}\\b`, 'i').test(sql) ||
        new RegExp(`\\btable: '${table}'`).test(text),
    )
    .map((table) => ({ file, table }));
}

const BEFORE_REGEX = /(?:[(,=:[!&|?{};>]|\breturn|^)\s*$/;

/** The text of every string and template of a TypeScript file, without what is interpolated. */
function literalsOf(text: string): string[] {
  const found: string[] = [];
  let at = 0;
  const code = (until: string | undefined): void => {
    let depth = 0;
    while (at < text.length) {
      const char = text[at]!;
      if (text.startsWith('//', at)) at = endOf('\n');
      else if (text.startsWith('/*', at)) at = endOf('*/');
      else if (char === "'" || char === '"') string(char);
      else if (char === '`') template();
      else if (char === '/' && BEFORE_REGEX.test(text.slice(Math.max(0, at - 40), at))) regex();
      else {
        if (char === '{') depth++;
        if (char === '}' && depth-- === 0 && until === '}') return;
        at++;
      }
    }
  };
  const endOf = (mark: string): number => {
    const end = text.indexOf(mark, at + 1);
    return end < 0 ? text.length : end + mark.length;
  };
  const string = (quote: string): void => {
    const from = ++at;
    while (at < text.length && text[at] !== quote) at += text[at] === '\\' ? 2 : 1;
    found.push(text.slice(from, at++));
  };
  const regex = (): void => {
    let isInClass = false;
    for (at++; at < text.length && (isInClass || text[at] !== '/'); at++) {
      if (text[at] === '\\') at++;
      else if (text[at] === '[') isInClass = true;
      else if (text[at] === ']') isInClass = false;
    }
    at++;
  };
  const template = (): void => {
    let whole = '';
    for (at++; at < text.length && text[at] !== '`'; ) {
      if (text.startsWith('${', at)) {
        at += 2;
        code('}');
        at++;
        whole += ' ? ';
      } else {
        const length = text[at] === '\\' ? 2 : 1;
        whole += text.slice(at, at + length);
        at += length;
      }
    }
    at++;
    found.push(whole);
  };
  code(undefined);
  return found;
}
