import type { JsonObject } from './openapi-document.js';

/**
 * Example values by member name, for requests and answers. A value that does not fit a schema is
 * skipped.
 */
const BY_NAME: Readonly<Record<string, readonly unknown[]>> = {
  id: ['0192f3a1-evening-show'],
  broadcastId: ['0192f3a1-evening-show'],
  asset: ['0192f3a1-evening-show'],
  countriesAllowed: [['DE', 'AT']],
  countriesDenied: [null],
  listeners: [17],
  members: [17],
  count: [17],
  durationMs: [3_600_000],
  slug: ['radio'],
  channel: ['radio'],
  title: ['Evening show'],
  artist: ['The Examples'],
  email: ['ann@example.org'],
  name: ['Ann', 'token'],
  userName: ['Ann'],
  actorName: ['Ann'],
  answeredBy: ['Ann'],
  by: ['Ann'],
  password: ['three words of mine'],
  newPassword: ['four other words entirely'],
  reason: ['Advertises.'],
  banReason: ['Advertises.'],
  text: ['Good evening, everybody!'],
  why: ['spam'],
  note: ['It answered 410: gone.'],
  answer: ['Welcome back.'],
  message: ['If there is an account with this address, a mail is on its way to it.'],
  key: ['0192f3a1-message-17'],
  mid: ['Zm9vYmFyYmF6cXV4MTIzNA'],
  reply: ['Zm9vYmFyYmF6cXV4MTIzNA'],
  code: ['123456', 'not_found'],
  token: ['4kq9-token'],
  url: ['https://example.org/hooks/veza'],
  address: ['192.0.2.17'],
  country: ['DE'],
  client: ['Mozilla/5.0 (X11; Linux x86_64)'],
  cursor: ['WyJyYWRpbyJd'],
  next: [null],
  status: [404],
  type: ['about:blank', 'public-key', 'msg'],
  action: ['updateChannel'],
  event: ['channel.on_air'],
  events: [['channel.on_air']],
  actor: ['account:4f6c1f0e-8f0a-4f57-9d1b-3c2a6d5e7b80'],
  target: ['channel:radio'],
  state: ['live'],
  streamKey: ['vz_0123456789abcdefghjkmnpqrs'],
  hls: ['https://radio.example/live/radio/master.m3u8'],
  dash: ['https://radio.example/live/radio/manifest.mpd'],
  listen: ['https://radio.example/listen/radio.mp3'],
  page: ['https://radio.example/c/radio'],
  rtmp: ['rtmp://radio.example:1935/live'],
  rtmps: ['rtmps://radio.example:1936/live'],
  icecast: ['http://radio.example:8000/radio'],
  post: ['http://radio.example:8000/ingest/radio'],
  path: ['/live/radio/'],
  userId: ['4f6c1f0e-8f0a-4f57-9d1b-3c2a6d5e7b80'],
  secret: ['JBSWY3DPEHPK3PXP'],
  uri: ['otpauth://totp/Veza:ann%40example.org?secret=JBSWY3DPEHPK3PXP&issuer=Veza'],
  hint: ['vza_0123'],
  expiresIn: [600],
  allowedHosts: [['example.org']],
  blocked: [['buy followers']],
  allowed: [['scunthorpe']],
  details: [{}],
};

const BY_FORMAT: Readonly<Record<string, unknown>> = {
  uuid: '4f6c1f0e-8f0a-4f57-9d1b-3c2a6d5e7b80',
  'date-time': '2026-05-04T18:00:00.000Z',
  uri: 'https://radio.example/',
  ipv4: '192.0.2.17',
  ipv6: '2001:db8::17',
  email: 'ann@example.org',
};

/**
 * Makes a realistic example of a schema. `required` leaves out optional members; if all are
 * optional, one is kept.
 */
export function exampleOf(
  schema: JsonObject,
  components: { resolved(schema: JsonObject): JsonObject },
  members: 'all' | 'required' = 'all',
  name = '',
): unknown {
  const given = components.resolved(schema);
  const alternatives = (given.anyOf ?? given.oneOf) as JsonObject[] | undefined;
  for (const example of BY_NAME[name] ?? []) if (fits(example, given, alternatives)) return example;
  if (given.default !== undefined) return given.default;
  if (given.const !== undefined) return given.const;
  if (given.enum) return (given.enum as unknown[])[0];
  if (alternatives) return exampleOf(alternatives[0]!, components, members, name);
  const type = Array.isArray(given.type) ? given.type[0] : given.type;
  switch (type) {
    case 'object': {
      const properties = (given.properties ?? {}) as Record<string, JsonObject>;
      const required = (given.required ?? []) as string[];
      const shown = members === 'all' ? Object.keys(properties) : required.length > 0 ? required : Object.keys(properties).slice(0, 1);
      return Object.fromEntries(shown.map((member) => [member, exampleOf(properties[member]!, components, members, member)]));
    }
    case 'array': {
      const least = Math.max(1, Number(given.minItems ?? 0));
      return Array.from({ length: given.maxItems === 0 ? 0 : least }, () =>
        exampleOf(given.items as JsonObject, components, members, name),
      );
    }
    case 'integer':
    case 'number':
      return Math.min(Math.max(1, Number(given.minimum ?? 0)), Number(given.maximum ?? 1));
    case 'boolean':
      return true;
    case 'null':
      return null;
    case 'string':
      return BY_FORMAT[String(given.format)] ?? 'x'.repeat(Math.max(1, Number(given.minLength ?? 1)));
    default:
      return {};
  }
}

function fits(example: unknown, schema: JsonObject, alternatives: readonly JsonObject[] | undefined): boolean {
  if (alternatives) return alternatives.some((one) => fits(example, one, undefined));
  if (schema.const !== undefined) return schema.const === example;
  if (schema.enum) return (schema.enum as unknown[]).includes(example);
  const types = ([] as unknown[]).concat(schema.type ?? []);
  const isOfType =
    (example === null && types.includes('null')) ||
    (typeof example === 'string' && types.includes('string')) ||
    (typeof example === 'number' && (types.includes('integer') || types.includes('number'))) ||
    (Array.isArray(example) && types.includes('array')) ||
    (typeof example === 'object' &&
      example !== null &&
      !Array.isArray(example) &&
      types.includes('object') &&
      schema.properties === undefined);
  if (!isOfType) return false;
  if (typeof example !== 'string') return true;
  const { length } = example;
  if (length < Number(schema.minLength ?? 0) || length > Number(schema.maxLength ?? Number.POSITIVE_INFINITY)) return false;
  if (schema.format !== undefined && schema.format !== 'uri' && schema.format !== 'email' && schema.format !== 'password') return false;
  return schema.pattern === undefined || new RegExp(String(schema.pattern), 'u').test(example);
}
