/**
 * `npm run release`: everything about a release up to the push, which it leaves to a person (docs/releasing.md). The version is
 * that of `package.json`. `--dry-run` makes every check and writes the SBOM, and says what it would build and tag.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

/** Ignored by git, so that the tree stays clean. */
const OUTPUT_DIR = 'release';

/** Its message is for the person who makes the release, and says what to do next. */
export class ReleaseError extends Error {}

export interface ChangelogSection {
  /** ISO 8601, without a time. */
  readonly date: string;
  /** Markdown without the heading; what the tag says. */
  readonly notes: string;
}

/** Throws ReleaseError unless `changelog` has a section for the version, with a date and something in it. */
export function changelogSection(changelog: string, version: string): ChangelogSection {
  const [, ...sections] = changelog.split(/^## /m);
  const section = sections.find((text) => text.split(/\s/, 1)[0] === version);
  if (section === undefined) throw new ReleaseError(`CHANGELOG.md has no section "## ${version} – DATE"; write one`);
  const [heading = '', ...lines] = section.split('\n');
  const date = /^\S+ – (\d{4}-\d{2}-\d{2})$/.exec(heading.trim())?.[1];
  if (date === undefined) throw new ReleaseError(`CHANGELOG.md has "## ${heading}"; give it a date: "## ${version} – YYYY-MM-DD"`);
  const notes = lines.join('\n').trim();
  if (notes === '') throw new ReleaseError(`the section of ${version} in CHANGELOG.md is empty`);
  return { date, notes };
}

const output = (command: string, args: readonly string[]) =>
  execFileSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 26, stdio: ['ignore', 'pipe', 'pipe'] }).trim();
const succeeds = (command: string, args: readonly string[]) => spawnSync(command, args, { stdio: 'ignore' }).status === 0;

function run(command: string, args: readonly string[]): void {
  console.log(`$ ${command} ${args.join(' ')}`);
  const { status } = spawnSync(command, args, { stdio: 'inherit' });
  if (status !== 0) throw new ReleaseError(`${command} ${args[0]} failed`);
}

/** Checks the work tree, the version and the changelog. Returns the version and its section. */
function checkTree(): { version: string; section: ChangelogSection } {
  const changes = output('git', ['status', '--porcelain']);
  if (changes !== '') throw new ReleaseError(`the work tree has changes; commit or remove them:\n${changes}`);
  const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
  const locked = (JSON.parse(readFileSync('package-lock.json', 'utf8')) as { version: string }).version;
  if (locked !== version) throw new ReleaseError(`package-lock.json says ${locked}, package.json ${version}; run npm install`);
  if (succeeds('git', ['rev-parse', '-q', '--verify', `refs/tags/v${version}`]))
    throw new ReleaseError(`there is a tag v${version}; choose another version: npm version --no-git-tag-version VERSION`);
  return { version, section: changelogSection(readFileSync('CHANGELOG.md', 'utf8'), version) };
}

/** Writes the SBOM of the packages that `npm ci --omit=dev` installs. */
function writeSbom(version: string): void {
  const args = ['sbom', '--sbom-format', 'cyclonedx', '--sbom-type', 'application', '--omit', 'dev', '--package-lock-only'];
  mkdirSync(OUTPUT_DIR, { recursive: true });
  const path = `${OUTPUT_DIR}/veza-${version}.cdx.json`;
  const sbom = JSON.parse(output('npm', args)) as { metadata: { component: { name: string } }; components: unknown[] };
  // npm names it after the folder.
  sbom.metadata.component.name = 'veza';
  writeFileSync(path, `${JSON.stringify(sbom, null, 2)}\n`);
  console.log(`${path}: ${sbom.components.length} components`);
}

function release(isDryRun: boolean): void {
  const { version, section } = checkTree();
  console.log(`Veza ${version}, ${section.date}`);
  run('npm', ['audit', '--omit=dev']);
  writeSbom(version);

  const image = ['build', '-t', `veza:${version}`, '-t', 'veza:latest', '.'];
  const hasDocker = succeeds('docker', ['info']);
  if (!hasDocker) console.log('docker does not answer here: no image was built');
  else if (isDryRun) console.log(`would run: docker ${image.join(' ')}`);
  else run('docker', image);

  // `verbatim`: headings of the notes begin with #, which git takes for comments.
  const tag = ['tag', '-a', `v${version}`, '--cleanup=verbatim', '-m', `Veza ${version}\n\n${section.notes}\n`];
  if (isDryRun) console.log(`would tag v${version} at ${output('git', ['rev-parse', '--short', 'HEAD'])}:\n\n${section.notes}\n`);
  else {
    output('git', tag);
    console.log(`tagged v${version} at ${output('git', ['rev-parse', '--short', 'HEAD'])}`);
  }

  console.log(isDryRun ? 'Nothing was built or tagged.' : 'Nothing was pushed. Now:');
  if (isDryRun) return;
  console.log(`  git push origin HEAD v${version}`);
  if (hasDocker) console.log(`  docker tag veza:${version} REGISTRY/veza:${version} && docker push REGISTRY/veza:${version}`);
  console.log(`  attach ${OUTPUT_DIR}/veza-${version}.cdx.json to the release`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  try {
    const { values } = parseArgs({ options: { 'dry-run': { type: 'boolean', default: false } } });
    release(values['dry-run']);
  } catch (error) {
    if (!(error instanceof ReleaseError)) throw error;
    console.error(`release: ${error.message}`);
    process.exitCode = 1;
  }
}
