import { CLIENT_FRAMES } from './client-frames.js';
import type { FrameSchema } from './schema.js';
import { SERVER_FRAMES } from './server-frames.js';

interface Schema {
  readonly type?: string;
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly Schema[];
  readonly items?: Schema;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: boolean | Schema;
  readonly description?: string;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly maxItems?: number;
}

/**
 * The members of every frame as Markdown, for docs/chat.md (`veza chat tables`). `modFrames`: the
 * schemas of `mod`, by action.
 */
export function frameTables(modFrames: Readonly<Record<string, FrameSchema>>): string {
  return [
    '### What clients send',
    ...tablesOf(CLIENT_FRAMES),
    '### `mod`, by `action`',
    ...tablesOf(modFrames),
    '### What the server sends',
    ...tablesOf(SERVER_FRAMES),
  ].join('\n\n');
}

const tablesOf = (frames: Readonly<Record<string, FrameSchema>>) => Object.entries(frames).map(([name, schema]) => tableOf(name, schema));

function tableOf(name: string, schema: FrameSchema): string {
  const rows = rowsOf(schema as Schema, '').filter(([member]) => member !== '`t`');
  const table = rows.map(([member, type, meaning]) => `| ${member} | ${type} | ${meaning} |`).join('\n');
  return `**\`${name}\`** ${schema.description}\n\n| member | | |\n|---|---|---|\n${table}`;
}

function rowsOf({ properties = {}, required = [] }: Schema, prefix: string): [string, string, string][] {
  return Object.entries(properties).flatMap(([name, schema]) => {
    const member = `${prefix}${name}`;
    const inner = schema.anyOf?.find(({ properties: its }) => its) ?? schema;
    const { description = inner.description ?? schema.anyOf?.[0]?.description ?? '' } = schema;
    const own: [string, string, string] = [`\`${member}\`${required.includes(name) ? '' : '?'}`, typeOf(schema), description];
    return [own, ...rowsOf(inner, `${member}.`)];
  });
}

function typeOf(schema: Schema): string {
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(' or ');
  if (schema.enum) return schema.enum.map((value) => `\`${value}\``).join(', ');
  switch (schema.type) {
    case 'integer':
      return `whole number${spanOf(schema.minimum, schema.maximum === Number.MAX_SAFE_INTEGER ? undefined : schema.maximum)}`;
    case 'string':
      return `text${schema.maxLength === undefined ? '' : `, ${schema.minLength ?? 0} to ${schema.maxLength} characters`}`;
    case 'array':
      return `list${schema.items?.type === 'string' ? ' of texts' : ''}${schema.maxItems === undefined ? '' : `, at most ${schema.maxItems}`}`;
    case 'boolean':
      return 'true or false';
    case 'null':
      return 'null';
    default:
      return schema.type ?? '';
  }
}

const spanOf = (least = 0, most?: number) => (most === undefined ? (least > 0 ? ` from ${least}` : '') : `, ${least} to ${most}`);
