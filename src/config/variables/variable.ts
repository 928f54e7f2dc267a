import type { Kind } from '../kinds.js';

/** A variable of the environment: its kind of value, and what `docs/configuration.md` says about it. */
export interface Variable<T> extends Kind<T> {
  readonly name: string;
  readonly group: VariableGroup;
  readonly unit: string;
  /** As an operator would write it; undefined when "unset" has a meaning of its own, which `text` explains. */
  readonly fallback: string | undefined;
  readonly text: string;
  /** The value is never shown, not even when it is wrong. */
  readonly secret: boolean;
  /** The value is checked, but has no effect in this version. */
  readonly planned: boolean;
}

/** The headings of `docs/configuration.md`, in their order. */
export const VARIABLE_GROUPS = {
  core: 'Core',
  network: 'Network',
  database: 'Database',
  redis: 'Redis',
  objects: 'Object storage',
  media: 'Media',
  chat: 'Chat',
  access: 'Access',
  ops: 'Operations',
} as const;
export type VariableGroup = keyof typeof VARIABLE_GROUPS;

interface VariableNotes {
  unit?: string;
  secret?: boolean;
  planned?: boolean;
}

/** A variable with a default. */
export function set<T>(
  name: string,
  group: VariableGroup,
  kind: Kind<T>,
  fallback: string,
  text: string,
  notes: VariableNotes = {},
): Variable<T> {
  return { ...kind, name, group, fallback, text, unit: notes.unit ?? '', secret: notes.secret ?? false, planned: notes.planned ?? false };
}

/** A variable without a default: it is undefined in `Config` when the environment does not have it. */
export function unset<T>(
  name: string,
  group: VariableGroup,
  kind: Kind<T>,
  text: string,
  notes: VariableNotes = {},
): Variable<T | undefined> {
  return { ...set(name, group, kind, '', text, notes), fallback: undefined };
}
