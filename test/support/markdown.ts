/** What a Markdown page names, for the tests that hold documents against the code. */
export interface Page {
  /** From the root of the repository. */
  readonly path: string;
  readonly text: string;
}

const FENCE = /^( *)(```+|~~~+)[\s\S]*?^\1\2 *$/gm;
const withoutFences = (text: string) => text.replace(FENCE, '');

export const uniqueMatches = (text: string, pattern: RegExp): string[] => [
  ...new Set([...text.matchAll(pattern)].map((match) => match[1]!)),
];

/** The anchors of the headings, as GitHub makes them. */
export function anchorsOf(text: string): string[] {
  const seen = new Map<string, number>();
  return [...withoutFences(text).matchAll(/^#{1,6} +(.+?) *#*$/gm)].map(([, title]) => {
    const plain = title!.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase();
    const slug = plain.replace(/[^\p{L}\p{N}_ -]/gu, '').replaceAll(' ', '-');
    const times = seen.get(slug) ?? 0;
    seen.set(slug, times + 1);
    return times === 0 ? slug : `${slug}-${times}`;
  });
}

/** Targets of links and pictures that lead to this repository, as written. */
export const linksOf = (text: string): string[] =>
  uniqueMatches(withoutFences(text).replace(/`[^`\n]*`/g, '``'), /\]\(([^)\s]+)\)/g).filter((link) => !/^[a-z]+:/.test(link));

const FOLDERS = 'src|test|docs|infra|workers|player-demo|dist';
const ROOT_FILES =
  /^(?:package(?:-lock)?\.json|tsconfig\.json|biome\.json|Dockerfile|LICENSE|\.nvmrc|\.ci\/run|(?:README|CONTRIBUTING|SECURITY|CHANGELOG)\.md)$/;

/**
 * Paths of this repository that stand in backticks, and those that a command in a fenced block runs or writes. `rooms`: folders of `src` whose
 * files may be named without it, in a sentence about them.
 */
export function pathsOf(text: string, rooms: readonly string[]): string[] {
  const inline = uniqueMatches(withoutFences(text), /`([^`\n]+)`/g);
  const isPath = new RegExp(`^(?:${[FOLDERS, ...rooms].join('|')})(?:/[\\w.-]+)+/?$`);
  const inside = new RegExp(`(?:^|[\\s"'=(])((?:${FOLDERS})/[\\w./-]*[\\w])(?=$|[\\s"'),])`, 'gm');
  const fenced = [...text.matchAll(FENCE)].flatMap(([block]) => uniqueMatches(block, inside));
  const commands = inline.filter((code) => code.includes(' ')).flatMap((code) => uniqueMatches(code, inside));
  return [...new Set([...inline.filter((code) => isPath.test(code) || ROOT_FILES.test(code)), ...commands, ...fenced])];
}
