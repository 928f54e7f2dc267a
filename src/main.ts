import type { RequestListener } from 'node:http';
import { fileURLToPath } from 'node:url';
import { ConnectionLimits } from './app/http/connection-limits.js';
import { type HttpListener, listenHttp, useCertificate } from './app/http/listener.js';
import type { PublicListeners, Service } from './compose/service.js';
import { type Config, ConfigError, loadConfig } from './config/config.js';
import { type Clock, SystemClock } from './runtime/clock.js';
import { messageOf } from './runtime/errors.js';
import { sendRefusal } from './runtime/http-problem.js';
import { createLog, exit, type Log } from './runtime/log.js';
import { TlsFiles } from './runtime/tls-files.js';
import { takeUnexpectedErrors } from './runtime/unexpected.js';

/** Starts the service. Rejects when a part cannot start. */
export async function startService(config: Config, log: Log, clock: Clock = new SystemClock()): Promise<Service> {
  for (const warning of config.warnings) log.warn({}, warning);
  // The port is opened before anything else is even loaded: a player that is refused a connection gives up after a second or two; one
  // that is let in waits.
  const door = new Door(config.maxHttpConnections);
  const http = await openListeners(config, door.handle, log, clock);
  try {
    const { composeService } = await import('./compose/service.js');
    return await composeService(config, log, clock, http, (handler) => door.open(handler));
  } catch (error) {
    door.close();
    await http.stop(0);
    throw error;
  }
}

/** `PORT` and `HTTPS_PORT`. Rejects when one is taken, or the certificate cannot be used. */
async function openListeners(config: Config, handler: RequestListener, log: Log, clock: Clock): Promise<PublicListeners> {
  const { host, port, httpsPort, tlsCertFile, tlsKeyFile, trustProxyHops } = config;
  const connections = new ConnectionLimits({
    total: config.maxHttpConnections,
    perAddress: trustProxyHops > 0 ? undefined : config.maxHttpConnectionsPerAddress,
  });
  const tls = tlsCertFile && tlsKeyFile ? await TlsFiles.open({ certFile: tlsCertFile, keyFile: tlsKeyFile, clock, log }) : undefined;
  const listeners: HttpListener[] = [];
  const onUpgrade: PublicListeners['onUpgrade'] = (which, handler) => listeners[which === 'http' ? 0 : 1]?.onUpgrade(handler);
  const stop = async (graceMs: number) => {
    tls?.stop();
    await Promise.all(listeners.map((listener) => listener.stop(graceMs)));
  };
  try {
    if (config.roles.includes('app')) {
      listeners.push(await listenHttp(handler, { host, port, connections, log }, clock));
      if (httpsPort !== undefined && tls) {
        const minVersion = `TLSv${config.tlsMinVersion}` as const;
        const options = { host, port: httpsPort, connections, log, tls: { ...tls.current, minVersion } };
        const https = await listenHttp(handler, options, clock);
        tls.onChange((certificates) => useCertificate(https, { ...certificates, minVersion }));
        listeners.push(https);
      }
    }
  } catch (error) {
    await stop(0);
    throw error;
  }
  return { connections, tls, onUpgrade, stop };
}

/** Requests that come before the service is ready wait here, at most `maxWaiting`; those of clients that have gone are forgotten. */
class Door {
  readonly #maxWaiting: number;
  #handler: RequestListener | undefined;
  readonly #waiting = new Map<
    Parameters<RequestListener>[1],
    { readonly req: Parameters<RequestListener>[0]; readonly open: () => void }
  >();

  constructor(maxWaiting: number) {
    this.#maxWaiting = maxWaiting;
  }

  /** Resolves with the handler's answer, so that what it throws is answered for a request that has waited as for any other. */
  readonly handle = (...[req, res]: Parameters<RequestListener>): Promise<unknown> | unknown => {
    if (this.#handler) return this.#handler(req, res);
    if (req.url?.startsWith('/health/') || this.#waiting.size >= this.#maxWaiting)
      return sendRefusal(res, { code: 'unavailable', detail: 'the service is starting' });
    return new Promise<void>((open) => {
      this.#waiting.set(res, { req, open });
      res.once('close', () => this.#waiting.delete(res));
    }).then(() => res.destroyed || this.#handler?.(req, res));
  };

  open(handler: RequestListener): void {
    this.#handler = handler;
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const request of waiting) request.open();
  }

  /** The service cannot start. */
  close(): void {
    for (const { req } of this.#waiting.values()) req.destroy();
    this.#waiting.clear();
  }
}

/** A process of its own, from the environment to its end by a signal. `fixed`: variables that are so whatever the environment says. */
export async function runService(fixed: Readonly<Record<string, string>> = {}): Promise<void> {
  let config: Config;
  try {
    config = loadConfig(undefined, fixed);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exit(2);
  }
  const log = createLog({ level: config.logLevel, service: config.serviceName, version: config.version });
  const clock = new SystemClock();
  let isStarted = false;
  // Before it is ready nothing is on air, and what failed may be missing for good: another start is better then.
  takeUnexpectedErrors({ clock, log, onException: () => void (isStarted || exit(1)) });
  let service: Service;
  try {
    service = await startService(config, log, clock);
    isStarted = true;
  } catch (error) {
    log.error({ error: messageOf(error) }, 'cannot start');
    return exit(1);
  }
  const stop = async (signal: string) => {
    log.info({ signal }, 'stopping');
    await exit((await service.stop()) ? 0 : 1);
  };
  process.on('SIGTERM', (signal) => void stop(signal));
  process.on('SIGINT', (signal) => void stop(signal));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await runService();
