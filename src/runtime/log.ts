import { writeSync } from 'node:fs';
import { pino } from 'pino';

/**
 * `event` is the line's stable name, `area.what_happened`; operators alert on it.
 * docs/log-events.md lists all events.
 */
export interface LogFields {
  readonly event: string;
  readonly [field: string]: unknown;
}

/** The part of pino that the rooms of the code use; tests pass a silent one. */
export interface Log {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
  child(fields: Record<string, unknown>): Log;
}

export interface LogOptions {
  level: string;
  service: string;
  version: string;
}

/**
 * Secrets that are recognised by their form anywhere in a line: in a path, a query, a Referer or an
 * error message. These are playback tokens, stream keys, API keys, refresh tokens, JSON Web Tokens,
 * and query parameters that are named like a secret. Everything after `/t/` is removed, since a
 * token there may be cut or encoded.
 */
const SECRETS: readonly (readonly [form: RegExp, put: string])[] = [
  [/(\/t\/)[^/\s"?#\\]{20,}/gi, '$1[removed]'],
  [/\b[a-z0-9]{4,12}\.[1-9a-z][0-9a-z]{0,7}\.[\w-]{1,32}(?:\.(?:a|c|ac))?\.[\w-]{43}(?![\w-])/g, '[removed]'],
  [/\bvz[ar]?_[\w-]{20,}/g, '[removed]'],
  [/\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*/g, '[removed]'],
  [/([?&](?:t|token|access_token|refresh_token|code|key)=)[^&\s"#\\]+/gi, '$1[removed]'],
];

export function withoutSecrets(text: string): string {
  let clean = text;
  for (const [form, put] of SECRETS) clean = clean.replace(form, put);
  return clean;
}

const FLUSH_MS = 1000;
/** Unread log text that is kept in memory, at most; lines beyond it are discarded. */
const MAX_UNREAD_CHARS = 1 << 24;
type Destination = ReturnType<typeof pino.destination>;
let stdout: Destination | undefined;

function openStdout(): Destination {
  const opened = pino.destination({ fd: 1, sync: false, maxLength: MAX_UNREAD_CHARS });
  // A full disk must not end the process. Lines are written again when there is space.
  opened.on('error', () => undefined);
  const flush = opened.flushSync.bind(opened);
  // pino calls this when the process crashes. `exit` says what it guards against.
  opened.flushSync = () => {
    try {
      writeSync(1, '\n');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return;
    }
    flush();
  };
  return opened;
}

/**
 * Writes JSON lines to stdout. Values of fields that are named like a secret, and texts with the
 * form of a secret, are removed before writing.
 */
export function createLog(options: LogOptions): Log {
  stdout ??= openStdout();
  return pino(
    {
      level: options.level,
      base: { service: options.service, version: options.version },
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: {
        paths: ['streamKey', 'token', 'password', 'authorization', '*.streamKey', '*.token', '*.password', '*.authorization'],
        censor: '[removed]',
      },
      hooks: { streamWrite: withoutSecrets },
    },
    stdout,
  ) as unknown as Log;
}

/**
 * Ends the process after its log is written, or after one second if nobody reads the log.
 * `process.exit` alone is not enough: pino writes the rest of the log on exit and, if its reader is
 * gone, tries for ever. A chat process once stayed, with all its connections, when the service was
 * killed together with its reader. If `exit` is called twice, the first code counts.
 */
export function exit(code: number): Promise<never> {
  ending ??= end(code);
  return ending;
}

let ending: Promise<never> | undefined;

async function end(code: number): Promise<never> {
  const log = stdout;
  if (log) {
    const written = new Promise<void>((resolve) => {
      log.once('close', () => resolve()).once('error', () => resolve());
      setTimeout(resolve, FLUSH_MS);
    });
    log.end();
    log.write = () => true;
    await written;
    log.flushSync = () => undefined;
  }
  process.exit(code);
}

const nothing = () => undefined;
export const silentLog: Log = { debug: nothing, info: nothing, warn: nothing, error: nothing, child: () => silentLog };
