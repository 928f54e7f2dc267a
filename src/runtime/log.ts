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

/** JSON lines on stdout. Anything under a name that holds a secret is removed before it is written. */
export function createLog(options: LogOptions): Log {
  return pino({
    level: options.level,
    base: { service: options.service, version: options.version },
    timestamp: pino.stdTimeFunctions.isoTime,
    redact: {
      paths: ['streamKey', 'token', 'password', 'authorization', '*.streamKey', '*.token', '*.password', '*.authorization'],
      censor: '[removed]',
    },
  }) as unknown as Log;
}

const nothing = () => undefined;
export const silentLog: Log = { debug: nothing, info: nothing, warn: nothing, error: nothing, child: () => silentLog };
