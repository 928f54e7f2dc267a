import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError, loadConfig } from '../../src/config/config.js';

const problem = (env: Record<string, string>, text: RegExp) =>
  assert.throws(
    () => loadConfig(env),
    (error) => error instanceof ConfigError && text.test(error.message) && !error.message.includes('\n'),
  );

test('a header for countries is believed behind a proxy of ours alone', () => {
  problem({ COUNTRY_HEADER: 'CF-IPCountry' }, /^COUNTRY_HEADER is set; allowed: only together with TRUST_PROXY/);
  problem({ COUNTRY_HEADER: 'CF IPCountry', TRUST_PROXY: '1' }, /^COUNTRY_HEADER/);
  assert.equal(loadConfig({ COUNTRY_HEADER: 'CF-IPCountry', TRUST_PROXY: '1' }).countryHeader, 'cf-ipcountry');
});

test('CloudFront wants its key, the key’s id and the address of the CDN', () => {
  const all = { CLOUDFRONT_KEY_PAIR_ID: 'K1', CLOUDFRONT_PRIVATE_KEY_FILE: '/key.pem', CDN_BASE_URL: 'https://cdn.example' };
  assert.equal(loadConfig(all).cloudFrontKeyPairId, 'K1');
  for (const [name] of Object.entries(all))
    problem({ ...all, [name]: '' }, /^CLOUDFRONT_KEY_PAIR_ID, CLOUDFRONT_PRIVATE_KEY_FILE: .*CDN_BASE_URL/);
});
