import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readMetadataCall } from '../../src/ingest/http/icecast.js';
import { cleanText, decodePercent, MAX_TITLE_CHARS, splitSong, titleUpdate } from '../../src/ingest/http/titles.js';
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
