import { VARIABLE_GROUPS, type Variable } from './variables/variable.js';
import { VARIABLES } from './variables.js';

/** The text of `docs/configuration.md`. */
export function configurationReference(): string {
  const lines = [
    '# Configuration',
    '',
    'Veza reads its configuration from environment variables. A value that is not allowed stops the start with one line that',
    'names the variable, its value and the allowed values. An empty variable counts as unset.',
    '',
    'This page is made from `src/config/variables/`: `npm run -s veza -- config reference > docs/configuration.md`.',
    '',
    'Variables marked † are checked, but have no effect in this version.',
  ];
  for (const [group, title] of Object.entries(VARIABLE_GROUPS)) {
    lines.push('', `## ${title}`, '', '| variable | default | unit | allowed | |', '|---|---|---|---|---|');
    for (const variable of Object.values(VARIABLES) as Variable<unknown>[]) {
      if (variable.group !== group) continue;
      const fallback = variable.fallback === undefined ? 'unset' : `\`${variable.fallback}\``;
      const { name, planned, unit, allowed, text } = variable;
      lines.push(`| \`${name}\`${planned ? ' †' : ''} | ${fallback} | ${unit} | ${allowed.replaceAll('*', '\\*')} | ${text} |`);
    }
  }
  return `${lines.join('\n')}\n`;
}
