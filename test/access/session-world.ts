import { randomBytes, randomUUID } from 'node:crypto';
import { Audit } from '../../src/access/audit.js';
import type { Role } from '../../src/access/roles.js';
import { AccessTokens } from '../../src/access/tokens/access-tokens.js';
import { EndedSessions } from '../../src/access/tokens/ended-sessions.js';
import { Sessions } from '../../src/access/tokens/sessions.js';
import { SigningKeys } from '../../src/access/tokens/signing-keys.js';
import { openVault } from '../../src/access/vault.js';
import type { Database } from '../../src/backing/database/database.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { openTestDatabase } from '../support/database.js';

const ISSUER = 'https://radio.example';
export const client = { address: '192.0.2.1', userAgent: 'Test/1' };

const masterKey = randomBytes(32);

/** What a process has to do with tokens and sessions. Its timers are started by the tests that are about them: a month of polls takes its time. */
export async function sessionProcess(database: Database, clock: FakeClock) {
  // Its own clock, which stands: nothing here is about the keys of the vault.
  const vault = await openVault({ database, masterKey, clock: new FakeClock(), log: silentLog });
  const keys = new SigningKeys({ database, vault, clock, log: silentLog });
  const ended = new EndedSessions({ database, clock, log: silentLog });
  const tokens = new AccessTokens({ keys, issuer: ISSUER, clock, isEnded: (id) => ended.has(id) });
  const audit = new Audit(database);
  const sessions = new Sessions({ database, vault, tokens, ended, audit, clock, log: silentLog });
  await keys.reload();
  await ended.poll();
  const stop = async () => {
    await sessions.stop();
    await ended.stop();
    await keys.stop();
    vault.stop();
  };
  return { vault, keys, ended, tokens, audit, sessions, stop };
}

/** A database of its own. `poolSize`: statements that run at once. */
export async function sessionWorld(poolSize = 1) {
  const database = await openTestDatabase({ poolSize });
  const clock = new FakeClock();
  const process = await sessionProcess(database, clock);
  return {
    ...process,
    database,
    clock,
    async account(role: Role = 'listener', name = 'Ada'): Promise<string> {
      const id = randomUUID();
      await database.query('insert into accounts (id, email, email_key, name, role) values ($1, $2, $2, $3, $4)', [
        id,
        `${id}@example.org`,
        name,
        role,
      ]);
      return id;
    },
    async stop() {
      await process.stop();
      await database.stop();
    },
  };
}
export type SessionWorld = Awaited<ReturnType<typeof sessionWorld>>;
