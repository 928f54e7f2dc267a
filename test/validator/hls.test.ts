import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkHls } from '../../src/validator/hls.js';
import { PLAYLIST_MAX_CHARS, PLAYLIST_MAX_LINES, parsePlaylist } from '../../src/validator/playlist.js';
import { type Observation, Report, textOf } from '../../src/validator/report.js';
import { BASE, cleanSession } from '../media/hls-session.js';

const clean = cleanSession();

function breaches(observations: readonly Observation[]) {
  const report = new Report();
  checkHls(observations, report);
  return report.breaches;
}

type Edit = (observations: Observation[]) => Observation[];
const text = (observation: Observation, change: (text: string) => string): Observation => {
  const body = new TextEncoder().encode(change(textOf(observation)));
  return { ...observation, body, headers: { ...observation.headers, 'content-length': String(body.byteLength) } };
};
const isPlaylist = (observation: Observation) => observation.url.includes('/index.m3u8') && observation.status === 200;
/** Changes the text of all playlists, or of those that `which` picks. */
const edit =
  (change: (text: string) => string, which: (observation: Observation, index: number) => boolean = isPlaylist): Edit =>
  (observations) =>
    observations.map((observation, index) => (which(observation, index) ? text(observation, change) : observation));
const change =
  (which: (observation: Observation) => boolean, fields: (observation: Observation) => Partial<Observation>): Edit =>
  (observations) =>
    observations.map((observation) => (which(observation) ? { ...observation, ...fields(observation) } : observation));
const of = (fragment: string) => (observation: Observation) => observation.url.includes(fragment);
/** The last whole playlist of a rendition before it ends. */
const lastLive = (fragment: string) => {
  const found = clean.findLast(
    (observation) => isPlaylist(observation) && observation.url.includes(fragment) && !/ENDLIST|SKIP:/.test(textOf(observation)),
  );
  return (observation: Observation) => observation.url === found?.url && observation.sentMs === found.sentMs;
};
const master = of('master.m3u8');
const bytes = (change: (body: Buffer) => Buffer | number) => (observation: Observation) => {
  const body = Buffer.from(observation.body);
  const changed = change(body);
  return { body: typeof changed === 'number' ? body : changed };
};
/** Writes over the type of the first box of that name. */
const rename = (from: string, to: string) =>
  bytes((body) => {
    const at = body.indexOf(from);
    if (at >= 0) body.write(to, at, 'latin1');
    return body;
  });

/** One way, or several, to break each rule. */
const BROKEN: readonly (readonly [rule: string, how: string, edit: Edit])[] = [
  ['1', 'EXTM3U is not first', edit((playlist) => `\n${playlist}`)],
  ['1', 'VERSION twice', edit((playlist) => playlist.replace('#EXT-X-TARGET', '#EXT-X-VERSION:6\n#EXT-X-TARGET'))],
  ['1', 'VERSION too high', edit((playlist) => playlist.replace('VERSION:6', 'VERSION:9'))],
  ['1', 'VERSION too low for SKIP', edit((playlist) => playlist.replace('VERSION:9', 'VERSION:6'))],
  ['2', 'TARGETDURATION changes', edit((playlist) => playlist.replace('DURATION:2\n', 'DURATION:3\n'), lastLive('aac-64'))],
  ['2', 'PART-TARGET changes', edit((playlist) => playlist.replace('TARGET=0.32', 'TARGET=0.33'), lastLive('opus-96'))],
  ['2', 'a segment above TARGETDURATION', edit((playlist) => playlist.replaceAll('EXTINF:1.92', 'EXTINF:2.6'))],
  [
    '3',
    'PLAYLIST-TYPE on a sliding list',
    edit((playlist) => playlist.replace('#EXT-X-MEDIA', '#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-MEDIA')),
  ],
  ['4', 'a listed segment changes', edit((playlist) => playlist.replace(/(run0-1033)\.m4s/, '$1x.m4s'), lastLive('aac-64'))],
  ['4', 'a part changes', edit((playlist) => playlist.replace(/"(run1-\d+\.0)\.m4s"/, '"$1x.m4s"'), lastLive('opus-96'))],
  ['4', 'the end is cut off', edit((playlist) => playlist.slice(0, -20), lastLive('aac-64'))],
  ['4', 'fewer bytes than announced', change(lastLive('aac-64'), (o) => ({ headers: { ...o.headers, 'content-length': '99999' } }))],
  ['5', 'MEDIA-SEQUENCE falls', edit((playlist) => playlist.replace(/SEQUENCE:10\d\d/, 'SEQUENCE:900'), lastLive('opus-96'))],
  [
    '6',
    'fewer than six segments',
    edit((playlist) => playlist.replace(/(#EXT-X-GAP\n)?#EXTINF[^\n]*\n[^\n]*-10[0-2]\d\.mp3\n/g, ''), of('mp3-128/index')),
  ],
  [
    '7',
    'a part comes late',
    (all) => {
      const late = all.findIndex((o) => o.url.includes('opus-96/index.m3u8?_HLS_msn=1035&_HLS_part=3'));
      return all.map((o, i) => (i < late ? o : { ...o, sentMs: o.sentMs + (i > late ? 500 : 0), atMs: o.atMs + 500 }));
    },
  ],
  ['7', 'a segment comes late', (all) => all.map((o, i) => (i > 40 ? { ...o, sentMs: o.sentMs + 9000, atMs: o.atMs + 9000 } : o))],
  ['8', 'a removed segment is gone at once', change(of('run0-1007.m4s'), gone)],
  ['9', 'DISCONTINUITY without MAP', edit((playlist) => playlist.replace(/(#EXT-X-DISCONTINUITY\n)#EXT-X-MAP[^\n]*\n/, '$1'))],
  ['9', 'MAP changes without DISCONTINUITY', edit((playlist) => playlist.replace('#EXT-X-DISCONTINUITY\n', ''))],
  [
    '9',
    'a discontinuity elsewhere in one rendition',
    edit((playlist) => playlist.replace('DISCONTINUITY-SEQUENCE:7', 'DISCONTINUITY-SEQUENCE:6'), of('opus-96/index')),
  ],
  ['10', 'no DISCONTINUITY-SEQUENCE', edit((playlist) => playlist.replace(/#EXT-X-DISCONTINUITY-SEQUENCE[^\n]*\n/, ''))],
  ['11', 'no MAP', edit((playlist) => playlist.replace(/#EXT-X-MAP[^\n]*\n/g, ''))],
  ['11', 'MAP after the first segment', edit((playlist) => playlist.replace(/(#EXT-X-MAP[^\n]*\n)([\s\S]*?\.m4s\n)/, '$2$1'))],
  ['12', 'no PROGRAM-DATE-TIME', edit((playlist) => playlist.replace(/#EXT-X-PROGRAM[^\n]*\n/g, ''))],
  [
    '12',
    'PROGRAM-DATE-TIME off by a second',
    edit(
      (playlist) => playlist.replace(/(TIME:2030-01-01T00:00:)(\d\d)/, (_, a, b) => `${a}${String((Number(b) + 1) % 60).padStart(2, '0')}`),
      lastLive('opus-96'),
    ),
  ],
  ['13', 'a listed segment answers 404', change(of('run0-1034.m4s'), gone)],
  ['13', 'an init segment answers 404', change(of('run1-init.mp4'), gone)],
  [
    '14',
    'ENDLIST is taken back',
    (all) => all.map((o, i) => (i === all.length - 2 ? text(o, (t) => t.replace('#EXT-X-ENDLIST\n', '')) : o)),
  ],
  ['15', 'an id twice', edit((playlist) => playlist.replace(/(#EXT-X-DATERANGE[^\n]*\n)/, '$1$1'))],
  ['15', 'an attribute changes', edit((playlist) => playlist.replace('X-TITLE="First"', 'X-TITLE="Frist"'), lastLive('aac-64'))],
  ['15', 'missing in one rendition', edit((playlist) => playlist.replace(/#EXT-X-DATERANGE[^\n]*\n/g, ''), of('opus-96/index'))],
  ['16', 'a part above the target', edit((playlist) => playlist.replace('DURATION=0.32', 'DURATION=0.4'))],
  ['16', 'a part below 85 %', edit((playlist) => playlist.replace('DURATION=0.32', 'DURATION=0.2'))],
  ['17', 'parts do not add up', edit((playlist) => playlist.replace('DURATION=0.32', 'DURATION=0.31'))],
  ['18', 'a part without INDEPENDENT', edit((playlist) => playlist.replace('INDEPENDENT=YES,', ''))],
  [
    '19',
    'old parts are still listed',
    edit((playlist) =>
      playlist.replace(/(#EXTINF[^\n]*\n(run\d-10[12]\d)\.m4s)/g, '#EXT-X-PART:DURATION=1.92,INDEPENDENT=YES,URI="$2.0.m4s"\n$1'),
    ),
  ],
  ['19', 'parts leave too early', edit((playlist) => playlist.replace(/#EXT-X-PART:[^\n]*run1-1038\.[^\n]*\n/g, ''), lastLive('opus-96'))],
  ['19', 'a part that left the list is gone at once', change(of('run0-1034.5.m4s'), gone)],
  ['20', 'no SERVER-CONTROL', edit((playlist) => playlist.replace(/#EXT-X-SERVER-CONTROL[^\n]*\n/, ''))],
  ['20', 'PART-HOLD-BACK too small', edit((playlist) => playlist.replace('PART-HOLD-BACK=0.96', 'PART-HOLD-BACK=0.64'))],
  ['20', 'HOLD-BACK too small', edit((playlist) => playlist.replace(',HOLD-BACK=6', ',HOLD-BACK=4'))],
  ['20', 'different in one rendition', edit((playlist) => playlist.replace(',HOLD-BACK=6', ',HOLD-BACK=7'), of('opus-96/index'))],
  ['20', 'CAN-SKIP-DATERANGES', edit((playlist) => playlist.replace('CAN-SKIP-UNTIL', 'CAN-SKIP-DATERANGES=YES,CAN-SKIP-UNTIL'))],
  ['21', 'skips more than the client had', edit((playlist) => playlist.replace(/SKIPPED-SEGMENTS=\d+/, 'SKIPPED-SEGMENTS=99'))],
  [
    '21',
    'skips within the boundary',
    edit((playlist) => playlist.replace(/(SKIP:[^\n]*)\n#EXTINF[^\n]*\n[^\n]*\n#EXTINF[^\n]*\n[^\n]*\n/, '$1\n')),
  ],
  ['21', 'SKIP that was not asked for', change(of('_HLS_skip'), (o) => ({ url: o.url.replace('&_HLS_skip=YES', '') }))],
  ['22', 'no hint', edit((playlist) => playlist.replace(/#EXT-X-PRELOAD[^\n]*\n/, ''))],
  ['22', 'two hints', edit((playlist) => playlist.replace(/(#EXT-X-PRELOAD[^\n]*\n)/, '$1$1'))],
  ['22', 'a hint of something else', edit((playlist) => playlist.replace(/(#EXT-X-PRELOAD[^\n]*URI=")[^\n]*\n/, '$1run0-1.0.m4s"\n'))],
  [
    '22',
    'a hint after the end',
    edit((playlist) => playlist.replace('#EXT-X-ENDLIST', '#EXT-X-PRELOAD-HINT:TYPE=PART,URI="x.m4s"\n#EXT-X-ENDLIST')),
  ],
  ['23', 'no report', edit((playlist) => playlist.replace(/#EXT-X-RENDITION[^\n]*\n/, ''))],
  ['23', 'a report without LAST-PART', edit((playlist) => playlist.replace(/,LAST-PART=\d+/, ''))],
  [
    '23',
    'a report of what is not there yet',
    edit((playlist) => playlist.replace(/LAST-MSN=(\d+)/, (_, n) => `LAST-MSN=${Number(n) + 1}`)),
  ],
  ['23', 'a report that is behind', edit((playlist) => playlist.replace(/LAST-MSN=(\d+)/, (_, n) => `LAST-MSN=${Number(n) - 2}`))],
  [
    '24',
    'answered too early',
    change(
      (o) => /_HLS_msn=1035&_HLS_part=3/.test(o.url),
      (o) => ({ url: o.url.replace('part=3', 'part=5') }),
    ),
  ],
  ['25', 'held though it was there', change(of('_HLS_msn=3&'), (o) => ({ sentMs: o.sentMs - 4000 }))],
  ['25', 'refused though it was there', change(of('_HLS_msn=3&'), refused)],
  [
    '26',
    'part without msn is taken',
    change(
      (o) => o.url.endsWith('?_HLS_part=1'),
      () => ({ status: 200, body: plain() }),
    ),
  ],
  ['26', 'not an integer is taken', change(of('_HLS_msn=x'), () => ({ status: 200, body: plain() }))],
  [
    '26',
    'far ahead is taken',
    change(
      (o) => o.status === 400 && /_HLS_msn=10\d\d$/.test(o.url),
      () => ({ status: 200, body: plain() }),
    ),
  ],
  [
    '26',
    'a part far ahead is taken',
    change(
      (o) => o.status === 400 && /_HLS_part=\d\d$/.test(o.url),
      () => ({ status: 200, body: plain() }),
    ),
  ],
  ['26', 'what is in reach is refused', change((o) => /opus.*_HLS_msn=1035&_HLS_part=3/.test(o.url), refused)],
  ['27', 'held for ever', (all) => all.map((o) => (/opus.*_HLS_msn=1035&_HLS_part=3/.test(o.url) ? { ...o, atMs: o.atMs + 20_000 } : o))],
  [
    '27',
    '503 too early',
    change(
      (o) => /opus.*_HLS_msn=1035&_HLS_part=3/.test(o.url),
      (o) => ({ ...refused(o), status: 503 }),
    ),
  ],
  [
    '28',
    'no answer after clients went away',
    (all) => all.map((o, i) => (all[i - 1]?.abandoned ? { ...o, status: 503, headers: { ...o.headers, 'cache-control': 'no-store' } } : o)),
  ],
  ['29', 'a segment above BANDWIDTH', edit((playlist) => playlist.replace(/:BANDWIDTH=\d+/, ':BANDWIDTH=60000'), master)],
  [
    '29',
    'the mean above AVERAGE-BANDWIDTH',
    edit((playlist) => playlist.replace(/AVERAGE-BANDWIDTH=\d+/, 'AVERAGE-BANDWIDTH=60000'), master),
  ],
  [
    '29',
    'BANDWIDTH changes',
    (all) => all.map((o, i) => (i === all.length - 1 ? text(o, (t) => t.replace(/:BANDWIDTH=\d/, ':BANDWIDTH=8')) : o)),
  ],
  ['30', 'no CODECS', edit((playlist) => playlist.replace(/CODECS="[^"]*",/, ''), master)],
  ['30', 'RESOLUTION', edit((playlist) => playlist.replace('SCORE', 'RESOLUTION=1x1,SCORE'), master)],
  ['31', 'a variant twice', edit((playlist) => playlist.replace('opus-96/', 'aac-64/'), master)],
  [
    '31',
    'a name twice',
    edit((playlist) => `${playlist}${'#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="g",NAME="n",DEFAULT=YES\n'.repeat(2)}`, master),
  ],
  ['32', 'no cmfc', change(of('init.mp4'), rename('cmfc', 'xxxx'))],
  ['32', 'no mvex', change(of('init.mp4'), rename('mvex', 'free'))],
  [
    '32',
    'a duration',
    change(
      of('init.mp4'),
      bytes((body) => body.writeUInt32BE(7, body.indexOf('mvhd') + 4 + 16)),
    ),
  ],
  ['33', 'no tfdt', change(of('.m4s'), rename('tfdt', 'free'))],
  [
    '33',
    'no default-base-is-moof',
    change(
      of('.m4s'),
      bytes((body) => body.writeUInt8(0, body.indexOf('tfhd') + 5)),
    ),
  ],
  [
    '33',
    'not contiguous',
    change(
      of('run1-1038.m4s'),
      bytes((body) => body.writeUInt32BE(5, body.indexOf('tfdt') + 12)),
    ),
  ],
  [
    '33',
    'cut off',
    change(
      of('run1-1038.m4s'),
      bytes((body) => body.subarray(0, -10)),
    ),
  ],
  ['H1', 'a segment that is cached for a second', change(of('.m4s'), (o) => ({ headers: { ...o.headers, 'cache-control': 'max-age=1' } }))],
  [
    'H1',
    'a live playlist that is cached for an hour',
    change(of('index.m3u8'), (o) => ({ headers: { ...o.headers, 'cache-control': 'max-age=3600' } })),
  ],
  [
    'H1',
    'an error that is cached',
    change(
      (o) => o.status === 400,
      (o) => ({ headers: { ...o.headers, 'cache-control': 'max-age=1' } }),
    ),
  ],
  [
    'H2',
    'no CORS',
    change(
      () => true,
      ({ headers: { 'access-control-allow-origin': _, ...headers } }) => ({ headers }),
    ),
  ],
  ['H3', 'a wrong type', change(of('.m4s'), (o) => ({ headers: { ...o.headers, 'content-type': 'video/mp4' } }))],
  ['H4', 'compressed without Vary', change(isPlaylist, (o) => ({ headers: { ...o.headers, 'content-encoding': 'gzip' } }))],
];

function gone(o: Observation): Partial<Observation> {
  return { status: 404, body: new Uint8Array(), headers: { ...o.headers, 'cache-control': 'no-store', 'content-length': '0' } };
}
function refused(o: Observation): Partial<Observation> {
  return { ...gone(o), status: 400 };
}
function plain(): Uint8Array {
  return clean.findLast((o) => o.url === `${BASE}aac-64/index.m3u8` && !textOf(o).includes('ENDLIST'))!.body;
}

test('a clean broadcast breaks no rule', () => {
  assert.deepEqual(breaches(clean), []);
});

for (const [rule, how, broken] of BROKEN) {
  test(`rule ${rule}: ${how}`, () => {
    const found = breaches(broken([...clean]));
    assert.ok(
      found.some((breach) => breach.rule === rule),
      `not caught; found ${JSON.stringify(found.slice(0, 5))}`,
    );
  });
}

test('every rule from 1 to 33 is proven', () => {
  const proven = new Set(BROKEN.map(([rule]) => rule));
  for (let rule = 1; rule <= 33; rule++) assert.ok(proven.has(String(rule)), `rule ${rule}`);
});

test('a playlist past the limits is named, not read', () => {
  assert.match(parsePlaylist(`#EXTM3U\n${'#\n'.repeat(PLAYLIST_MAX_LINES)}`).errors.join(), /more than \d+ lines/);
  assert.match(parsePlaylist(`#EXTM3U\n${'x'.repeat(PLAYLIST_MAX_CHARS)}`).errors.join(), /longer than/);
});

test('whatever bytes come, checking ends with breaches, not with an exception', () => {
  for (const fill of [0, 1, 0x7f, 0xff]) {
    const garbage = clean.map((o) => ({ ...o, body: new Uint8Array(400).fill(fill) }));
    assert.ok(breaches(garbage).length > 0);
  }
  for (let cut = 1; cut < 1200; cut += 13) breaches(clean.slice(0, 60).map((o) => ({ ...o, body: o.body.subarray(0, -cut) })));
});
