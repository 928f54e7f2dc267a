/**
 * The description of frames: the JSON Schema (2020-12) of the whole frame. For frames of clients
 * also the fields, from which the schema, the TypeScript type and the parser are derived.
 */
export interface FrameSchema {
  readonly description: string;
  readonly type: 'object';
  readonly properties: Readonly<Record<string, object>>;
  readonly required: readonly string[];
  readonly additionalProperties: boolean;
}

export const frameSchema = (
  t: string,
  description: string,
  properties: Readonly<Record<string, object>>,
  optional: readonly string[] = [],
  additionalProperties = false,
): FrameSchema => ({
  description,
  type: 'object',
  properties: { t: { const: t }, ...properties },
  required: ['t', ...Object.keys(properties).filter((name) => !optional.includes(name))],
  additionalProperties,
});

/** One field of a frame that a client sends. */
export interface FrameField<T> {
  readonly schema: object;
  /** The field may be missing; `read` then gets undefined. */
  readonly isOptional: boolean;
  /** Returns the value as the frame contains it. Throws a `FieldError` that names the field. */
  read(value: unknown, name: string, limits: FieldLimits): T;
}

interface FieldLimits {
  /** UTF-8 bytes of one message at most. */
  readonly maxTextBytes: number;
}

export class FieldError extends Error {
  constructor(
    message: string,
    readonly code: 'bad_request' | 'too_long' = 'bad_request',
  ) {
    super(message);
  }
}

export const field = <T>(schema: object, read: FrameField<T>['read']): FrameField<T> => ({ schema, isOptional: false, read });

/** The same field, but it may be missing or null; its value is then `fallback`. */
export const optionalField = <T, F>({ schema, read }: FrameField<T>, fallback: F): FrameField<T | F> => ({
  schema,
  isOptional: true,
  read: (value, name, limits) => (value === undefined || value === null ? fallback : read(value, name, limits)),
});

export type Fields = Readonly<Record<string, FrameField<unknown>>>;
export type FieldValues<F extends Fields> = { readonly [name in keyof F]: ReturnType<F[name]['read']> };

/** The schema of a frame with these fields. Other members are ignored. */
export const schemaOf = (t: string, description: string, fields: Fields): FrameSchema =>
  frameSchema(
    t,
    description,
    Object.fromEntries(Object.entries(fields).map(([name, { schema }]) => [name, schema])),
    Object.keys(fields).filter((name) => fields[name]!.isOptional),
    true,
  );

export const wholeNumber = (least: number, most: number, description = ''): FrameField<number> =>
  field({ type: 'integer', minimum: least, maximum: most, description }, (value, name) => {
    if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > most)
      throw new FieldError(`${name}: a whole number from ${least} to ${most}.`);
    return value;
  });

export const flag = (description?: string): FrameField<boolean> =>
  field({ type: 'boolean', ...(description !== undefined && { description }) }, (value, name) => {
    if (typeof value !== 'boolean') throw new FieldError(`${name}: true or false.`);
    return value;
  });
