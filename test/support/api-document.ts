import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import formats from 'ajv-formats';

/** The API's own document, as far as tests go by it. Nothing here knows how it was made. */
export interface Schema {
  $ref?: string;
  type?: string | string[];
  enum?: unknown[];
  const?: unknown;
  format?: string;
  pattern?: string;
  minLength?: number;
  maxLength?: number;
  minimum?: number;
  maximum?: number;
  minItems?: number;
  maxItems?: number;
  items?: Schema;
  anyOf?: Schema[];
  allOf?: Schema[];
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: boolean | Schema;
  contentSchema?: Schema;
  default?: unknown;
  'x-max-bytes'?: number;
}
interface Media {
  schema: Schema;
  example?: unknown;
}
interface Described {
  operationId: string;
  tags: string[];
  summary: string;
  description: string;
  parameters: { name: string; in: 'path' | 'query'; required: boolean; schema: Schema; example?: unknown }[];
  requestBody?: { required: boolean; content: { 'application/json': Media } };
  responses: Record<string, { description: string; headers?: Record<string, { required?: boolean }>; content?: Record<string, Media> }>;
}
export interface ApiDocument {
  openapi?: string;
  paths: Record<string, Record<string, Described>>;
  components: { schemas: Record<string, Schema> };
}
export type Documented = Described & { readonly method: string; readonly path: string };

/** With references put in place; there are no circles. */
export function resolved<T>(document: ApiDocument, given: T): T {
  if (typeof given !== 'object' || given === null) return given;
  if (Array.isArray(given)) return given.map((item) => resolved(document, item)) as T;
  const { $ref, ...rest } = given as { $ref?: string };
  if (typeof $ref === 'string') {
    let target: unknown = document;
    for (const part of $ref.slice(2).split('/')) target = (target as Record<string, unknown> | undefined)?.[part];
    if (target === undefined) throw new Error(`${$ref} leads nowhere`);
    return resolved(document, { ...(target as object), ...rest }) as T;
  }
  return Object.fromEntries(Object.entries(given).map(([name, value]) => [name, resolved(document, value)])) as T;
}

export function documentedOperations(document: ApiDocument): Documented[] {
  return Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, one]) => ({ ...resolved(document, one), method: method.toUpperCase(), path })),
  );
}

const ajv = new Ajv2020({ strict: true, allowUnionTypes: true, allErrors: false, strictRequired: false });
(formats as unknown as (to: Ajv2020) => void)(ajv);
ajv.addFormat('password', true);
ajv.addVocabulary(['x-max-bytes', 'example']);
const compiled = new WeakMap<object, ValidateFunction>();

/** What a strict validator has against it, by a schema whose references are put in place; undefined: nothing. */
export function complaint(schema: Schema, value: unknown): string | undefined {
  let validate = compiled.get(schema);
  if (!validate) {
    validate = ajv.compile(schema);
    compiled.set(schema, validate);
  }
  if (validate(value)) return undefined;
  const { instancePath, message } = validate.errors![0]!;
  return `${instancePath || 'it'} ${message}`;
}
