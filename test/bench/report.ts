import { mkdir, writeFile } from 'node:fs/promises';

/** One measured figure, as `bench-results/{name}.json` holds it. */
export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** What it must not exceed (or, for `least`, not fall below); null where it is only told. */
  readonly bound: number | null;
  readonly holds: boolean;
  /** What the same measurement gave on the program that it is compared with. */
  readonly peer?: { readonly name: string; readonly value: number };
}

const round = (value: number) => Number(value.toPrecision(4));

export function figure(
  name: string,
  value: number,
  unit: string,
  bound: { most: number } | { least: number } | undefined,
  peer?: Figure['peer'],
): Figure {
  const holds = bound === undefined || ('most' in bound ? value <= bound.most : value >= bound.least);
  const limit = bound === undefined ? null : 'most' in bound ? bound.most : bound.least;
  return { name, value: round(value), unit, bound: limit, holds, ...(peer && { peer: { name: peer.name, value: round(peer.value) } }) };
}

export function printTable(figures: readonly Figure[]): void {
  const rows = figures.map(({ name, value, unit, bound, holds, peer }) => [
    name,
    `${value} ${unit}`,
    bound === null ? '' : `${bound} ${unit}`,
    bound === null ? '' : holds ? 'yes' : 'NO',
    peer ? `${peer.name}: ${peer.value}` : '',
  ]);
  const head = ['what', 'measured', 'bound', 'holds', 'beside'];
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]) => `| ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`;
  console.log([line(head), `|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`, ...rows.map(line)].join('\n'));
}

/** `--only` writes to a file of its own, so that a part measured again does not pass for the whole. */
export async function writeResults(name: string, figures: readonly Figure[]): Promise<string> {
  await mkdir('bench-results', { recursive: true });
  const path = `bench-results/${name}.json`;
  await writeFile(path, `${JSON.stringify(figures, null, 2)}\n`);
  return path;
}

export const say = (text: string) => console.error(text);

export const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
