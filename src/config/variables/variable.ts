import type { ValueKind } from '../kinds.js';

/** An environment variable: its kind of value, and its line in `docs/configuration.md`. */
export interface Variable<T> extends ValueKind<T> {
  readonly name: string;
  readonly group: VariableGroup;
  readonly unit: string;
  /** The default as text. Undefined: "unset" has a meaning of its own, which `text` explains. */
  readonly fallback: string | undefined;
  readonly text: string;
  /** Whether the value is never shown, not even if it is wrong. */
  readonly secret: boolean;
  /** Whether the value is checked, but has no effect in this version. */
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
  kind: ValueKind<T>,
  fallback: string,
  text: string,
  notes: VariableNotes = {},
): Variable<T> {
  return { ...kind, name, group, fallback, text, unit: notes.unit ?? '', secret: notes.secret ?? false, planned: notes.planned ?? false };
}

/** A variable without a default: it is undefined in `Config` if the environment does not set it. */
export function unset<T>(
  name: string,
  group: VariableGroup,
  kind: ValueKind<T>,
  text: string,
  notes: VariableNotes = {},
): Variable<T | undefined> {
  return { ...set(name, group, kind, '', text, notes), fallback: undefined };
}
