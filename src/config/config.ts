import { contradictions } from './contradictions.js';
import { misspelt } from './misspelt.js';
import type { Variable } from './variables/variable.js';
import { type ConfigValues, VARIABLES } from './variables.js';
import { PACKAGE_VERSION } from './version.js';

/** The configuration: typed, checked, frozen. Names have their unit. */
export type Config = Readonly<Omit<ConfigValues, 'publicUrl' | 'version'>> & {
  readonly version: string;
  readonly publicUrl: string;
  /** Log lines about variables whose names look like a misspelt name of Veza's. */
  readonly warnings: readonly string[];
};

/** The message has one line per wrong variable: its name, its value and the allowed values. */
export class ConfigError extends Error {
  constructor(problems: readonly string[]) {
    super(problems.join('\n'));
    this.name = 'ConfigError';
  }
}

/**
 * Reads and checks the environment. Throws `ConfigError`. An empty variable counts as unset.
 * `fixed` takes precedence over the environment.
 */
export function loadConfig(
  env: Readonly<Record<string, string | undefined>> = process.env,
  fixed: Readonly<Record<string, string>> = {},
): Config {
  const problems: string[] = [];
  const values: Record<string, unknown> = {};
  for (const [key, variable] of Object.entries(VARIABLES) as [string, Variable<unknown>][]) {
    const given = fixed[variable.name] ?? (env[variable.name]?.trim() || variable.fallback);
    if (given === undefined) continue;
    const parsed = variable.schema.safeParse(given);
    if (parsed.success) values[key] = Array.isArray(parsed.data) ? Object.freeze(parsed.data) : parsed.data;
    else problems.push(`${variable.name} is ${shown(variable, given)}; allowed: ${variable.allowed}`);
  }
  if (problems.length === 0) problems.push(...contradictions(values as ConfigValues));
  if (problems.length > 0) throw new ConfigError(problems);
  const { publicUrl = `http://localhost:${(values as ConfigValues).port}`, version = PACKAGE_VERSION, ...rest } = values as ConfigValues;
  return Object.freeze({ ...rest, publicUrl, version, warnings: Object.freeze(misspelt(env)) });
}

function shown(variable: Variable<unknown>, given: string): string {
  if (variable.secret) return 'wrong (not shown, it is a secret)';
  return JSON.stringify(given.length > 100 ? `${given.slice(0, 100)}…` : given);
}
