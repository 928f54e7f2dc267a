import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Validator } from '@seriousme/openapi-schema-validator';
import { isSeen, PLAIN_LINE } from '../../src/access/shown-text.js';
import { PATTERNS } from '../../src/app/api/request-schemas.js';
import { ERROR_CODES } from '../../src/runtime/errors.js';
import { type ApiDocument, complaint, type Documented, documentedOperations, resolved, type Schema } from '../support/api-document.js';
import { startApp, type TestApp } from '../support/app.js';

let app: TestApp;
let text: string;
let document: ApiDocument;
let operations: Documented[];
const ask = (headers: Record<string, string> = {}, method = 'GET') => fetch(`${app.url}/api/v1/openapi.json`, { method, headers });

before(async () => {
  app = await startApp();
  text = await (await ask()).text();
  document = JSON.parse(text);
  operations = documentedOperations(document);
});
after(() => app.stop());

/** Each schema in it and where, properties and items too. */
function* within(schema: Schema, at: string): Generator<[Schema, string]> {
  yield [schema, at];
  for (const [name, member] of Object.entries(schema.properties ?? {})) yield* within(member, `${at}.${name}`);
  if (schema.items) yield* within(schema.items, `${at}[]`);
  for (const one of [...(schema.anyOf ?? []), ...(schema.allOf ?? [])]) yield* within(one, at);
  if (typeof schema.additionalProperties === 'object') yield* within(schema.additionalProperties, `${at}.*`);
}
const bodyOf = ({ requestBody }: Documented) => requestBody?.content['application/json'];
const isGood = (status: string) => status < '300';
const requestSchemas = () =>
  operations.flatMap((one) => [
    ...one.parameters.map(({ name, schema }) => [schema, `${one.operationId} ${name}`] as const),
    ...(bodyOf(one) ? [[bodyOf(one)!.schema, one.operationId] as const] : []),
  ]);
const answerMedia = () =>
  operations.flatMap((one) =>
    Object.entries(one.responses).flatMap(([status, { content = {} }]) =>
      Object.entries(content).map(([type, media]) => ({ id: one.operationId, status, type, media })),
    ),
  );

test('it is OpenAPI 3.1 by the schema of OpenAPI, and names every operation once', async () => {
  const { valid, errors } = await new Validator().validate(structuredClone(document) as never);
  assert.ok(valid, JSON.stringify(errors ?? '').slice(0, 2000));
  assert.deepEqual(
    operations.map(({ method, path, operationId }) => `${method} ${path} ${operationId}`).sort(),
    app.operations.map(({ method, path, id }) => `${method.toUpperCase()} ${path} ${id}`).sort(),
  );
  assert.equal(new Set(operations.map(({ operationId }) => operationId)).size, operations.length);
  for (const { path, parameters } of operations) {
    const named = [...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1]);
    assert.deepEqual(
      parameters.filter((parameter) => parameter.in === 'path' && parameter.required).map(({ name }) => name),
      named,
    );
  }
});

test('every reference leads somewhere inside it, and every named part is referred to', () => {
  const references = new Set([...text.matchAll(/"\$ref":"#\/components\/(\w+\/[^"]+)"/g)].map((match) => match[1]));
  assert.doesNotMatch(text, /\$defs|"\$ref":"(?!#\/components\/)/);
  const parts = Object.entries(document.components as unknown as Record<string, object>)
    .filter(([kind]) => kind !== 'securitySchemes')
    .flatMap(([kind, named]) => Object.keys(named).map((name) => `${kind}/${name}`));
  assert.deepEqual([...references].sort(), parts.sort());
});

test('resources have names: an answer that several operations give is one schema', () => {
  for (const name of ['Account', 'Asset', 'Broadcast', 'Channel', 'Member', 'Problem', 'Room', 'RoomEntry', 'Session', 'Webhook', 'ApiKey'])
    assert.ok(document.components.schemas[name], name);
  const bodies = new Map<string, string>();
  for (const [name, schema] of Object.entries(document.components.schemas)) {
    if (!schema.properties || name.endsWith('Request')) continue;
    const same = bodies.get(JSON.stringify(schema));
    assert.equal(same, undefined, `${name} is ${same}`);
    bodies.set(JSON.stringify(schema), name);
  }
  // Bodies and answers themselves are never without a name.
  for (const methods of Object.values(document.paths))
    for (const one of Object.values(methods)) {
      if (one.requestBody) assert.ok(one.requestBody.content['application/json'].schema.$ref, one.operationId);
      const answer = Object.entries(one.responses).find(([status]) => isGood(status))![1].content?.['application/json'];
      if (answer) assert.ok(answer.schema.$ref, one.operationId);
    }
});

/** What ECMA-262 without flags, RE2 and Python’s `re` read alike; a repetition of RE2 is at most 1,000. */
const PORTABLE = /^(?:\\x[0-9a-f]{2}|\\[.\\\]/]|\(\?:|\{(?:\d{1,3}|1000)(?:,(?:\d{1,3}|1000)?)?\}|[^\\{}?]|\?(?=[^?+]))*$/;

test('patterns are read alike by JavaScript, Go and Python, with flags and without', () => {
  const patterns = new Set<string>();
  for (const [schema] of [...requestSchemas(), ...answerMedia().map(({ media, id }) => [media.schema, id] as const)])
    for (const [{ pattern }] of within(schema, '')) if (pattern !== undefined) patterns.add(pattern);
  assert.ok(patterns.size >= 15);
  const samples = [
    '',
    ' ',
    'radio',
    'Ann',
    'a b',
    'a\nb',
    'a\0b',
    'x'.repeat(80),
    '٣',
    'ｘ',
    'é',
    '🎧',
    '\u2028',
    '\u200b',
    '\u202ex',
    '0-0',
    '_',
    'a@b',
    'https://x.example/',
    '\x85',
    '\u00a0',
    '\u2800',
  ];
  for (const pattern of patterns) {
    assert.match(pattern, PORTABLE);
    // No property, class by name, word boundary or lookaround; in a class nothing that Python takes for an operation on sets.
    assert.doesNotMatch(pattern, /\\[pPwWdDsSbBuUkAzZ0-9]|\(\?[^:]|--|&&|~~|\|\||\[\[/, pattern);
    for (const flags of ['', 'u'])
      for (const sample of samples)
        assert.equal(
          new RegExp(pattern, flags).test(sample),
          new RegExp(pattern, 'u').test(sample),
          `${pattern} ${flags} ${JSON.stringify(sample)}`,
        );
  }
  for (const broken of ['^\\p{Cc}$', '^\\d+$', '(?=x)', '(?<name>x)', '\\u0000', 'x{1001}', 'x*?'])
    assert.ok(!PORTABLE.test(broken) || /\\[pPwWdDsSbBuUkAzZ0-9]|\(\?[^:]/.test(broken), broken);
});

test('what a pattern says of a text is what the rooms behind the API say, for every character there is', () => {
  const cases: [string, (text: string) => boolean][] = [
    [PATTERNS.plainLine, (given) => PLAIN_LINE.test(given) && isSeen(given)],
    [PATTERNS.line, (given) => /^[^\p{Cc}\p{Zl}\p{Zp}]*$/u.test(given) && given.trim() !== ''],
    [PATTERNS.lines, (given) => /^(?:\P{Cc}|[\t\n\r])*$/u.test(given) && given.trim() !== ''],
    [PATTERNS.song, (given) => /^\P{Cc}*$/u.test(given) && given.trim() !== ''],
    [PATTERNS.noControls, (given) => /^\P{Cc}*$/u.test(given)],
    [PATTERNS.filled, (given) => !given.includes('\0') && given.trim() !== ''],
  ];
  for (const [pattern, rule] of cases) {
    const allowed = new RegExp(pattern);
    for (let code = 0; code < 0x10000; code++) {
      if (code >= 0xd800 && code <= 0xdfff) continue;
      const letter = String.fromCodePoint(code);
      for (const given of [letter, `x${letter}`])
        if (allowed.test(given) !== rule(given)) assert.fail(`${pattern} and U+${code.toString(16)}`);
    }
    assert.equal(allowed.test('\u{1f3a7}'), true);
  }
});

test('requests say all their limits: every text has lengths and refuses U+0000, every number and list has bounds, no member goes unnamed', () => {
  // What browsers add to WebAuthn’s answers is dropped.
  const isOpen = (at: string) => /^(?:createPasskey|signInWithPasskey)\.response/.test(at);
  for (const [schema, name] of requestSchemas())
    for (const [one, at] of within(schema, name)) {
      const types = ([] as unknown[]).concat(one.type ?? []);
      if (one.enum || one.const !== undefined) continue;
      if (types.includes('string')) {
        assert.ok(
          one.format === 'uuid' ||
            one.format === 'date-time' ||
            /^ipv/.test(one.format ?? '') ||
            (one.minLength !== undefined && one.maxLength !== undefined),
          at,
        );
        assert.ok(one.pattern, at);
        for (const around of ['', 'x', '0'.repeat(7)])
          assert.ok(!new RegExp(one.pattern, 'u').test(`${around}\0${around}`), `${at} takes U+0000`);
      }
      if (types.includes('integer') || types.includes('number')) assert.ok(one.minimum !== undefined && one.maximum !== undefined, at);
      if (types.includes('array')) assert.ok(one.maxItems !== undefined, at);
      if (types.includes('object') && !isOpen(at)) assert.equal(one.additionalProperties, false, at);
    }
});

test('answers may gain members: none is closed', () => {
  for (const { media, id } of answerMedia())
    for (const [one, at] of within(media.schema.contentSchema ?? media.schema, id)) assert.notEqual(one.additionalProperties, false, at);
});

test('the limits are the real ones', () => {
  const member = (id: string, name: string) => bodyOf(operations.find(({ operationId }) => operationId === id)!)!.schema.properties![name]!;
  const limits = (id: string, name: string) => {
    const { minLength, maxLength, format } = member(id, name);
    return { minLength, maxLength, format };
  };
  assert.deepEqual(limits('register', 'password'), { minLength: 8, maxLength: 256, format: 'password' });
  assert.deepEqual(limits('changePassword', 'newPassword'), { minLength: 8, maxLength: 256, format: 'password' });
  assert.deepEqual(limits('register', 'name'), { minLength: 1, maxLength: 64, format: undefined });
  assert.deepEqual(limits('register', 'email'), { minLength: 3, maxLength: 254, format: 'email' });
  assert.deepEqual(limits('createChannel', 'slug'), { minLength: 2, maxLength: 63, format: undefined });
  assert.equal(member('postRoomMessage', 'text').maxLength, 8192);
  assert.equal(member('postRoomMessage', 'text')['x-max-bytes'], 8192);
});

test('a service that is set to shorter messages says so, and refuses longer ones', async () => {
  const other = await startApp({ maxMessageBytes: 100 });
  const shorter = (await (await fetch(`${other.url}/api/v1/openapi.json`)).json()) as ApiDocument;
  const { text: limit } = shorter.components.schemas.PostRoomMessageRequest!.properties!;
  assert.equal(limit!.maxLength, 100);
  assert.equal(limit!['x-max-bytes'], 100);
  await fetch(`${other.url}/api/v1/channels`, {
    method: 'POST',
    headers: { authorization: `Bearer ${other.token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ slug: 'radio' }),
  });
  const post = async (given: string) =>
    (
      await fetch(`${other.url}/api/v1/rooms/radio/messages`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ text: given, key: 'k' }),
      })
    ).status;
  assert.deepEqual([await post('é'.repeat(50)), await post('é'.repeat(51)), await post('x'.repeat(101))], [401, 413, 413]);
  await other.stop();
});

test('a body is required where nothing will not do, and not where it will', () => {
  for (const one of operations) {
    const body = bodyOf(one);
    if (body) assert.equal(one.requestBody!.required, complaint(body.schema, {}) !== undefined, one.operationId);
  }
  const required = (id: string) => operations.find(({ operationId }) => operationId === id)!.requestBody?.required;
  assert.deepEqual(['endBroadcast', 'banAccount', 'updateChannel', 'issueChannelLink', 'createChannel', 'pinRoomMessage'].map(required), [
    undefined,
    false,
    false,
    false,
    true,
    true,
  ]);
});

test('each operation has a tag, words for people, codes for programs, and headers; what is made has an address', () => {
  const tags = (document as unknown as { tags: { name: string; description: string }[] }).tags.map(({ name }) => name);
  for (const one of operations) {
    const { operationId: id, tags: own, summary, description, responses } = one;
    assert.equal(own.length, 1, id);
    assert.ok(tags.includes(own[0]!), id);
    assert.match(summary, /^[A-Z].{5,80}\.$/, id);
    assert.ok(description.length > 10, id);
    const good = Object.keys(responses).filter(isGood);
    assert.equal(good.length, 1, id);
    for (const [status, { headers = {}, content }] of Object.entries(responses)) {
      // Those of the listener, which has not read so far.
      if (!['408', '414', '417', '431', '501', '505'].includes(status))
        for (const name of ['X-Request-Id', 'RateLimit', 'RateLimit-Policy']) assert.ok(headers[name], `${id} ${status} ${name}`);
      if (status === '405') assert.ok(headers.Allow, id);
      if (status === '201') assert.equal(headers.Location?.required, true, id);
      if (status === '429' || status === '503') assert.ok(headers['Retry-After'], id);
      if (status === '401') assert.ok(headers['WWW-Authenticate'], id);
      if (isGood(status)) continue;
      const codes = content!['application/problem+json']!.schema.allOf![1]!.properties!.code!.enum as (keyof typeof ERROR_CODES)[];
      for (const code of codes) assert.equal(ERROR_CODES[code], Number(status), `${id} ${code}`);
    }
    for (const status of ['400', '405', '408', '414', '417', '429', '431', '500', '501', '503', '505'])
      assert.ok(responses[status], `${id} ${status}`);
  }
});

test('examples are what the schemas allow', () => {
  let examples = 0;
  const holds = (schema: Schema, example: unknown, at: string) => {
    examples++;
    assert.equal(complaint(schema, example), undefined, `${at}: ${JSON.stringify(example)}`);
  };
  for (const one of operations) {
    const body = bodyOf(one);
    if (body) holds(body.schema, body.example, one.operationId);
    for (const { name, required, schema, example } of one.parameters) if (required) holds(schema, example, `${one.operationId} ${name}`);
  }
  for (const { media, id, status, type } of answerMedia()) {
    if (type === 'application/jsonl') {
      const line = media.schema.contentSchema!.items!;
      assert.equal(media.schema.type, 'string', id);
      for (const piece of String(media.example).trimEnd().split('\n')) holds(line, JSON.parse(piece), id);
    } else holds(media.schema, media.example, `${id} ${status}`);
  }
  assert.ok(examples > 200, `${examples}`);
});

test('a schema whose references are put in place is the one that was written', () => {
  assert.deepEqual(resolved(document, { $ref: '#/components/schemas/Role' }), document.components.schemas.Role);
  assert.throws(() => resolved(document, { $ref: '#/components/schemas/None' }), /leads nowhere/);
});

test('it is served compressed, with a tag for each form, and not twice', async () => {
  assert.match(text, /^[\x20-\x7e]*$/, 'ASCII alone: nothing in a pattern is lost or unseen');
  const raw = async (encoding: string, more: Record<string, string> = {}, method = 'GET') => {
    const response = await ask({ 'accept-encoding': encoding, ...more }, method);
    return { response, encoding: response.headers.get('content-encoding'), tag: response.headers.get('etag')! };
  };
  const tags = new Set<string>();
  for (const [accepted, expected] of [
    ['identity', null],
    ['gzip', 'gzip'],
    ['br', 'br'],
    ['gzip, deflate, br', 'br'],
    ['br;q=0, gzip', 'gzip'],
    ['*;q=0', null],
  ] as const) {
    const { response, encoding, tag } = await raw(accepted);
    assert.equal(encoding, expected, accepted);
    assert.match(tag, /^"[^"]+"$/, 'strong');
    tags.add(`${expected} ${tag}`);
    assert.match(response.headers.get('vary')!, /Accept-Encoding/);
    assert.equal(await response.text(), text, accepted);
    assert.equal((await raw(accepted, { 'if-none-match': tag })).response.status, 304);
    assert.equal((await raw(accepted, { 'if-none-match': `"x", ${tag}` })).response.status, 304);
    assert.equal((await raw(accepted, { 'if-none-match': '"x"' })).response.status, 200);
    const head = await raw(accepted, {}, 'HEAD');
    assert.equal(head.tag, tag);
    assert.equal(head.response.headers.get('content-length'), response.headers.get('content-length'));
    assert.equal(await head.response.text(), '');
  }
  assert.equal(tags.size, 3);
  const { response } = await raw('gzip', { 'if-none-match': (await raw('br')).tag });
  assert.equal(response.status, 200, 'the other form is not the one that the client has');
  assert.ok(Number((await raw('gzip')).response.headers.get('content-length')) < text.length / 8);
});

test('whether a page may read an answer hangs on its Origin, and every answer of the API says so', async () => {
  for (const allowedOrigins of [['*'], ['https://a.example']]) {
    const other = await startApp({ allowedOrigins });
    for (const [method, path] of [
      ['GET', '/channels'],
      ['GET', '/channels/none'],
      ['GET', '/nothing'],
      ['GET', '/me'],
      ['GET', '/openapi.json'],
      ['HEAD', '/channels'],
      ['PUT', '/channels'],
      ['OPTIONS', '/channels'],
    ])
      for (const origin of [undefined, 'https://a.example', 'https://b.example', 'null']) {
        const { headers } = await fetch(`${other.url}/api/v1${path}`, { method: method!, headers: origin === undefined ? {} : { origin } });
        assert.match(headers.get('vary') ?? '', /\bOrigin\b/, `${method} ${path} ${origin}`);
      }
    await other.stop();
  }
});
