import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { ConfigError, loadConfig } from '../../src/config/config.js';
import { configurationReference } from '../../src/config/reference.js';

const refused = (env: Record<string, string>): string => {
  try {
    loadConfig(env);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.message;
  }
  throw new Error(`accepted: ${JSON.stringify(env)}`);
};

test('an empty environment gives the documented defaults, frozen', () => {
  const config = loadConfig({});
  assert.equal(config.port, 8080);
  assert.equal(config.ingestPort, 8000);
  assert.equal(config.rtmpPort, 1935);
  assert.equal(config.rtmpsPort, undefined);
  assert.equal(config.segmentMs, 1920);
  assert.equal(config.partMs, 320);
  assert.equal(config.publicUrl, 'http://localhost:8080');
  assert.deepEqual(config.codecsEnabled, ['aac', 'opus', 'mp3']);
  assert.equal(config.maxFileUploadBytes, 200_000_000);
  assert.deepEqual(config.warnings, []);
  assert.ok(Object.isFrozen(config) && Object.isFrozen(config.codecsEnabled));
});

test('values are converted, and an empty one counts as unset', () => {
  const config = loadConfig({
    PORT: ' 0 ',
    PUBLIC_URL: 'https://radio.example/',
    CODECS_ENABLED: 'aac, opus',
    MAX_FILE_UPLOAD: '1GiB',
    TRUST_PROXY: 'true',
    ADAPTIVE_BITRATE: 'false',
    LOG_LEVEL: '',
    ALLOWED_ORIGINS: 'https://a.example,http://b.example:8080',
    ENCRYPTION_KEY: 'ab'.repeat(32),
  });
  assert.equal(config.port, 0);
  assert.equal(config.publicUrl, 'https://radio.example');
  assert.deepEqual(config.codecsEnabled, ['aac', 'opus']);
  assert.equal(config.maxFileUploadBytes, 2 ** 30);
  assert.equal(config.trustProxyHops, 1);
  assert.equal(config.adaptiveBitrate, false);
  assert.equal(config.logLevel, 'info');
  assert.deepEqual(config.allowedOrigins, ['https://a.example', 'http://b.example:8080']);
  assert.equal(config.encryptionKey?.length, 32);
});

for (const [env, line] of [
  [{ PORT: '65536' }, 'PORT is "65536"; allowed: a whole number from 0 to 65535'],
  [{ PORT: 'tcp://10.0.0.1:80' }, 'PORT is "tcp://10.0.0.1:80"; allowed: a whole number from 0 to 65535'],
  [
    { WEBHOOK_ALLOWED_HOSTS: 'hooks.internal,10.0.0.0/33' },
    'WEBHOOK_ALLOWED_HOSTS is "hooks.internal,10.0.0.0/33"; allowed: a comma-separated list of host names, addresses and ranges such as hooks.internal,10.1.0.0/16',
  ],
  [{ LOG_LEVEL: 'verbose' }, 'LOG_LEVEL is "verbose"; allowed: one of trace, debug, info, warn, error, fatal, silent'],
  [{ METRICS_ENABLED: 'yes' }, 'METRICS_ENABLED is "yes"; allowed: true or false'],
  [{ ROLES: 'app,web' }, 'ROLES is "app,web"; allowed: a comma-separated list of app, chat, ingest, transcode'],
  [{ SEGMENT_MS: '2000' }, 'SEGMENT_MS is "2000"; allowed: a multiple of 960 from 960 to 9600'],
  [{ PART_MS: '99' }, 'PART_MS is "99"; allowed: a whole number from 100 to 1000'],
  [{ PART_MS: '960' }, 'PART_MS is "960"; allowed: less than half of SEGMENT_MS (1920)'],
  [{ PART_MS: '104' }, 'PART_MS is "104"; allowed: a length that whole frames of aac and opus fill to 85 %, such as 107'],
  [{ CODECS_ENABLED: 'mp3' }, 'CODECS_ENABLED is "mp3"; allowed: a list with aac, opus or both in it'],
  [{ WSS_PORT: '8081', TLS_CERT_FILE: 'a.pem', TLS_KEY_FILE: 'b.pem' }, 'WSS_PORT is "8081"; allowed: a port of its own, not WS_PORT'],
  [{ WSS_PORT: '8444' }, 'WSS_PORT is "8444"; allowed: only together with TLS_CERT_FILE and TLS_KEY_FILE'],
  [
    { WORKER_THREADS: '4' },
    'WORKER_THREADS is "4"; allowed: 1, or more together with REDIS_URL and DATABASE_URL, by which several processes share the rooms',
  ],
  [{ RTMPS_PORT: '1936' }, 'RTMPS_PORT is "1936"; allowed: only together with TLS_CERT_FILE and TLS_KEY_FILE'],
  [{ MAX_FILE_UPLOAD: '200 apples' }, 'MAX_FILE_UPLOAD is "200 apples"; allowed: a size from 1B to 100GB, such as 500KB, 200MB or 1GiB'],
  [{ S3_BUCKET: 'radio' }, 'S3_BUCKET is set; allowed: unset, because S3 is not supported yet'],
  [{ HTTPS_PORT: '8443' }, 'HTTPS_PORT is "8443"; allowed: only together with TLS_CERT_FILE and TLS_KEY_FILE'],
  [{ TLS_MIN_VERSION: '1.1' }, 'TLS_MIN_VERSION is "1.1"; allowed: one of 1.2, 1.3'],
  [
    { METRICS_TLS: 'true', INTERNAL_CA_FILE: 'ca.pem' },
    'METRICS_TLS is "true"; allowed: only together with INTERNAL_CA_FILE, INTERNAL_CERT_FILE and INTERNAL_KEY_FILE',
  ],
  [
    { REDIS_URL: 'http://:secret@cache' },
    'REDIS_URL is wrong (not shown, it is a secret); allowed: an address that starts with redis:// or rediss://, or several, separated by commas',
  ],
  [
    { REDIS_URL: 'redis://a:6379,redis//b:6379' },
    'REDIS_URL is wrong (not shown, it is a secret); allowed: an address that starts with redis:// or rediss://, or several, separated by commas',
  ],
  [
    { MAIL_FROM: 'Radio <radio@a.example>\r\nBcc: eve@a.example' },
    'MAIL_FROM is "Radio <radio@a.example>\\r\\nBcc: eve@a.example"; allowed: an address such as radio@example.org or Radio <radio@example.org>',
  ],
  [{ ADMIN_EMAIL: 'admin' }, 'ADMIN_EMAIL is "admin"; allowed: an e-mail address'],
  [{ REGISTRATION: 'invite' }, 'REGISTRATION is "invite"; allowed: one of open, closed'],
  [{ DEFAULT_ROLE: 'admin' }, 'DEFAULT_ROLE is "admin"; allowed: one of listener, broadcaster'],
  [{ JWT_SECRET: 'hunter2' }, 'JWT_SECRET is wrong (not shown, it is a secret); allowed: at least 32 bytes'],
  [
    { DATABASE_URL: 'mysql://root:hunter2@db' },
    'DATABASE_URL is wrong (not shown, it is a secret); allowed: an address that starts with postgres:// or postgresql://',
  ],
] as [Record<string, string>, string][]) {
  test(`refused: ${Object.entries(env).join(' ')}`, () => assert.equal(refused(env), line));
}

test('every wrong variable has its own line', () => {
  assert.deepEqual(
    refused({ PORT: 'x', LOG_LEVEL: 'x' })
      .split('\n')
      .map((line) => line.split(' ')[0]),
    ['LOG_LEVEL', 'PORT'],
  );
});

test('production needs its own key and database', () => {
  assert.match(refused({ ENVIRONMENT: 'production' }), /^ENCRYPTION_KEY is unset.*\nDATABASE_URL is unset/);
  assert.equal(
    loadConfig({ ENVIRONMENT: 'production', ENCRYPTION_KEY: 'ab'.repeat(32), DATABASE_URL: 'postgres://db/veza' }).environment,
    'production',
  );
});

test('another issuer needs an address, a name and an audience, and is none of ours', () => {
  const AUTH_JWKS_URL = 'https://id.example/keys/';
  assert.match(refused({ AUTH_JWKS_URL }), /^AUTH_ISSUER is unset.*\nAUTH_AUDIENCE is unset/);
  for (const env of [{ AUTH_ISSUER: 'https://id.example' }, { AUTH_AUDIENCE: 'veza' }])
    assert.match(refused(env), /^AUTH_JWKS_URL is unset; allowed with AUTH_ISSUER or AUTH_AUDIENCE/);
  for (const AUTH_ISSUER of ['gateway', 'http://localhost:8080'])
    assert.match(refused({ AUTH_JWKS_URL, AUTH_ISSUER, AUTH_AUDIENCE: 'veza' }), /^AUTH_ISSUER is "/);
  const PUBLIC_URL = 'https://radio.example';
  assert.match(refused({ AUTH_JWKS_URL, AUTH_ISSUER: PUBLIC_URL, AUTH_AUDIENCE: 'veza', PUBLIC_URL }), /^AUTH_ISSUER is "/);
  const config = loadConfig({ AUTH_JWKS_URL, AUTH_ISSUER: 'https://id.example/', AUTH_AUDIENCE: 'veza' });
  assert.equal(config.authJwksUrl, AUTH_JWKS_URL, 'as it was given');
  assert.equal(config.authRoleClaim, 'role');
  assert.equal(config.authPrivilegedRoles, false);
});

test('a likely slip is named; the rest of the environment is not ours', () => {
  const { warnings } = loadConfig({
    PARTMS: '107',
    SEGMENTS_MS: '960',
    'PUBLIC-URL': 'x',
    INGSET_PORT: '1',
    PATH: '/bin',
    HOSTNAME: 'h',
    HOME: '/',
  });
  assert.deepEqual(warnings, [
    'PARTMS is not a variable of Veza; did you mean PART_MS?',
    'SEGMENTS_MS is not a variable of Veza; did you mean SEGMENT_MS?',
    'PUBLIC-URL is not a variable of Veza; did you mean PUBLIC_URL?',
    'INGSET_PORT is not a variable of Veza; did you mean INGEST_PORT?',
  ]);
});

test('the reference and the package agree with the code', async () => {
  assert.equal(
    await readFile('docs/configuration.md', 'utf8'),
    configurationReference(),
    'run: npm run -s veza -- config reference > docs/configuration.md',
  );
  assert.equal(loadConfig({}).version, JSON.parse(await readFile('package.json', 'utf8')).version);
  assert.equal(loadConfig({ VERSION: '9.9.9-ours' }).version, '9.9.9-ours');
});

test('nothing but the configuration reads the environment', async () => {
  const files = (await readdir('src', { recursive: true })).filter((file) => file.endsWith('.ts') && !file.startsWith('config/'));
  assert.ok(files.length > 100);
  const readers: string[] = [];
  for (const file of files) if (/\bprocess\.env\b/.test(await readFile(join('src', file), 'utf8'))) readers.push(file);
  assert.deepEqual(readers, []);
});
