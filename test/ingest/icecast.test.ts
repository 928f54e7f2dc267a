import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readMetadataCall } from '../../src/ingest/http/icecast.js';
import { cleanText, decodePercent, MAX_TITLE_CHARS, splitSong, titleUpdate } from '../../src/ingest/http/titles.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { BASIC, RawClient, setUp } from './http-support.js';

const call = (query: string) => `GET /admin/metadata?${query} HTTP/1.0\r\n${BASIC}User-Agent: butt 0.1.37\r\n\r\n`;

test('icecast: a metadata call reaches the gate and is answered as Icecast does', async (t) => {
  const { gate, port } = await setUp(t);
  const answer = await new RawClient(port).send(call('mount=%2Fradio&mode=updinfo&charset=UTF-8&song=Bj%C3%B6rk%20-%20J%C3%B3ga')).answer();
  assert.match(answer, /^HTTP\/1\.0 200 OK\r\nContent-Type: text\/xml.*<iceresponse>.*<return>1<\/return>/s);
  assert.deepEqual(gate.titles, [
    {
      request: { protocol: 'icecast', channel: 'radio', streamKey: 'secret', remoteAddress: '127.0.0.1', client: 'butt 0.1.37' },
      update: { artist: 'Björk', title: 'Jóga' },
    },
  ]);
});

test('icecast: an empty title changes nothing, and still needs the key', async (t) => {
  const { gate, port } = await setUp(t);
  assert.match(await new RawClient(port).send(call('mount=/radio&mode=updinfo&song=')).answer(), /^HTTP\/1\.0 200 /);
  assert.deepEqual(gate.titles, []);
  const wrong = call('mount=/radio&mode=updinfo&song=').replace(BASIC, 'Authorization: Basic c291cmNlOndyb25n\r\n');
  assert.match(await new RawClient(port).send(wrong).answer(), /^HTTP\/1\.0 401 /);
});

test('icecast: metadata calls that are wrong are refused', async (t) => {
  const { port } = await setUp(t);
  for (const [request, status] of [
    [call('mount=/radio&song=x'), 400],
    [call('mount=/radio&mode=other&song=x'), 400],
    [call('mode=updinfo&song=x'), 400],
    [call('mount=/a/b&mode=updinfo&song=x'), 400],
    [call('mount=/elsewhere&mode=updinfo&song=x'), 404],
    ['GET /admin/metadata?mount=/radio&mode=updinfo&song=x HTTP/1.0\r\n\r\n', 401],
    [call('mount=/radio&mode=updinfo&song=x').replace('GET', 'DELETE'), 405],
    [call(`mount=/radio&mode=updinfo&song=${'x'.repeat(16 * 1024)}`), 431],
  ] as const) {
    assert.match(await new RawClient(port).send(request).answer(), new RegExp(`^HTTP/1\\.0 ${status} `), request.slice(0, 80));
  }
});

const FORM = 'Content-Type: application/x-www-form-urlencoded\r\n';
const post = (body: string, { query = '', headers = FORM, length = Buffer.byteLength(body, 'latin1') } = {}) =>
  Buffer.from(`POST /admin/metadata${query} HTTP/1.1\r\nHost: x\r\n${BASIC}${headers}Content-Length: ${length}\r\n\r\n${body}`, 'latin1');

test('icecast: a metadata call that is posted as a form is read as a query is, in whatever pieces it comes', async (t) => {
  const { gate, port } = await setUp(t);
  const send = async (...pieces: Buffer[]) => {
    const client = new RawClient(port);
    for (const piece of pieces) {
      client.send(piece);
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.match(
      await client.answer(),
      /^HTTP\/1\.1 (100 Continue\r\n\r\nHTTP\/1\.1 )?200 OK\r\nContent-Type: text\/xml.*<return>1<\/return>/s,
    );
    return gate.titles.at(-1)!.update;
  };
  const whole = post('mode=updinfo&mount=%2Fradio&charset=UTF-8&song=Bj%C3%B6rk+-+J%C3%B3ga');
  const wanted = { artist: 'Björk', title: 'Jóga' };
  assert.deepEqual(await send(whole), wanted);
  assert.deepEqual(await send(...Array.from(whole, (byte) => Buffer.from([byte]))), wanted);
  assert.deepEqual(
    await send(
      post('mode=updinfo&mount=/radio&song=Caf\xe9', { headers: 'Content-type: Application/X-WWW-Form-Urlencoded; charset=utf-8\r\n' }),
    ),
    {
      title: 'Café',
    },
  );
  assert.deepEqual(
    await send(post('mode=updinfo&mount=/radio&song=%82%A0&charset=Shift_JIS', { headers: `${FORM}Expect: 100-continue\r\n` })),
    {
      title: 'あ',
    },
  );
  assert.deepEqual(await send(post('song=form', { query: '?mode=updinfo&mount=/radio&song=query' })), { title: 'form' });
  assert.deepEqual(await send(post('', { query: '?mode=updinfo&mount=/radio&song=query' })), { title: 'query' });
  const chunked = `POST /admin/metadata HTTP/1.1\r\nHost: x\r\n${BASIC}${FORM}Transfer-Encoding: chunked\r\n\r\n`;
  assert.deepEqual(await send(Buffer.from(`${chunked}1c\r\nmode=updinfo&mount=/radio&so\r\n6\r\nng=two\r\n0\r\n\r\n`)), { title: 'two' });
  assert.equal(gate.titles.length, 7);
});

test('icecast: metadata calls that are posted wrongly are refused, and change nothing', async (t) => {
  const clock = new FakeClock();
  const { gate, port } = await setUp(t, { clock });
  const good = 'mode=updinfo&mount=/radio&song=x';
  const largest = `${good}${'x'.repeat(8 * 1024 - good.length)}`;
  const head = `POST /admin/metadata HTTP/1.1\r\nHost: x\r\n${BASIC}`;
  const chunk = `1000\r\n${'x'.repeat(4096)}\r\n`;
  for (const [request, status] of [
    [post(good, { headers: '' }), 415],
    [post(good, { headers: 'Content-Type: application/json\r\n' }), 415],
    [post(good, { headers: `${FORM}Content-Encoding: gzip\r\n` }), 415],
    [post('', { headers: FORM, length: 8 * 1024 + 1 }), 413],
    [Buffer.from(`${head}${FORM}Transfer-Encoding: chunked\r\n\r\n${chunk}${chunk}1\r\nx`), 413],
    [Buffer.from(`${head}\r\n`), 411],
    [post('mount=/radio&song=x'), 400],
    [post(''), 400],
    [post(good.replace('radio', 'elsewhere')), 404],
    [Buffer.from(post(good).toString('latin1').replace(BASIC, '')), 401],
  ] as const) {
    assert.match(
      await new RawClient(port).send(request).answer(),
      new RegExp(`^HTTP/1\\.1 ${status} `),
      request.toString('latin1').slice(0, 300),
    );
  }
  const cut = new RawClient(port).send(post(good, { length: good.length + 1 }));
  const slow = new RawClient(port).send(post('mode', { length: 100 }));
  cut.socket.end();
  assert.match(await cut.answer(), /^HTTP\/1\.1 400 /);
  clock.advance(6_000);
  assert.match(await slow.answer(), /^HTTP\/1\.1 408 .*the form took longer/s);
  assert.deepEqual(gate.titles, []);
  assert.match(await new RawClient(port).send(post(largest)).answer(), /^HTTP\/1\.1 200 /);
  assert.equal(gate.titles.length, 1);
  const options = await new RawClient(port).send('OPTIONS /admin/metadata HTTP/1.1\r\nHost: x\r\n\r\n').answer();
  assert.match(options, /\r\nAllow: GET, POST, HEAD, OPTIONS\r\n/);
});

const update = (query: string) => readMetadataCall(`mode=updinfo&mount=/radio&${query}`, (path) => path.slice(1)).update;

test('icecast: titles in every way that encoders write them', () => {
  assert.deepEqual(update('song=One'), { title: 'One' });
  assert.deepEqual(update('song=A+-+B+-+C'), { artist: 'A', title: 'B - C' });
  assert.deepEqual(update('song=x&title=T&artist=A'), { artist: 'A', title: 'T' });
  assert.deepEqual(update('song=S&artist=A'), { title: 'S' });
  assert.deepEqual(update('song=first&song=second'), { title: 'first' });
  assert.deepEqual(update('song=Caf%E9'), { title: 'Café' }, 'Latin-1, told from UTF-8');
  assert.deepEqual(update('song=Caf%C3%A9'), { title: 'Café' });
  assert.deepEqual(update('song=Caf%C3%A9&charset=ISO-8859-1'), { title: 'CafÃ©' });
  assert.deepEqual(update('song=%82%A0&charset=Shift_JIS'), { title: 'あ' });
  assert.deepEqual(update('song=Caf%E9&charset=nonsense'), { title: 'Café' });
  assert.deepEqual(update('song=100%+%zz'), { title: '100% %zz' });
  assert.deepEqual(update('song=a%00b%0D%0Ac%1B%5B31m%C2%85d'), { title: 'a b c [31md'.replace('md', 'm d') });
  assert.equal(update('song=%20%0A'), undefined);
  assert.equal(update('nothing=x'), undefined);
});

test('icecast: a title is as long as it may be, and one character more is cut off', () => {
  const full = 'x'.repeat(MAX_TITLE_CHARS);
  assert.equal(titleUpdate(full)?.title, full);
  assert.equal(titleUpdate(`${full}y`)?.title, full);
  assert.equal(splitSong(`${full}y - ${full}z`)?.title.length, MAX_TITLE_CHARS);
  // A pair of surrogates is not cut in two.
  const cut = cleanText(`${'x'.repeat(MAX_TITLE_CHARS - 1)}😀`);
  assert.equal(Buffer.from(cut).toString(), cut);
});

test('icecast: any query gives a clean title or none', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 50 }), (song) => {
      assert.equal(decodePercent(encodeURIComponent(song)), song);
      const result = update(`song=${encodeURIComponent(song)}`);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
      for (const text of [result?.title, result?.artist]) assert.doesNotMatch(text ?? '', /[\u0000-\u001f\u007f-\u009f]/);
    }),
  );
});
