import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Database } from '../../src/backing/database/database.js';
import { complaint, type Schema } from '../support/api-document.js';
import { type Answer, ApiWorld, replacesKeys, type Sent, type Tried } from '../support/api-world.js';

/**
 * Requests made from the API's own document: what it allows is not refused for its shape, what it does not allow is refused with 400. Whether a value is
 * allowed is judged by a validator that knows the document alone.
 */
let world: ApiWorld;
before(async () => {
  world = await ApiWorld.start();
});
after(() => world.stop());

const LETTERS = ['x', '0', 'é', '🎧'];
const GOOD_TEXTS = [
  'fuzz',
  '123456',
  'AAAA',
  '2030-01-01T00:00:00Z',
  '00000000-0000-4000-8000-000000000000',
  'from-the-target-123456',
  'somebody@example.org',
  'http://127.0.0.1:65535/',
  'example.org',
  '192.0.2.1',
  '2001:db8::1',
];
const PASSWORD = 'a sentence that nobody tries; ';

const isAllowed = (schema: Schema, value: unknown) => complaint(schema, value) === undefined;
const fitsBytes = (schema: Schema, value: string) => Buffer.byteLength(value) <= (schema['x-max-bytes'] ?? Number.POSITIVE_INFINITY);

/** One value that is allowed, as small as it may be. */
function good(schema: Schema, name: string): unknown {
  if (schema.enum) return schema.enum[0];
  if (schema.const !== undefined) return schema.const;
  if (schema.anyOf) return good(schema.anyOf[0]!, name);
  switch (([] as unknown[]).concat(schema.type ?? [])[0]) {
    case 'object':
      return Object.fromEntries((schema.required ?? []).map((member) => [member, good(schema.properties![member]!, member)]));
    case 'array':
      return Array.from({ length: schema.minItems ?? 0 }, () => good(schema.items!, name));
    case 'integer':
      return Math.max(1, schema.minimum ?? 1);
    case 'boolean':
      return true;
    case 'string': {
      const preferred = name === 'url' ? [GOOD_TEXTS[7]!] : schema.format === 'password' ? [PASSWORD] : [];
      const found = [...preferred, ...GOOD_TEXTS].find((text) => isAllowed(schema, text));
      assert.ok(found !== undefined, `nothing fits ${name}: ${JSON.stringify(schema)}`);
      return found;
    }
    default:
      return null;
  }
}

/** Texts of exactly so many characters that the document allows. */
function textsOf(schema: Schema, name: string, length: number): string[] {
  const begun = schema.format === 'password' ? PASSWORD.repeat(40) : String(good(schema, name));
  const whole = schema.format === 'password' ? [begun.slice(0, length)] : LETTERS.map((letter) => letter.repeat(length));
  const filled = LETTERS.map((letter) => begun + letter.repeat(Math.max(0, length - [...begun].length)));
  return [...whole, ...filled].filter((text) => [...text].length === length);
}

/** Values at every limit. */
function allowed(schema: Schema, name: string): unknown[] {
  if (schema.enum) return schema.enum.slice(0, 5);
  if (schema.anyOf) return schema.anyOf.flatMap((one) => allowed(one, name));
  const values: unknown[] = [good(schema, name)];
  const types = ([] as unknown[]).concat(schema.type ?? []);
  if (types.includes('null')) values.push(null);
  if (types.includes('boolean')) values.push(true, false);
  if (types.includes('integer')) values.push(schema.minimum, schema.maximum);
  if (types.includes('array'))
    for (const length of [schema.minItems ?? 0, schema.maxItems!]) values.push(Array.from({ length }, () => good(schema.items!, name)));
  if (types.includes('string') && schema.maxLength !== undefined)
    for (const length of [schema.minLength ?? 0, schema.maxLength]) values.push(...textsOf(schema, name, length));
  return values.filter((value) => isAllowed(schema, value) && (typeof value !== 'string' || fitsBytes(schema, value)));
}

/** Values past every limit, of other types, and texts that JSON can carry and the document cannot name. */
function refusedValues(schema: Schema, name: string): unknown[] {
  const values: unknown[] = [
    null,
    true,
    7,
    -1,
    1.5,
    1e300,
    'x',
    '',
    ' ',
    '5',
    [],
    {},
    [null],
    ['x'],
    'a\0b',
    'a\nb',
    '٣',
    'not an address',
    '../..',
  ];
  const types = ([] as unknown[]).concat(schema.type ?? (schema.anyOf ?? []).map(({ type }) => type));
  if (types.includes('integer')) values.push(schema.minimum! - 1, schema.maximum! + 1, String(good(schema, name)));
  if (types.includes('string')) {
    if (schema.maxLength !== undefined)
      values.push(...textsOf(schema, name, schema.maxLength + 1), ...LETTERS.map((letter) => letter.repeat(schema.maxLength! + 1)));
    if ((schema.minLength ?? 0) > 1) values.push(...textsOf(schema, name, schema.minLength! - 1), 'x'.repeat(schema.minLength! - 1));
    const base = String(good(schema, name));
    values.push(`${base}\0`, `\0${base}`, `${base}x`.repeat(3), ` ${base}`, `${base}\u202e`, `${base}\n`);
  }
  if (types.includes('array') && schema.maxItems !== undefined) {
    const items = schema.items ?? schema.anyOf!.find(({ items }) => items)!.items!;
    values.push(Array.from({ length: schema.maxItems + 1 }, () => good(items, name)));
  }
  return values.filter((value) => !isAllowed(schema, value) || (typeof value === 'string' && !fitsBytes(schema, value)));
}

/** Half a surrogate pair: no validator sees it, since no text of Unicode has it. */
const UNPAIRED = ['\ud800', 'x\udfff', '\udc00\ud800'];

function* places(schema: Schema, at: string[] = []): Generator<{ at: string[]; schema: Schema; name: string }> {
  yield { at, schema, name: at.filter((part) => part !== '0').at(-1) ?? 'body' };
  for (const [name, member] of Object.entries(schema.properties ?? {})) yield* places(member, [...at, name]);
  if (schema.items) yield* places(schema.items, [...at, '0']);
}

/** `body` with something else at one place; what is missing on the way there is filled in. */
function changed(schema: Schema, body: unknown, at: string[], value: unknown): unknown {
  const [first, ...rest] = at;
  if (first === undefined) return value;
  if (schema.items) return [changed(schema.items, (body as unknown[] | undefined)?.[0] ?? good(schema.items, ''), rest, value)];
  const member = schema.properties![first]!;
  const before = (body as Record<string, unknown>)[first] ?? good(member, first);
  return { ...(body as object), [first]: changed(member, before, rest, value) };
}

/** With what else is in it: letters that take twelve characters each go beyond it before they go beyond the limit of a parameter. */
const fitsHead = (value: string) => value.length < 7000;

const problems: string[] = [];
let asked = 0;
const bodyOf = (one: Tried) => one.requestBody?.content['application/json'].schema;
const withBody = (body: unknown): Sent => (body === undefined ? {} : { body: JSON.stringify(body) });

/** What is wrong with an answer by the document alone. */
function breach(one: Tried, { status, headers, text }: Answer): string | undefined {
  const response = one.responses[status];
  if (!response) return 'the status is not documented';
  const content = Object.entries(response.content ?? {})[0];
  if (!content) return text === '' ? undefined : 'there is a body';
  const [type, { schema }] = content;
  if (headers['content-type']?.split(';')[0] !== type) return `the type is ${headers['content-type']}`;
  for (const [name, { required }] of Object.entries(response.headers ?? {}))
    if (required && headers[name.toLowerCase()] === undefined) return `there is no ${name}`;
  if (type === 'application/jsonl') {
    for (const line of text.split('\n').filter(Boolean)) {
      const complained = complaint(schema.contentSchema!.items!, JSON.parse(line));
      if (complained !== undefined) return complained;
    }
    return text === '' || text.endsWith('\n') ? undefined : 'the last line does not end';
  }
  return complaint(schema, JSON.parse(text));
}

async function ask(one: Tried, path: string, more: Sent, what: string, isWrong: (answer: Answer) => boolean): Promise<void> {
  asked++;
  const answer = await world.ask(one, path, more);
  const broken = breach(one, answer) ?? (isWrong(answer) ? 'the shape was judged otherwise' : undefined);
  if (broken !== undefined && problems.length < 40)
    problems.push(`${one.operationId} ${what.slice(0, 150)}: ${broken}: ${answer.status} ${answer.text.slice(0, 250)}`);
  await world.stillSignedIn(one, answer);
}

/** Refusals with 400 that are not for the shape, each said in the document's words: a cursor is opaque, and these values were made up. */
const NOT_SHAPE = /This cursor is not one of ours|among the first that anybody would try|passkey|nothing to look for/i;
/** 413: a text that has a limit of bytes. 414, 431: what is far too long for a parameter does not even fit the head. */
const isRefused = ({ status }: Answer) => [400, 413, 414, 431].includes(status);
const isWronglyRefused = (answer: Answer) => isRefused(answer) && !NOT_SHAPE.test(answer.text);
const isWronglyTaken = (answer: Answer) => !isRefused(answer);

test('bodies that the document allows are taken, to the last character of every limit', async () => {
  problems.length = 0;
  for (const one of world.operations.filter((one) => !replacesKeys(one))) {
    const schema = bodyOf(one);
    const path = world.pathWith(one);
    if (!schema || !one.requestBody!.required) await ask(one, path, {}, 'no body', isWronglyRefused);
    // What many clients send for none.
    if (!schema) for (const none of [{}, null]) await ask(one, path, one.method === 'GET' ? {} : withBody(none), 'none', isWronglyRefused);
    if (!schema) continue;
    const least = good(schema, 'body') as object;
    await ask(one, path, withBody(least), 'least', isWronglyRefused);
    const most = Object.fromEntries(Object.entries(schema.properties ?? {}).map(([name, member]) => [name, good(member, name)]));
    if (isAllowed(schema, most)) await ask(one, path, withBody(most), 'most', isWronglyRefused);
    for (const place of places(schema)) {
      if (place.at.length === 0) continue;
      for (const value of allowed(place.schema, place.name)) {
        const body = changed(schema, least, place.at, value);
        if (isAllowed(schema, body))
          await ask(one, path, withBody(body), `${place.at.join('.')} = ${JSON.stringify(value)?.slice(0, 60)}`, isWronglyRefused);
      }
    }
  }
  assert.deepEqual(problems, []);
});

test('bodies that it does not allow are refused: one past each limit, other types, what is missing and what is too much, broken text', async () => {
  problems.length = 0;
  for (const one of world.operations) {
    const schema = bodyOf(one);
    const path = world.pathWith(one);
    if (!schema && one.method !== 'GET')
      for (const body of [{ another: 1 }, [], ['x'], 'x', 7, true])
        await ask(one, path, withBody(body), JSON.stringify(body), isWronglyTaken);
    if (!schema) continue;
    const least = good(schema, 'body') as Record<string, unknown>;
    if (one.requestBody!.required) await ask(one, path, {}, 'no body', isWronglyTaken);
    for (const name of schema.required ?? []) {
      const { [name]: _, ...rest } = least;
      await ask(one, path, withBody(rest), `without ${name}`, isWronglyTaken);
    }
    await ask(one, path, withBody({ ...least, another: 1 }), 'one more', isWronglyTaken);
    for (const { at, schema: place, name } of places(schema)) {
      for (const value of refusedValues(place, name))
        await ask(
          one,
          path,
          withBody(changed(schema, least, at, value)),
          `${at.join('.')} = ${JSON.stringify(value)?.slice(0, 60)}`,
          isWronglyTaken,
        );
      if (([] as unknown[]).concat(place.type ?? []).includes('string'))
        for (const value of UNPAIRED)
          await ask(one, path, withBody(changed(schema, least, at, value)), `${at.join('.')} = half a pair`, isWronglyTaken);
    }
  }
  assert.deepEqual(problems, []);
});

/** Queries with a member that no operation has. In the first it is behind more pieces than `node:querystring` reads unless told to. */
const UNKNOWN_MEMBERS = [
  `${'&'.repeat(1500)}another=1`,
  'another=1',
  'another',
  '=',
  '__proto__=1',
  'constructor=',
  '%61nother=%31',
  'Limit=1',
  'limit%5B%5D=1',
];

test('queries and paths: what the document allows is taken, what it does not is refused, and numbers are decimal digits alone', async () => {
  problems.length = 0;
  const tried = new Set<string>();
  const wrongNumbers = ['0x10', '1e2', '%205', '+5', '05', '5%20', '-0', '5.0', '', '%D9%A3', '1_0', 'NaN', '5%00'];
  const wrongTexts = ['%00', 'a%00b', '%ED%A0%80', '%ff', '%zz', '%'];
  for (const one of world.operations) {
    const more = withBody(bodyOf(one) && good(bodyOf(one)!, 'body'));
    const path = world.pathWith(one);
    for (const query of tried.has(one.method) ? UNKNOWN_MEMBERS.slice(0, 2) : UNKNOWN_MEMBERS)
      await ask(one, `${path}?${query}`, more, `query ${query.slice(0, 20)}`, isWronglyTaken);
    tried.add(one.method);
    if (one.method === 'GET') await ask(one, `${path}?&&`, more, 'query of no members', isWronglyRefused);
    for (const { name, in: where, schema } of one.parameters) {
      const at = (value: string) => (where === 'query' ? `${path}?${name}=${value}` : world.pathWith(one, { [name]: value }));
      const isText = schema.type === 'string' && !schema.enum;
      if (where === 'query')
        for (const value of allowed(schema, name).map((value) => encodeURIComponent(String(value))))
          if (fitsHead(value)) await ask(one, at(value), more, `${name} = ${value}`, isWronglyRefused);
      const wrong = new Set([...(schema.type === 'integer' ? wrongNumbers : []), ...(isText ? wrongTexts : [])]);
      for (const value of refusedValues(schema, name)) {
        if (schema.type === 'integer' ? Number.isInteger(value) : typeof value === 'string') wrong.add(encodeURIComponent(String(value)));
      }
      for (const value of wrong) {
        // Other addresses.
        if (where === 'path' && (value === '' || /^(?:\.|%2e)+$/i.test(value) || /%2f/i.test(value))) continue;
        await ask(one, at(value), more, `${name} = ${value.slice(0, 60)}`, isWronglyTaken);
      }
      if (where === 'query') await ask(one, `${path}?${name}=1&${name}=2`, more, `${name} twice`, isWronglyTaken);
    }
  }
  assert.deepEqual(problems, []);
  assert.ok(asked > 1500, `${asked}`);
});

/** Of every session that begins from here on, and of the one that asks. */
const setReadOnly = (database: Database, value: 'on' | 'off') =>
  database.query(`begin; set transaction read write;
    do $$ begin execute format('alter database %I set default_transaction_read_only = ${value}', current_database()); end $$;
    commit; set default_transaction_read_only = ${value}`);

test('while the database takes no changes, every operation says so with 503 and when to come back, or does what it can', async () => {
  problems.length = 0;
  const { database } = world;
  await setReadOnly(database, 'on');
  try {
    let refused = 0;
    for (const one of world.operations) {
      const answer = await world.send(one.method, world.pathWith(one), withBody(bodyOf(one) && good(bodyOf(one)!, 'body')));
      const { status, headers, text } = answer;
      const broken = breach(one, answer) ?? (status === 500 ? 'a defect' : undefined);
      if (broken !== undefined) problems.push(`${one.operationId}: ${broken}: ${status} ${text.slice(0, 200)}`);
      if (status !== 503) continue;
      refused++;
      if (!/^[1-9]\d*$/.test(headers['retry-after'] ?? '')) problems.push(`${one.operationId}: no Retry-After`);
    }
    assert.ok(refused > 20, `${refused}`);
  } finally {
    await setReadOnly(database, 'off');
  }
  assert.deepEqual(problems, []);
});
