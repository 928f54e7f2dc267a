import { writeSync } from 'node:fs';
import { pino } from 'pino';

/** The part of pino that the rooms use; tests hand in a silent one. */
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
  child(fields: Record<string, unknown>): Log;
}

export interface LogOptions {
  level: string;
  service: string;
  version: string;
}

/**
 * Secrets that are known by their form, wherever they stand in a line: in a path, a query, a Referer, a message of an error. Playback tokens (and what comes
 * after `/t/` in any case, since a token may be cut or encoded), our keys and refresh tokens, JSON Web Tokens, and what a query names a token.
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
/** What nobody reads in time is thrown away beyond this. */
const MAX_UNREAD_CHARS = 1 << 24;
type Destination = ReturnType<typeof pino.destination>;
let stdout: Destination | undefined;

function openStdout(): Destination {
  const opened = pino.destination({ fd: 1, sync: false, maxLength: MAX_UNREAD_CHARS });
  // A full disk is no reason to end: what fits is written when there is room again.
  opened.on('error', () => undefined);
  const flush = opened.flushSync.bind(opened);
  // On the way out of a crash: see `exit`.
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

/** JSON lines on stdout. Anything under a name that holds a secret, and anything that has the form of one, is removed before it is written. */
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
 * Ends the process when its log is written, or nobody has read it for a second. With `process.exit` alone pino writes what is left on the way out, and where
 * whoever read it is gone it tries that for ever: a chat process stayed, with all its connections, when the service was killed together with its reader.
 * The first code counts.
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
