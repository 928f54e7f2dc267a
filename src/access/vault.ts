import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import type { Database } from '../backing/database/database.js';
import type { Clock } from '../runtime/clock.js';
import { messageOf, VezaError } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import { Loop } from '../runtime/loop.js';

/**
 * Encrypts secrets that are stored: AES-256-GCM with numbered data keys, which are in the database,
 * encrypted with `ENCRYPTION_KEY`. So data keys can be replaced while the service runs (`rotate`),
 * and `ENCRYPTION_KEY` by one start with the old one as `ENCRYPTION_KEY_PREVIOUS`.
 *
 * A sealed value is: version (1 byte, 1), id of the data key (4, big-endian), nonce (12), tag (16),
 * ciphertext. `purpose` is the associated data, so that a value sealed for one row cannot be opened
 * for another.
 */
export interface Vault {
  seal(purpose: string, plain: Uint8Array | string): Buffer;
  /**
   * Rejects with `internal` if the value was changed, has another purpose, or its data key does not
   * exist.
   */
  open(purpose: string, sealed: Uint8Array): Promise<Buffer>;
  /**
   * Makes a new data key and encrypts all sealed values with it. Values that another process seals
   * with the older key meanwhile wait for the next rotation: a key is deleted only when no value
   * needs it and every process has read a newer one. `unreadable`: the number of rows that cannot
   * be opened, because they are damaged or their key is lost. They are not changed.
   */
  rotate(): Promise<{ keyId: number; reencrypted: number; unreadable: number }>;
  stop(): Promise<void>;
}

/** Every column with sealed values, and their purpose. `rotate` re-encrypts all of them. */
const SEALED: readonly { table: string; id: string; column: string; purpose: (id: string) => string }[] = [
  { table: 'accounts', id: 'id::text', column: 'sealed_totp', purpose: (id) => `totp:${id}` },
  { table: 'signing_keys', id: 'kid', column: 'sealed_private_jwk', purpose: (id) => `signing-key:${id}` },
  { table: 'refresh_tokens', id: "encode(token_hash, 'hex')", column: 'sealed_successor', purpose: (id) => `refresh:${id}` },
  { table: 'playback_keys', id: 'kid', column: 'sealed_secret', purpose: (id) => `playback-key:${id}` },
  { table: 'mail_outbox', id: 'id::text', column: 'sealed_message', purpose: () => 'mail' },
  { table: 'webhooks', id: 'id::text', column: 'sealed_secret', purpose: (id) => `webhook:${id}` },
  { table: 'chat_secrets', id: 'name', column: 'sealed_secret', purpose: (id) => `chat:${id}` },
];

const VERSION = 1;
const HEADER_BYTES = 5;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
/** Rows per statement. */
const BATCH = 200;
/** Data keys are read again this often, so that a key made by another process is used here. */
const RELOAD_MS = 60_000;
/**
 * A key that was replaced this long ago is used by no process any more, even if a process missed
 * some reloads.
 */
const RETIRED_MS = 10 * RELOAD_MS;

export interface VaultOptions {
  readonly database: Database;
  /** `ENCRYPTION_KEY`, 32 bytes. */
  readonly masterKey: Uint8Array;
  readonly previousMasterKey?: Uint8Array | undefined;
  readonly clock: Clock;
  readonly log: Log;
}

export async function openVault({ database, masterKey, previousMasterKey, clock, log }: VaultOptions): Promise<Vault> {
  let keys = new Map<number, Buffer>();
  let newest = 0;

  const load = async () => {
    const { rows } = await database.query<{ id: number; wrapped: Buffer }>('select id, wrapped from encryption_keys order by id');
    const found = new Map<number, Buffer>();
    for (const { id, wrapped } of rows) {
      const purpose = `data-key:${id}`;
      let key = decrypt(masterKey, purpose, wrapped);
      if (!key && previousMasterKey) {
        key = decrypt(previousMasterKey, purpose, wrapped);
        if (key) {
          await database.query('update encryption_keys set wrapped = $2 where id = $1', [id, encrypt(masterKey, 0, purpose, key)]);
          log.info({ event: 'vault.data_key_resealed', keyId: id }, 'a data key was encrypted with the new ENCRYPTION_KEY');
        }
      }
      if (!key) {
        throw new Error(
          'ENCRYPTION_KEY is not the one that this database was written with; start with that one, or with it as ENCRYPTION_KEY_PREVIOUS',
        );
      }
      found.set(id, key);
    }
    keys = found;
    newest = Math.max(0, ...found.keys());
  };

  const add = async (id: number) => {
    const wrapped = encrypt(masterKey, 0, `data-key:${id}`, randomBytes(32));
    await database.query('insert into encryption_keys (id, wrapped, created_at) values ($1, $2, $3) on conflict do nothing', [
      id,
      wrapped,
      new Date(clock.wallMs()),
    ]);
    await load();
  };

  await load();
  if (newest === 0) await add(1);
  const reloads = new Loop({
    clock,
    periodMs: RELOAD_MS,
    task: load,
    onError: (error) =>
      log.warn(
        { event: 'vault.data_keys_unreadable', error: messageOf(error) },
        'could not read the data keys; the known ones stay in use',
      ),
  });
  reloads.start();

  const seal = (purpose: string, plain: Uint8Array | string) =>
    encrypt(keys.get(newest)!, newest, purpose, typeof plain === 'string' ? Buffer.from(plain) : plain);

  const open = async (purpose: string, sealed: Uint8Array) => {
    const keyId = keyIdOf(sealed);
    if (!keys.has(keyId)) await load();
    const key = keys.get(keyId);
    const plain = key && decrypt(key, purpose, sealed);
    if (!plain) throw new Error(`the value sealed for "${purpose}" does not open (data key ${keyId})`);
    return plain;
  };

  const reencrypt = async ({ table, id, column, purpose }: (typeof SEALED)[number]): Promise<{ done: number; unreadable: number }> => {
    let done = 0;
    let unreadable = 0;
    for (let after = ''; ; ) {
      const { rows } = await database.query<{ id: string; sealed: Buffer }>(
        `select ${id} as id, ${column} as sealed from ${table}
         where ${column} is not null and substring(${column} from 2 for 4) <> $1 and ${id} collate "C" > $2
         order by ${id} collate "C" limit ${BATCH}`,
        [idBytes(newest), after],
      );
      if (rows.length === 0) return { done, unreadable };
      after = rows.at(-1)!.id;
      const again: { id: string; was: Buffer; is: Buffer }[] = [];
      for (const row of rows) {
        try {
          again.push({ id: row.id, was: row.sealed, is: seal(purpose(row.id), await open(purpose(row.id), row.sealed)) });
        } catch (error) {
          if (error instanceof VezaError) throw error;
          unreadable++;
          log.error(
            { event: 'vault.secret_unusable', table, id: row.id, error: messageOf(error) },
            'a secret cannot be decrypted and keeps its old key',
          );
        }
      }
      // Only values that have not changed since the read: a newer value is sealed with a newer key
      // already.
      const { rowCount } = await database.query(
        `update ${table} set ${column} = v.sealed from unnest($1::text[], $2::bytea[], $3::bytea[]) as v (row_id, was, sealed)
         where ${id} = v.row_id and ${column} = v.was`,
        [again.map((row) => row.id), again.map((row) => row.was), again.map((row) => row.is)],
      );
      done += rowCount;
    }
  };

  /** Deletes keys with which no process seals and no value is sealed. */
  const retire = async () => {
    const { rows } = await database.query<{ id: number }>(
      `select id from encryption_keys k where exists (select 1 from encryption_keys n where n.id > k.id and n.created_at <= $1) order by id`,
      [new Date(clock.wallMs() - RETIRED_MS)],
    );
    for (const { id: keyId } of rows) {
      const used = SEALED.map(({ table, column }) => `select 1 from ${table} where substring(${column} from 2 for 4) = $2`).join(
        ' union all ',
      );
      await database.query(`delete from encryption_keys where id = $1 and not exists (${used})`, [keyId, idBytes(keyId)]);
    }
  };

  return {
    seal,
    open,
    async rotate() {
      await load();
      await add(newest + 1);
      let reencrypted = 0;
      let unreadable = 0;
      for (const place of SEALED) {
        const walked = await reencrypt(place);
        reencrypted += walked.done;
        unreadable += walked.unreadable;
      }
      await retire();
      await load();
      return { keyId: newest, reencrypted, unreadable };
    },
    stop: () => reloads.stop(),
  };
}

function idBytes(id: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(id);
  return bytes;
}

function keyIdOf(sealed: Uint8Array): number {
  if (sealed.length < HEADER_BYTES + NONCE_BYTES + TAG_BYTES || sealed[0] !== VERSION) throw new Error('this is not a sealed value');
  return Buffer.from(sealed.buffer, sealed.byteOffset, sealed.length).readUInt32BE(1);
}

function encrypt(key: Uint8Array, keyId: number, purpose: string, plain: Uint8Array): Buffer {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(Buffer.from(purpose));
  const encrypted = Buffer.concat([cipher.update(plain), cipher.final()]);
  return Buffer.concat([Buffer.of(VERSION), idBytes(keyId), nonce, cipher.getAuthTag(), encrypted]);
}

function decrypt(key: Uint8Array, purpose: string, sealed: Uint8Array): Buffer | undefined {
  const bytes = Buffer.from(sealed);
  const tagAt = HEADER_BYTES + NONCE_BYTES;
  try {
    const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(HEADER_BYTES, tagAt), { authTagLength: TAG_BYTES });
    decipher.setAAD(Buffer.from(purpose)).setAuthTag(bytes.subarray(tagAt, tagAt + TAG_BYTES));
    return Buffer.concat([decipher.update(bytes.subarray(tagAt + TAG_BYTES)), decipher.final()]);
  } catch {
    return undefined;
  }
}
