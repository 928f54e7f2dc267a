import { VARIABLES } from './variables.js';

/**
 * A warning for each variable whose name is one typing error away from one of Veza's. It is only a
 * warning because other programs use the environment too. Names of fewer than 6 letters are not
 * compared, because too many other names are similar.
 */
export function misspelt(env: Readonly<Record<string, string | undefined>>): string[] {
  const ours = Object.values(VARIABLES).map((variable) => variable.name);
  const warnings: string[] = [];
  for (const name of Object.keys(env)) {
    if (ours.includes(name as (typeof ours)[number])) continue;
    const meant = ours.find((our) => our.length >= 6 && sameLetters(name, our));
    if (meant) warnings.push(`${name} is not a variable of Veza; did you mean ${meant}?`);
  }
  return warnings;
}

/**
 * Whether the names are equal apart from case and separators, or differ by one letter that was
 * added, left out or changed, or by two neighbouring letters that were swapped.
 */
function sameLetters(given: string, ours: string): boolean {
  if (given.toUpperCase().replace(/[-_.]/g, '') === ours.replaceAll('_', '')) return true;
  if (Math.abs(given.length - ours.length) > 1) return false;
  let start = 0;
  while (start < given.length && given[start] === ours[start]) start++;
  const [a, b] = [given.slice(start), ours.slice(start)];
  if (a.slice(1) === b.slice(1) || a.slice(1) === b || a === b.slice(1)) return true;
  return a.length > 1 && a[0] === b[1] && a[1] === b[0] && a.slice(2) === b.slice(2);
}
