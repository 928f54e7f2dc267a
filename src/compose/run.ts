import { type Config, ConfigError, loadConfig } from '../config/config.js';
import { type Clock, SystemClock } from '../runtime/clock.js';
import { messageOf } from '../runtime/errors.js';
import { createLog, exit, type Log } from '../runtime/log.js';
import { takeUnexpectedErrors } from '../runtime/unexpected.js';
import { openListeners } from './listeners.js';
import type { Service } from './service.js';
import { WaitingRequests } from './waiting-requests.js';

/** Starts the service. Rejects when a component cannot start. */
export async function startService(config: Config, log: Log, clock: Clock = new SystemClock()): Promise<Service> {
  for (const warning of config.warnings) log.warn({ event: 'config.warning' }, warning);
  // The port opens before the rest of the service is loaded. A player that cannot connect gives up
  // after a second or two, and a player that is connected waits.
  const waiting = new WaitingRequests(config.maxHttpConnections);
  const http = await openListeners(config, waiting.handle, log, clock);
  try {
    const { composeService } = await import('./service.js');
    return await composeService(config, log, clock, http, (handler) => waiting.answerWith(handler));
  } catch (error) {
    waiting.dropAll();
    await http.stop(0);
    throw error;
  }
}

/**
 * Runs the service as a process: reads the environment, starts, and stops at SIGTERM or SIGINT.
 * Exits with 2 when the configuration is wrong and with 1 when a component cannot start. `fixed`
 * are variables that the environment cannot change.
 */
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
  // Before the service is ready nothing is on air, and the failed component may be missing for
  // good, so the process exits and can be restarted.
  takeUnexpectedErrors({ clock, log, onException: () => void (isStarted || exit(1)) });
  let service: Service;
  try {
    service = await startService(config, log, clock);
    isStarted = true;
  } catch (error) {
    log.error({ event: 'service.start_failed', error: messageOf(error) }, 'the service cannot start');
    return exit(1);
  }
  const stop = async (signal: string) => {
    log.info({ event: 'service.stopping', signal }, 'the service is stopping');
    await exit((await service.stop()) ? 0 : 1);
  };
  process.on('SIGTERM', (signal) => void stop(signal));
  process.on('SIGINT', (signal) => void stop(signal));
}
