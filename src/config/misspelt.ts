import { VARIABLES } from './variables.js';

/**
 * A warning for each variable that is one typing error away from one of ours. It is only a warning because other programs use
 * the environment too. Short names are left out, because they are near to anything.
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

/** The names are equal but for case and separators, or one letter is added, left out or changed, or two neighbours are swapped. */
function sameLetters(given: string, ours: string): boolean {
  if (given.toUpperCase().replace(/[-_.]/g, '') === ours.replaceAll('_', '')) return true;
  if (Math.abs(given.length - ours.length) > 1) return false;
  let start = 0;
  while (start < given.length && given[start] === ours[start]) start++;
  const [a, b] = [given.slice(start), ours.slice(start)];
  if (a.slice(1) === b.slice(1) || a.slice(1) === b || a === b.slice(1)) return true;
  return a.length > 1 && a[0] === b[1] && a[1] === b[0] && a.slice(2) === b.slice(2);
}
