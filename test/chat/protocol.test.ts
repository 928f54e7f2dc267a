import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import fc from 'fast-check';
import { MOD_FRAMES, parseModAction } from '../../src/chat/moderation/mod-actions.js';
import { CLIENT_FRAMES, parseFrame } from '../../src/chat/protocol/client-frames.js';
import { frameTables } from '../../src/chat/protocol/frame-tables.js';
import { CLOSE, ERROR_CODES, errorFrame } from '../../src/chat/protocol/protocol.js';
import { SERVER_FRAMES } from '../../src/chat/protocol/server-frames.js';
import { webSocketFrames } from '../../src/chat/protocol/websocket-frames.js';
import { checkFrame } from './chat-world.js';

// Its types do not name it.
const { Receiver } = createRequire(import.meta.url)('ws') as {
  Receiver: new (options: object) => { on(event: 'message', listener: (data: Buffer) => void): void; write(bytes: Buffer): void };
};

// biome-ignore lint/suspicious/noExplicitAny: what a schema holds, the test says.
type AnySchema = any;

test('whatever comes, parsing gives a frame or says what is wrong', () => {
  const wild = fc.oneof(
    fc.string(),
    fc.json(),
    fc
      .record(
        {
          t: fc.constantFrom('hello', 'auth', 'join', 'leave', 'pub', 'react', 'history', 'range', 'mod', '__proto__', 'toString'),
          id: fc.oneof(fc.string(), fc.jsonValue()),
          room: fc.oneof(fc.constant('radio'), fc.jsonValue()),
          key: fc.oneof(fc.string(), fc.jsonValue()),
          body: fc.oneof(fc.record({ text: fc.string() }), fc.jsonValue()),
          since: fc.jsonValue(),
          token: fc.jsonValue(),
          limit: fc.jsonValue(),
          from: fc.jsonValue(),
          to: fc.jsonValue(),
          mid: fc.jsonValue(),
          emoji: fc.oneof(fc.string(), fc.jsonValue()),
          action: fc.jsonValue(),
        },
        { requiredKeys: ['t'] },
      )
      .map((frame) => JSON.stringify(frame)),
  );
  fc.assert(
    fc.property(wild, (text) => {
      const frame = parseFrame(text, 8192);
      if (frame.t !== 'bad') return;
      assert.ok(frame.code in ERROR_CODES && frame.message.length > 0 && frame.message.length < 200);
      checkFrame(JSON.parse(errorFrame(frame.id, frame.code, frame.message)));
    }),
    { numRuns: 3000 },
  );
});

test('deep JSON is read or refused, and nothing overflows', () => {
  const deep = `${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}`;
  const frame = parseFrame(`{"t":"mod","id":"1","room":"radio","action":"slow","x":${deep}}`, 8192);
  assert.equal(frame.t, 'mod');
  assert.equal(parseFrame('['.repeat(65_000), 8192).t, 'bad');
  assert.equal(parseFrame(`{"t":"pub","id":"1","room":"r1","key":"k","body":{"text":"x","y":${deep}}}`, 8192).t, 'bad');
});

test('text that would be another on its way is refused in every field, and what is well-formed is taken', () => {
  const frames: ((text: string) => object)[] = [
    (text) => ({ t: 'hello', client: text }),
    (text) => ({ t: 'hello', token: text }),
    (text) => ({ t: 'auth', id: '1', token: text }),
    (text) => ({ t: 'join', id: '1', room: 'radio', link: text }),
    (text) => ({ t: 'leave', id: text, room: 'radio' }),
    (text) => ({ t: 'pub', id: '1', room: 'radio', key: text, body: { text: 'x' } }),
    (text) => ({ t: 'pub', id: '1', room: 'radio', key: 'k', body: { text } }),
    (text) => ({ t: 'pub', id: '1', room: 'radio', key: 'k', body: { text: 'x', mentions: [text] } }),
    (text) => ({ t: 'react', id: '1', room: 'radio', mid: 'x'.repeat(22), emoji: `👍${text}`, on: true }),
    (text) => ({ t: 'mod', id: '1', room: 'radio', action: 'ban', user: text }),
    (text) => ({ t: 'mod', id: '1', room: 'radio', action: 'ban', user: 'u', reason: text }),
    (text) => ({ t: 'mod', id: '1', room: 'radio', action: 'terms', blocked: [{ deep: [text] }] }),
    (text) => ({ t: 'mod', id: '1', room: 'radio', action: 'ban', [text]: 1 }),
  ];
  for (const make of frames) {
    for (const unclean of ['\ud83d', '\ude00', '\ude00\ud83d', 'a\ud800b', 'x\0']) {
      const frame = parseFrame(JSON.stringify(make(unclean)), 8192);
      assert.deepEqual([frame.t, frame.t === 'bad' && frame.code], ['bad', 'bad_request'], JSON.stringify(make(unclean)));
      assert.ok(frame.t === 'bad' && (frame.id === undefined || frame.id === '1'));
    }
  }
  // As a whole, escaped or not; and what only looks like an escape.
  for (const text of ['"\\ud83d\\ude00"', '"\ud83d\ude00"', '"\\\\ud83d"', '"\\\\u0000"']) {
    const frame = parseFrame(`{"t":"pub","id":"1","room":"radio","key":"k","body":{"text":${text}}}`, 8192);
    assert.equal(frame.t === 'pub' && frame.body.text, JSON.parse(text));
  }
  const deep = `${'{"a":'.repeat(8_000)}"\\ud800"${'}'.repeat(8_000)}`;
  assert.equal(parseFrame(`{"t":"mod","id":"1","room":"radio","action":"slow","x":${deep}}`, 8192).t, 'bad');
});

test('a body is what the reference says, and no more', () => {
  const parse = (body: unknown) => parseFrame(JSON.stringify({ t: 'pub', id: '1', room: 'radio', key: 'k', body }), 8192);
  const mid = 'A'.repeat(22);
  assert.deepEqual(parse({ text: 'x', reply: mid, mentions: ['u'] }), {
    t: 'pub',
    id: '1',
    room: 'radio',
    key: 'k',
    body: { text: 'x', reply: mid, mentions: ['u'] },
  });
  assert.equal((parse({ text: 'x'.repeat(8192) }) as { t: string }).t, 'pub');
  assert.equal((parse({ text: 'x'.repeat(8193) }) as { code?: string }).code, 'too_long');
  assert.equal((parse(JSON.parse('{"text":"x","__proto__":{"a":1}}')) as { code?: string }).code, 'bad_request');
});

test('frames are as a WebSocket parser reads them, at every size of header, several in one buffer', async () => {
  for (const sizes of [[0], [1, 125], [126, 65_535], [65_536, 5], [100, 200_000, 3]]) {
    const texts = sizes.map((size) => 'é'.repeat(size >> 1) + 'x'.repeat(size & 1));
    const receiver = new Receiver({ isServer: false, maxPayload: 1 << 24 });
    const read: string[] = [];
    receiver.on('message', (data: Buffer) => read.push(data.toString()));
    const buffer = webSocketFrames(texts);
    for (let at = 0; at < buffer.length; at += 4096) receiver.write(buffer.subarray(at, at + 4096));
    while (read.length < texts.length) await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(read, texts);
    assert.deepEqual(
      webSocketFrames(
        texts,
        texts.map((text) => Buffer.byteLength(text)),
      ),
      buffer,
    );
  }
});

test('docs/chat.md names every frame, error code and close code, and no others', async () => {
  const text = await readFile('docs/chat.md', 'utf8');
  const between = (name: string) => text.slice(text.indexOf(`<!-- ${name} -->`), text.indexOf(`<!-- /${name} -->`));
  const names = (name: string, pattern: RegExp) => [...between(name).matchAll(pattern)].map((match) => match[1]!);
  assert.deepEqual(names('errors', /^\| `(\w+)` \|/gm), Object.keys(ERROR_CODES));
  assert.deepEqual(names('closes', /^\| (\d+) \|/gm), Object.values(CLOSE).map(String));
  assert.deepEqual(names('frames', /^\| `(\w+)` \|/gm), Object.keys(SERVER_FRAMES));
});

test('docs/chat.md lists the members of every frame: npx tsx src/cli/veza.ts chat tables', async () => {
  const text = await readFile('docs/chat.md', 'utf8');
  const [start, end] = ['<!-- members -->', '<!-- /members -->'] as const;
  assert.equal(text.slice(text.indexOf(start) + start.length, text.indexOf(end)).trim(), frameTables(MOD_FRAMES));
});

/** A frame of a client with all its members, or with those alone that it must have. */
function sampleOf(schema: AnySchema, isFull: boolean): unknown {
  if (schema.const !== undefined) return schema.const;
  if (schema.anyOf) return sampleOf(schema.anyOf[0], isFull);
  switch (schema.type) {
    case 'string':
      return schema.pattern
        ? 'm'.repeat(22)
        : /emoji/.test(schema.description)
          ? '👍'
          : /slug/.test(schema.description)
            ? 'radio'
            : 'x'.repeat(schema.maxLength ?? 4);
    case 'integer':
      return schema.maximum;
    case 'boolean':
      return true;
    case 'array':
      return Array.from({ length: isFull ? schema.maxItems : 0 }, (_, n) => `${n}`);
    default:
      return Object.fromEntries(
        Object.entries(schema.properties as Record<string, AnySchema>).flatMap(([name, of]) =>
          isFull || schema.required.includes(name) ? [[name, sampleOf(of, isFull)]] : [],
        ),
      );
  }
}

/** Every way to leave out what must be there, or to be one beyond a limit. */
function* breachesOf(schema: AnySchema, whole: Record<string, unknown>): Generator<[string, unknown]> {
  for (const [name, of] of Object.entries(schema.properties as Record<string, AnySchema>)) {
    if (name === 't' || name === 'room') continue;
    if (schema.required.includes(name)) {
      const { [name]: _, ...rest } = whole;
      yield [`without ${name}`, rest];
    }
    if (of.type === 'integer') yield [`${name} too high`, { ...whole, [name]: of.maximum + 1 }];
    if (of.type === 'integer') yield [`${name} too low`, { ...whole, [name]: of.minimum - 1 }];
    if (of.maxLength) yield [`${name} too long`, { ...whole, [name]: 'x'.repeat(of.maxLength + 1) }];
    if (of.minLength) yield [`${name} empty`, { ...whole, [name]: '' }];
    if (of.maxItems) yield [`${name} too many`, { ...whole, [name]: Array.from({ length: of.maxItems + 1 }, (_, n) => `${n}`) }];
    if (of.type === 'object' && name in whole)
      for (const [what, inner] of breachesOf(of, whole[name] as Record<string, unknown>))
        yield [`${name}: ${what}`, { ...whole, [name]: inner }];
    yield [`${name} of another type`, { ...whole, [name]: of.type === 'string' ? 7 : 'x' }];
  }
}

test('what clients send is taken as docs/chat.md lists it, and one beyond its limits is not', () => {
  const parse = (frame: unknown) => parseFrame(JSON.stringify(frame), 8192);
  for (const [t, schema] of Object.entries(CLIENT_FRAMES)) {
    for (const isFull of [false, true]) assert.equal(parse(sampleOf(schema, isFull)).t, t, `${t}, full: ${isFull}`);
    for (const [what, frame] of breachesOf(schema, sampleOf(schema, true) as Record<string, unknown>))
      if (!(t === 'mod' && what === 'action too long')) assert.equal(parse(frame).t, 'bad', `${t} ${what}`);
  }
  for (const [action, schema] of Object.entries(MOD_FRAMES)) {
    for (const isFull of [false, true]) {
      const frame = { ...(sampleOf(schema, isFull) as object), action };
      assert.equal(parseModAction(frame).action, action);
    }
    for (const [what, frame] of breachesOf(schema, { ...(sampleOf(schema, true) as object), action }))
      assert.throws(() => parseModAction(frame as Record<string, unknown>), { code: 'bad_request' }, `${action} ${what}`);
  }
});

test('docs/chat-frames.json is made from the source: npx tsx src/cli/veza.ts chat frames > docs/chat-frames.json', async () => {
  assert.deepEqual(JSON.parse(await readFile('docs/chat-frames.json', 'utf8')).$defs, JSON.parse(JSON.stringify(SERVER_FRAMES)));
});
