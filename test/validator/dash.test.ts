import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chunk, initSegment } from '../../src/media/cmaf.js';
import { renderMpd, renderVodMpd } from '../../src/media/dash.js';
import { framesPerSegment, mediaTimeOf } from '../../src/media/timeline.js';
import { announced, checkDash, durationMs, readMpd } from '../../src/validator/dash.js';
import { type Observation, Report, textOf } from '../../src/validator/report.js';
import { parseXml, XML_MAX_CHARS } from '../../src/validator/xml.js';
import { rendition, World } from '../media/manifest-world.js';

const BASE = 'http://radio.example/live/a/';
const renditions = ['aac-64', 'aac-128', 'opus-96'].map(rendition);

/** A live MPD over a crash until its end, with the newest segments of each moment. */
function cleanSession(): Observation[] {
  const world = new World({ renditions }).leadingGaps(6).segments(12);
  const observations: Observation[] = [];
  let atMs = 0;
  const seen = (path: string, type: string, cache: string, body: Uint8Array | string) => {
    atMs += 10;
    observations.push({
      url: new URL(path, BASE).href,
      sentMs: atMs - 5,
      atMs,
      status: 200,
      headers: { 'access-control-allow-origin': '*', 'cache-control': cache, 'content-type': type },
      body: typeof body === 'string' ? new TextEncoder().encode(body) : body,
    });
  };
  const look = () => {
    const mpd = renderMpd(world.timeline(), renditions, { utcTimingUrl: '/time', windowSamples: 600 * 48_000 });
    seen('manifest.mpd', 'application/dash+xml', 'max-age=1', mpd);
    for (const segment of announced(readMpd(mpd)!, `${BASE}manifest.mpd`, world.nowMs(), 2)) {
      const rung = rendition(segment.representation);
      seen(segment.initUrl, 'audio/mp4', 'max-age=31536000, immutable', initSegment(rung));
      const mediaTime = mediaTimeOf(world.timeline(), segment.number);
      const frames = Array<Uint8Array>(framesPerSegment(world.grid, rung.codec)).fill(new Uint8Array(100));
      const bytes = chunk({ codec: rung.codec, sequence: segment.number, mediaTime, frames });
      seen(segment.url, 'audio/mp4', 'max-age=31536000, immutable', bytes);
    }
  };
  look();
  seen('/time', 'text/plain', 'no-store', '2030-01-01T00:00:30.123Z');
  world.segments(3).publish(320);
  look();
  world.crash(2000).segments(2);
  look();
  world.end();
  look();
  return observations;
}

const clean = cleanSession();

function breaches(observations: readonly Observation[]) {
  const report = new Report();
  checkDash(observations, report);
  return report.breaches;
}

type Edit = (observations: Observation[]) => Observation[];
const isMpd = (observation: Observation) => observation.url.endsWith('.mpd');
const edit =
  (change: (text: string) => string, which = (_: Observation, index: number) => index >= 0): Edit =>
  (all) =>
    all.map((o, index) => (isMpd(o) && which(o, index) ? { ...o, body: new TextEncoder().encode(change(textOf(o))) } : o));
const later = (_: Observation, index: number) => index > 0;
const change =
  (fragment: string, fields: (o: Observation) => Partial<Observation>): Edit =>
  (all) =>
    all.map((o) => (o.url.includes(fragment) ? { ...o, ...fields(o) } : o));

const BROKEN: readonly (readonly [rule: string, how: string, edit: Edit])[] = [
  ['D1', 'not well-formed', edit((mpd) => mpd.replace('</Period>', ''))],
  ['D1', 'not an MPD', edit(() => '<html></html>')],
  ['D1', 'no Period', edit((mpd) => mpd.replace(/<Period [\s\S]*<\/Period>/, ''))],
  ['D2', 'no availabilityStartTime', edit((mpd) => mpd.replace(/availabilityStartTime="[^"]*"/, ''))],
  ['D2', 'availabilityStartTime moves', edit((mpd) => mpd.replace('StartTime="2030', 'StartTime="2031'), later)],
  ['D3', 'no UTCTiming', edit((mpd) => mpd.replace(/<UTCTiming [^>]*>/g, ''))],
  ['D3', 'the clock answers 404', change('/time', () => ({ status: 404 }))],
  ['D3', 'the clock says no date', change('/time', () => ({ body: new TextEncoder().encode('soon') }))],
  ['D4', 'addressed by time', edit((mpd) => mpd.replaceAll('$Number$', '$Time$'))],
  ['D4', 'no startNumber', edit((mpd) => mpd.replaceAll(/startNumber="\d+"/g, ''))],
  ['D5', 'no availabilityTimeOffset', edit((mpd) => mpd.replaceAll(/availabilityTimeOffset="[^"]*"/g, ''))],
  [
    'D5',
    'an offset as long as the segment',
    edit((mpd) => mpd.replaceAll('availabilityTimeOffset="1.4"', 'availabilityTimeOffset="1.92"')),
  ],
  ['D5', 'complete', edit((mpd) => mpd.replaceAll('availabilityTimeComplete="false"', ''))],
  ['D6', 'no latency', edit((mpd) => mpd.replace(/<Latency [^>]*>/, ''))],
  ['D6', 'no rate', edit((mpd) => mpd.replace(/<PlaybackRate [^>]*>/, ''))],
  ['D7', 'no ProducerReferenceTime', edit((mpd) => mpd.replaceAll(/<ProducerReferenceTime .*?<\/ProducerReferenceTime>/g, ''))],
  [
    'D7',
    'it is a second off',
    edit((mpd) => mpd.replaceAll(/presentationTime="(\d+)"/g, (_, time) => `presentationTime="${Number(time) + 2 ** 26}"`)),
  ],
  ['D8', 'live without updates', edit((mpd) => mpd.replace(/minimumUpdatePeriod="[^"]*"/, ''))],
  [
    'D8',
    'ended with updates',
    edit((mpd) => mpd.replace('mediaPresentationDuration', 'minimumUpdatePeriod="PT2S" mediaPresentationDuration')),
  ],
  ['D9', 'no explicit start', edit((mpd) => mpd.replace(/(<Period [^>]*)start="[^"]*"/, '$1'))],
  ['D9', 'an id twice', edit((mpd) => mpd.replaceAll(/<Period id="[^"]*"/g, '<Period id="p"'))],
  ['D9', 'overlap', edit((mpd) => mpd.replace(/duration="PT(\d)/, 'duration="PT9$1'))],
  ['D10', 'startNumber changes', edit((mpd) => mpd.replaceAll('startNumber="1006"', 'startNumber="1005"'), later)],
  ['D10', 'a Period is called otherwise', edit((mpd) => mpd.replaceAll('<Period id="run0', '<Period id="again'), later)],
  ['D10', 'it goes on after its end', (all) => [...all, all[0]!]],
  [
    'D11',
    'codecs together',
    edit((mpd) => mpd.replaceAll(/<\/AdaptationSet>\s*<AdaptationSet id="2"[\s\S]*?<SegmentTemplate [^>]*>/g, '')),
  ],
  ['D11', 'no codecs', edit((mpd) => mpd.replace(/ codecs="opus"/, ''))],
  ['D11', 'MP3', edit((mpd) => mpd.replace(/mp4a\.40\.2/, 'mp4a.40.34'))],
  ['D12', 'no InbandEventStream', edit((mpd) => mpd.replaceAll(/<InbandEventStream [^>]*>/g, ''))],
  ['D13', 'a segment answers 404', change('run1-10', () => ({ status: 404, headers: {} }))],
  ['D13', 'an init segment answers 404', change('run1-init', () => ({ status: 404, headers: {} }))],
  ['D13', 'tfdt is elsewhere', edit((mpd) => mpd.replaceAll('presentationTimeOffset="', 'presentationTimeOffset="1'))],
  ['33', 'shorter than announced', edit((mpd) => mpd.replaceAll('duration="128849019"', 'duration="128850417"'))],
  ['H1', 'an MPD that is cached for an hour', change('.mpd', (o) => ({ headers: { ...o.headers, 'cache-control': 'max-age=3600' } }))],
  ['H3', 'a wrong type', change('.mpd', (o) => ({ headers: { ...o.headers, 'content-type': 'text/xml' } }))],
];

test('a clean live MPD, over a crash and to its end, breaks no rule', () => {
  assert.deepEqual(breaches(clean), []);
  assert.equal(clean.filter(isMpd).length, 4);
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

test('every rule from D1 to D13 is proven', () => {
  const proven = new Set(BROKEN.map(([rule]) => rule));
  for (let rule = 1; rule <= 13; rule++) assert.ok(proven.has(`D${rule}`), `rule D${rule}`);
});

test('a recording breaks no rule', () => {
  const world = new World({ renditions }).leadingGaps(6).segments(5).crash(500).segments(3).end();
  const mpd = renderVodMpd(world.timeline(), renditions, { uriPrefix: '/live/a/' });
  const observation = { ...clean[0]!, body: new TextEncoder().encode(mpd) };
  assert.deepEqual(breaches([observation]), []);
  const segments = announced(readMpd(mpd)!, `${BASE}x.mpd`, 0, 1000);
  assert.equal(segments.filter((segment) => segment.representation === 'opus-96').length, 8);
  assert.equal(segments.at(-1)?.url, `${BASE}opus-96/run1-1014.m4s`);
});

test('durations and XML: what is read and what is refused', () => {
  assert.equal(durationMs('P1DT1H1M1.5S'), 90_061_500);
  for (const bad of [undefined, '', 'P', '1S', 'PT-1S', 'P1Y']) assert.ok(Number.isNaN(durationMs(bad)), String(bad));
  const read = parseXml('<?xml version="1.0"?><!-- > --><a b="x &amp; &#65;>" c=\'"\'><d/>t</a>');
  assert.ok(typeof read !== 'string');
  assert.deepEqual([read.attributes.get('b'), read.attributes.get('c'), read.children.length, read.text], ['x & A>', '"', 1, 't']);
  for (const bad of ['', 'x', '<a>', '<a></b>', '<a/><b/>', '<a b="1" b="2"/>', '<!DOCTYPE a><a/>', '</a>', '<a', '<a b="', '<1/>']) {
    assert.equal(typeof parseXml(bad), 'string', bad);
  }
  assert.equal(typeof parseXml('<a>'.repeat(40) + '</a>'.repeat(40)), 'string');
  assert.equal(typeof parseXml(`<a>${' '.repeat(XML_MAX_CHARS)}</a>`), 'string');
});
