import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, before, beforeEach, test } from 'node:test';
import { problemSchema } from '../../src/app/api/openapi.js';
import { complaint, type Schema } from '../support/api-document.js';
import { ApiWorld, replacesKeys, type Sent, type Tried } from '../support/api-world.js';

/**
 * Every field of every operation, as the API's own document names them, with what is not meant for it. Whatever comes: no defect (500), nothing of
 * the inside in the answer, no rejection that nobody handles, and an answer that the document has.
 */
type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

let world: ApiWorld;
const unhandled: unknown[] = [];
const onUnhandled = (reason: unknown) => unhandled.push(reason);

before(async () => {
  process.on('unhandledRejection', onUnhandled);
  world = await ApiWorld.start();
});
after(async () => {
  await world.stop();
  process.off('unhandledRejection', onUnhandled);
});

beforeEach(() => {
  problems.length = 0;
});

/** Something of this schema, as small as it may be. */
function example(schema: Schema, name: string): Json {
  if (schema.enum) return schema.enum[0] as Json;
  if (schema.const !== undefined) return schema.const as Json;
  if (schema.anyOf) return example(schema.anyOf[0]!, name);
  switch (schema.type) {
    case 'object':
      return Object.fromEntries((schema.required ?? []).map((member) => [member, example(schema.properties![member]!, member)]));
    case 'array':
      return Array.from({ length: schema.minItems ?? 0 }, () => example(schema.items!, name));
    case 'integer':
    case 'number':
      return Math.max(1, schema.minimum ?? 1);
    case 'boolean':
      return true;
    default: {
      const tried = [
        'fuzz',
        '123456',
        'AAAA',
        '2030-01-01T00:00:00Z',
        '00000000-0000-4000-8000-000000000000',
        'from-the-target-123456',
        '192.0.2.1',
        'x'.repeat(schema.minLength ?? 1),
      ];
      if (name === 'email') return 'somebody@example.org';
      if (/password/i.test(name)) return 'a sentence that nobody tries';
      if (name === 'url') return 'http://127.0.0.1:65535/';
      const length = schema.minLength ?? 0;
      return tried.find((text) => text.length >= length && (!schema.pattern || new RegExp(schema.pattern, 'u').test(text))) ?? 'x';
    }
  }
}

/** Every place in a body that the document names, the body itself first. */
function placesIn(schema: Schema, at: string[] = []): { at: string[]; schema: Schema }[] {
  const within = Object.entries(schema.properties ?? {}).flatMap(([name, member]) => placesIn(member, [...at, name]));
  const items = schema.items ? placesIn(schema.items, [...at, '0']) : [];
  return [{ at, schema }, ...within, ...items];
}

/** The same with something else at one place. */
function changed(body: Json, at: string[], value: Json): Json {
  const [first, ...rest] = at;
  if (first === undefined) return value;
  const copy: Json[] | { [name: string]: Json } = Array.isArray(body) ? [...body] : { ...((body ?? {}) as { [name: string]: Json }) };
  (copy as Record<string, Json>)[first] = changed((copy as Record<string, Json>)[first] ?? {}, rest, value);
  return copy;
}
function without(body: Json, at: string[]): Json {
  const copy = structuredClone(body);
  let place = copy as Record<string, Json>;
  for (const name of at.slice(0, -1)) place = place?.[name] as Record<string, Json>;
  if (place && typeof place === 'object') delete place[at.at(-1)!];
  return copy;
}

const nested = (depth: number): Json => (depth === 0 ? 'x' : [nested(depth - 1)]);
const TEXTS = [
  '',
  ' ',
  'x',
  'x'.repeat(300),
  'x'.repeat(50_000),
  '\0',
  'a\0b',
  '\ud800',
  'a\udfffb',
  '\u202e\u200b',
  '🎧'.repeat(200),
  'a\r\nX-Y: z',
  '../../../../etc/passwd',
  "' or 1=1; --",
  '%00%ff',
  '$1',
  '<script>alert(1)</script>',
  '__proto__',
  '00000000-0000-0000-0000-000000000000',
  'ffffffff-ffff-ffff-ffff-ffffffffffff',
  '2030-02-30T00:00:00Z',
  '9999-12-31T23:59:59Z',
  '0000-01-01T00:00:00Z',
  '+275760-09-13T00:00:00Z',
  'http://[::1]:99999/',
  'http://user:pw@127.0.0.1/',
  'file:///etc/passwd',
  'a@b',
  `${'x'.repeat(64)}@${'y'.repeat(180)}.example`,
  '"quoted"@example.org',
  '٣٤٥٦٧٨',
  '123456',
];
const VALUES: Json[] = [
  ...TEXTS,
  null,
  true,
  false,
  0,
  -1,
  1.5,
  2 ** 31,
  2 ** 53,
  2 ** 63,
  1e308,
  -1e308,
  [],
  [[]],
  [null],
  ['x', 'x'],
  Array.from({ length: 5000 }, () => 0),
  {},
  { a: 1 },
  JSON.parse('{"__proto__":{"role":"admin"}}'),
  { constructor: { prototype: { role: 'admin' } } },
  JSON.parse('{"toString":1,"valueOf":2,"then":3}'),
  nested(12),
];
const RAW: (string | Buffer)[] = [
  '',
  ' ',
  'null',
  '[]',
  '"x"',
  '5',
  'true',
  '{',
  '{"a"',
  '{"a":1,}',
  '{"a":1e999}',
  '{"a":NaN}',
  '{}{}',
  '\ufeff{}',
  '\0',
  Buffer.of(0xff, 0xfe, 0x00),
  Buffer.concat([Buffer.from('{"name":"'), Buffer.of(0xc3, 0x28, 0xed, 0xa0, 0x80), Buffer.from('"}')]),
  '['.repeat(17) + ']'.repeat(17),
  '['.repeat(60_000),
  `{"a":${'{"a":'.repeat(5000)}1${'}'.repeat(5001)}`,
  '{"__proto__":{"role":"admin"},"constructor":{"prototype":{}}}',
  `{"${'k'.repeat(60_000)}":1}`,
  '{"a\\u0000":"\\ud800"}',
];
const CURSORS = [
  ...[
    '[]',
    '{}',
    'null',
    '5',
    '[1]',
    '[-1]',
    '[1.5]',
    '[1e300]',
    '[9007199254740993]',
    '["x"]',
    '["\\u0000"]',
    '["\\ud800"]',
    '[1,"x"]',
    '[1e300,"x"]',
    '[-1e300,"x"]',
    '[8640000000000001,"x"]',
    '[1,"\\u0000"]',
    '[1.5,"x"]',
    '[1,"00000000-0000-0000-0000-000000000000"]',
    '[1e300,"00000000-0000-0000-0000-000000000000"]',
    '[-62135596800001,"00000000-0000-0000-0000-000000000000"]',
    '[8640000000000000,"00000000-0000-0000-0000-000000000000"]',
    '[-8640000000000000,"00000000-0000-0000-0000-000000000000"]',
    '[0,"x","00000000-0000-0000-0000-000000000000"]',
    '[2147483648,"x","00000000-0000-0000-0000-000000000000"]',
    '[0,"\\u0000","00000000-0000-0000-0000-000000000000"]',
    '[[[[[1]]]]]',
  ].map((json) => Buffer.from(json).toString('base64url')),
  '!!!',
  'x'.repeat(512),
];
/** As they stand in a path or a query. */
const SEGMENTS = [
  // Nothing at all would be another address.
  ...TEXTS.filter((text) => text !== '' && !/\p{Cs}/u.test(text)).map((text) => encodeURIComponent(text.slice(0, 4000))),
  '%',
  '%zz',
  '%ED%A0%80',
  '%C0%AF',
  '..%2f..',
  '%2e%2e',
  '.',
  'a;b=c',
  'a%20b',
];

const INSIDE =
  /node_modules|\.[cm]?[jt]s:\d|\n\s+at |postgres|\bpg_(?:catalog|class|type)|relation "|invalid input syntax|\bselect .* from\b/i;

const problems: string[] = [];
let calls = 0;

/** One request, and what must hold of its answer. */
async function tried(one: Tried, path: string, more: Sent, what: string): Promise<void> {
  calls++;
  const answer = await world.ask(one, path, more);
  const bad = (reason: string) => {
    if (problems.length < 50)
      problems.push(`${one.operationId}, ${what.slice(0, 200)}: ${reason}: ${answer.status} ${answer.text.slice(0, 300)}`);
  };
  const { status, text } = answer;
  if (status >= 500 && status !== 503) bad('a defect');
  if (INSIDE.test(text)) bad('something of the inside');
  // What Node answers itself, before there is an address or an operation.
  if (text === '' && [400, 417, 431].includes(status) && answer.headers['content-type'] === undefined) return;
  const isOther = status === 404 && /nothing at this address/.test(text);
  if (status >= 400) {
    const problem = problemSchema.safeParse(safeJson(text));
    if (!problem.success) return bad('no problem document');
    if (problem.data.status !== status || answer.headers['content-type'] !== 'application/problem+json') bad('not as it says');
    const { code } = problem.data;
    // Another address than that of the operation: a path that was changed leads elsewhere.
    if (!isOther && status !== 405 && !one.responses[status]?.description.includes(`\`${code}\``)) bad(`${code} is not documented`);
  } else if (status !== one.operation.status) bad('not the documented status');
  else if (one.operation.contentType === undefined && one.operation.answer) {
    // The document lets members be added, so it does not see what is given away; the schema that it is made from does.
    const parsed = one.operation.answer.safeParse(safeJson(text));
    if (!parsed.success) bad(`not the documented answer: ${parsed.error.message.slice(0, 200)}`);
    const complained = complaint(one.responses[status]!.content!['application/json']!.schema, safeJson(text));
    if (complained !== undefined) bad(`not the documented answer: ${complained}`);
  }
  await world.stillSignedIn(one, answer);
}

function safeJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const pathWith = (one: Tried, other: Record<string, string> = {}) => world.pathWith(one, other);
const bodyOf = (one: Tried) => {
  const schema = one.requestBody?.content['application/json'].schema;
  return schema && { schema, good: example(schema, 'body') };
};

test('the requests that the fuzz starts from are good: it gets further than to the first check', async () => {
  const refused: string[] = [];
  for (const one of world.operations) {
    if (replacesKeys(one)) continue;
    const body = bodyOf(one);
    const answer = await world.ask(one, pathWith(one), body ? { body: JSON.stringify(body.good) } : {});
    if (answer.status === 400) refused.push(`${one.operationId} ${answer.text}`);
    if (one.path.startsWith('/me')) await world.signInAgain();
  }
  // A passkey is no matter of shape alone.
  assert.deepEqual(
    refused.filter((line) => !/^createPasskey /.test(line)),
    [],
  );
});

test('bodies: each place in each of them', async () => {
  for (const one of world.operations) {
    const body = bodyOf(one);
    const path = pathWith(one);
    for (const raw of RAW) await tried(one, path, { body: raw }, `raw ${String(raw).slice(0, 60)}`);
    for (const type of [
      'text/plain',
      'application/x-www-form-urlencoded',
      'application/json; charset=utf-16',
      'multipart/form-data; boundary=x',
      '',
    ])
      await tried(one, path, { body: JSON.stringify(body?.good ?? {}), headers: { 'content-type': type } }, `type ${type}`);
    if (!body) continue;
    await tried(one, path, {}, 'no body');
    await tried(one, path, { body: JSON.stringify({ ...(body.good as object), unknown: 1 }) }, 'one more');
    for (const { at } of placesIn(body.schema)) {
      if (at.length > 0) await tried(one, path, { body: JSON.stringify(without(body.good, at)) }, `without ${at.join('.')}`);
      for (const value of VALUES) {
        const json = JSON.stringify(changed(body.good, at, value));
        await tried(one, path, { body: json }, `${at.join('.') || 'body'} = ${JSON.stringify(value)?.slice(0, 60)}`);
      }
    }
  }
  assert.deepEqual(problems, []);
});

test('paths and queries: each parameter of each of them', async () => {
  for (const one of world.operations) {
    const body = bodyOf(one);
    const more = body ? { body: JSON.stringify(body.good) } : {};
    for (const parameter of one.parameters.filter((parameter) => parameter.in === 'path'))
      for (const segment of SEGMENTS)
        await tried(one, pathWith(one, { [parameter.name]: segment }), more, `{${parameter.name}} = ${segment}`);
    const path = pathWith(one);
    const queries = ['unknown=1', '__proto__=1', 'constructor=1', '%00=1', '%ff', '=', '&&&', `x=${'y'.repeat(6000)}`];
    for (const { name } of one.parameters.filter((parameter) => parameter.in === 'query')) {
      queries.push(`${name}=1&${name}=2`, `${name}[]=1`, `${name}[a]=1`, name, ...SEGMENTS.map((segment) => `${name}=${segment}`));
      if (name === 'cursor') queries.push(...CURSORS.map((cursor) => `cursor=${cursor}`));
      if (name === 'limit')
        queries.push(...['-1', '0', '201', '1e3', '0x10', '1.5', 'Infinity', 'NaN', '9'.repeat(400)].map((value) => `limit=${value}`));
    }
    for (const query of queries) await tried(one, `${path}?${query}`, more, `?${query}`);
  }
  assert.deepEqual(problems, []);
});

test('headers: what is no credential, and what says nothing', async () => {
  const none = Buffer.from('{"alg":"none"}').toString('base64url');
  const credentials = [
    '',
    'Bearer',
    'Bearer ',
    'Basic eDp5',
    'Bearer a.b.c',
    'Bearer ..',
    `Bearer ${none}.${none}.`,
    `Bearer ${Buffer.from('{"alg":"HS256","kid":"../../etc/passwd"}').toString('base64url')}.${Buffer.from('{"iss":{}}').toString('base64url')}.AAAA`,
    'Bearer vza_00000000000000000000000000',
    'Bearer vzr_x',
    `Bearer ${'x'.repeat(8000)}`,
    'Bearer \u00ff\u00fe',
    'Digest username="x"',
  ];
  for (const one of world.operations) {
    const body = bodyOf(one);
    for (const authorization of credentials)
      await tried(
        one,
        pathWith(one),
        { ...(body && { body: JSON.stringify(body.good) }), headers: { authorization } },
        `authorization ${authorization.slice(0, 40)}`,
      );
    for (const headers of [
      { 'x-request-id': '\u00ff' },
      { 'x-forwarded-for': "1.2.3.4, ' or 1=1" },
      { 'user-agent': '\u00ff'.repeat(2000) },
      { 'content-encoding': 'gzip' },
      { expect: 'nonsense' },
      { origin: 'null' },
    ] as Record<string, string>[])
      await tried(one, pathWith(one), { ...(body && { body: JSON.stringify(body.good) }), headers }, JSON.stringify(headers));
  }
  assert.deepEqual(problems, []);
});

test('what follows a request and is none ends the connection, and is no defect', async () => {
  const { hostname, port } = new URL(world.app.url);
  for (const rest of ['{"a":1}', '\0\0', 'GET', 'PRI * HTTP/2.0\r\n\r\n', 'x'.repeat(100_000)]) {
    const socket = connect(Number(port), hostname);
    const answers: Buffer[] = [];
    socket.on('data', (chunk) => answers.push(chunk));
    socket.on('error', () => undefined);
    socket.end(`GET /api/v1/channels HTTP/1.1\r\nHost: x\r\n\r\n${rest}\r\n\r\n`);
    await new Promise((resolve) => socket.once('close', resolve));
    assert.doesNotMatch(Buffer.concat(answers).toString(), /HTTP\/1\.1 5\d\d/, rest.slice(0, 20));
  }
});

test('nothing went wrong that an answer does not show', async (t) => {
  t.diagnostic(`${calls} requests to ${world.operations.length} operations`);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(unhandled, []);
  assert.deepEqual(world.failures.slice(0, 10), [], 'the log has no defect');
  assert.equal(({} as { role?: string }).role, undefined, 'no prototype was changed');
  assert.ok(calls > 5000, `${calls} calls`);
});
