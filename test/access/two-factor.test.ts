import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { after, before, beforeEach, describe, test } from 'node:test';
import { RateLimits } from '../../src/access/limits/rate-limits.js';
import { base32, codeOf, STEP_MS, stepAt, stepOf } from '../../src/access/second-factor/totp.js';
import { TwoFactor } from '../../src/access/second-factor/two-factor.js';
import { openVault, type Vault } from '../../src/access/vault.js';
import type { Database } from '../../src/backing/database/database.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { openTestDatabase } from '../support/database.js';

let database: Database;
let clock: FakeClock;
let vault: Vault;
let twoFactor: TwoFactor;
let account: { id: string; email: string };

before(async () => {
  database = await openTestDatabase();
});
after(async () => {
  vault.stop();
  await database.stop();
});
beforeEach(async () => {
  clock = new FakeClock();
  vault?.stop();
  await database.query('delete from accounts');
  await database.query('delete from encryption_keys');
  vault = await openVault({ database, masterKey: randomBytes(32), clock, log: silentLog });
  twoFactor = new TwoFactor({ database, vault, clock, tries: new RateLimits({ clock, log: silentLog }), issuer: 'radio.example' });
  account = await newAccount();
});

async function newAccount(): Promise<{ id: string; email: string }> {
  const id = randomUUID();
  await database.query('insert into accounts (id, email, email_key, name) values ($1, $2, $2, $3)', [id, `${id}@example.org`, 'Ada']);
  return { id, email: `${id}@example.org` };
}

/** RFC 4648 6, from what the user is shown. */
function decoded(text: string): Buffer {
  const bits = [...text].map((letter) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(letter).toString(2).padStart(5, '0')).join('');
  return Buffer.from((bits.match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2)));
}

/** An account whose app is set up; `code` is what the app shows `steps` from now. */
async function withApp() {
  const secret = decoded((await twoFactor.begin(account)).secret);
  const code = (steps = 0) => codeOf(secret, stepAt(clock.wallMs()) + steps);
  const recoveryCodes = await twoFactor.confirm(account.id, code());
  clock.advance(STEP_MS);
  return { secret, code, recoveryCodes };
}
const wrongOf = (right: string) => (right === '000000' ? '000001' : '000000');

describe('codes of an app', () => {
  test('the vectors of RFC 6238, appendix B', () => {
    const secret = Buffer.from('12345678901234567890');
    for (const [seconds, code] of [
      [59, '287082'],
      [1111111109, '081804'],
      [1111111111, '050471'],
      [1234567890, '005924'],
      [2000000000, '279037'],
      [20000000000, '353130'],
    ] as const) {
      assert.equal(codeOf(secret, stepAt(seconds * 1000)), code);
      assert.equal(stepOf(secret, code, seconds * 1000), Math.floor(seconds / 30));
    }
  });

  test('one step either way, and not two', () => {
    const secret = randomBytes(20);
    for (const [steps, isTaken] of [
      [-2, false],
      [-1, true],
      [0, true],
      [1, true],
      [2, false],
    ] as const) {
      assert.equal(stepOf(secret, codeOf(secret, 1000 + steps), 1000 * STEP_MS) !== undefined, isTaken, String(steps));
    }
    for (const code of ['', '12345', '1234567', 'abcdef', '١٢٣٤٥٦']) assert.equal(stepOf(secret, code, 0), undefined);
  });

  test('base32 as in RFC 4648, 10, without padding', () => {
    assert.deepEqual(
      ['', 'f', 'fo', 'foo', 'foob', 'fooba', 'foobar'].map((text) => base32(Buffer.from(text))),
      ['', 'MY', 'MZXQ', 'MZXW6', 'MZXW6YQ', 'MZXW6YTB', 'MZXW6YTBOI'],
    );
  });

  test('a secret counts once a code of it was right', async () => {
    const { secret, uri } = await twoFactor.begin(account);
    assert.match(secret, /^[A-Z2-7]{32}$/);
    assert.equal(
      uri,
      `otpauth://totp/radio.example:${encodeURIComponent(account.email)}?secret=${secret}&issuer=radio.example&algorithm=SHA1&digits=6&period=30`,
    );
    const code = codeOf(decoded(secret), stepAt(clock.wallMs()));
    assert.equal(await twoFactor.isOn(account.id), false);
    assert.equal(await twoFactor.check(account.id, code), false, 'before it is confirmed it opens nothing');
    await assert.rejects(twoFactor.confirm(account.id, wrongOf(code)), { code: 'invalid_credentials' });
    assert.equal(await twoFactor.isOn(account.id), false);
    const recoveryCodes = await twoFactor.confirm(account.id, `${code.slice(0, 3)} ${code.slice(3)}`);
    assert.equal(recoveryCodes.length, 10);
    assert.deepEqual(await twoFactor.status(account.id), { totp: true, recoveryCodesLeft: 10 });
    assert.equal(await twoFactor.check(account.id, code), false, 'the one that confirmed it is used up');
    await assert.rejects(twoFactor.begin(account), { code: 'conflict' });
    await assert.rejects(twoFactor.confirm(account.id, code), { code: 'conflict' });
  });

  test('the secret is not in the database as it is, and of another account it does not open', async () => {
    const { secret } = await withApp();
    const { rows } = await database.query<{ sealed_totp: Buffer }>('select sealed_totp from accounts where id = $1', [account.id]);
    assert.ok(!rows[0]!.sealed_totp.includes(secret));
    const other = await newAccount();
    await database.query('update accounts set sealed_totp = $2, totp_confirmed_at = now() where id = $1', [other.id, rows[0]!.sealed_totp]);
    await assert.rejects(twoFactor.check(other.id, codeOf(secret, stepAt(clock.wallMs()))), /does not open/);
  });

  test('each code is good once, and none from before it', async () => {
    const { code } = await withApp();
    assert.equal(await twoFactor.check(account.id, code()), true);
    assert.equal(await twoFactor.check(account.id, code()), false);
    clock.advance(STEP_MS);
    assert.equal(await twoFactor.check(account.id, code(1)), true, 'a clock that is ahead');
    assert.equal(await twoFactor.check(account.id, code()), false, 'an earlier one than that which was taken');
    clock.advance(2 * STEP_MS);
    assert.equal(await twoFactor.check(account.id, code(-1)), false, 'the step that was taken, from the other side of the window');
    assert.equal(await twoFactor.check(account.id, code()), true);
  });

  test('of many who send the same code at once one is let in', async () => {
    const { code } = await withApp();
    const answers = await Promise.all(Array.from({ length: 5 }, () => twoFactor.check(account.id, code()).catch(() => false)));
    assert.equal(answers.filter(Boolean).length, 1);
  });

  test('codes are not guessed: after five that were wrong even the right one is not looked at for a while', async () => {
    const { code } = await withApp();
    for (let i = 0; i < 5; i++) assert.equal(await twoFactor.check(account.id, wrongOf(code())), false);
    await assert.rejects(twoFactor.check(account.id, code()), (error: { code: string; details: { retryAfterS: number } }) => {
      assert.equal(error.code, 'rate_limited');
      assert.ok(error.details.retryAfterS > 0);
      return true;
    });
    clock.advance(900_000);
    assert.equal(await twoFactor.check(account.id, code()), true);
  });

  test('right codes are no tries', async () => {
    const { code } = await withApp();
    for (let i = 0; i < 20; i++) {
      assert.equal(await twoFactor.check(account.id, code()), true);
      clock.advance(STEP_MS);
    }
  });

  test('what was removed is gone; what is begun again is another secret', async () => {
    const { code, recoveryCodes } = await withApp();
    await twoFactor.remove(account.id);
    assert.deepEqual(await twoFactor.status(account.id), { totp: false, recoveryCodesLeft: 0 });
    assert.equal(await twoFactor.check(account.id, code()), false);
    assert.equal(await twoFactor.check(account.id, recoveryCodes[0]!), false);
    await assert.rejects(twoFactor.confirm(account.id, code()), { code: 'conflict' });
  });

  test('two setups at once: only the one that was begun last counts', async () => {
    const first = decoded((await twoFactor.begin(account)).secret);
    const second = decoded((await twoFactor.begin(account)).secret);
    await assert.rejects(twoFactor.confirm(account.id, codeOf(first, stepAt(clock.wallMs()))), { code: 'invalid_credentials' });
    assert.equal((await twoFactor.confirm(account.id, codeOf(second, stepAt(clock.wallMs())))).length, 10);
  });

  test('the keys of the vault are replaced under it', async () => {
    const { code } = await withApp();
    assert.deepEqual(await vault.rotate(), { keyId: 2, reencrypted: 1, unreadable: 0 });
    assert.equal(await twoFactor.check(account.id, code()), true);
  });
});

describe('recovery codes', () => {
  test('ten, of 80 bits, each good once however it is typed', async () => {
    const { recoveryCodes } = await withApp();
    assert.equal(new Set(recoveryCodes).size, 10);
    for (const code of recoveryCodes) assert.match(code, /^[0-9a-hjkmnp-tv-z]{4}(?:-[0-9a-hjkmnp-tv-z]{4}){3}$/);
    const typed = [
      recoveryCodes[0]!,
      recoveryCodes[1]!.toUpperCase(),
      recoveryCodes[2]!.replaceAll('-', ''),
      ` ${recoveryCodes[3]!.replaceAll('-', ' ')} `,
      recoveryCodes[4]!.replaceAll('0', 'O').replaceAll('1', 'l'),
    ];
    for (const [i, code] of typed.entries()) {
      assert.equal(await twoFactor.check(account.id, code), true, code);
      assert.equal(await twoFactor.check(account.id, code), false, 'used');
      assert.equal((await twoFactor.status(account.id)).recoveryCodesLeft, 9 - i);
      clock.advance(900_000);
    }
  });

  test('of many who send the same code at once one is let in', async () => {
    const { recoveryCodes } = await withApp();
    const answers = await Promise.all(Array.from({ length: 5 }, () => twoFactor.check(account.id, recoveryCodes[0]!).catch(() => false)));
    assert.equal(answers.filter(Boolean).length, 1);
  });

  test('new ones void the old', async () => {
    const { recoveryCodes } = await withApp();
    const renewed = await twoFactor.renewRecoveryCodes(account.id);
    assert.equal(await twoFactor.check(account.id, recoveryCodes[0]!), false);
    assert.equal(await twoFactor.check(account.id, renewed[0]!), true);
    assert.equal((await twoFactor.status(account.id)).recoveryCodesLeft, 9);
  });

  test('one account’s open no other, and there are none without an app', async () => {
    const { recoveryCodes } = await withApp();
    const other = await newAccount();
    assert.equal(await twoFactor.check(other.id, recoveryCodes[0]!), false);
    await assert.rejects(twoFactor.renewRecoveryCodes(other.id), { code: 'conflict' });
  });

  test('they are not in the database as they are', async () => {
    const { recoveryCodes } = await withApp();
    const { rows } = await database.query<{ code_hash: Buffer }>('select code_hash from recovery_codes where account_id = $1', [
      account.id,
    ]);
    assert.equal(rows.length, 10);
    for (const { code_hash } of rows) {
      assert.equal(code_hash.length, 32);
      assert.ok(!recoveryCodes.some((code) => code_hash.includes(code)));
    }
  });
});
