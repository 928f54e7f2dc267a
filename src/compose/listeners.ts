import type { RequestListener } from 'node:http';
import { ConnectionLimits } from '../app/http/connection-limits.js';
import { type HttpListener, listenHttp, useCertificate } from '../app/http/listener.js';
import type { Config } from '../config/config.js';
import type { Clock } from '../runtime/clock.js';
import type { Log } from '../runtime/log.js';
import { TlsFiles } from '../runtime/tls/tls-files.js';
import type { PublicListeners } from './service.js';

/**
 * Opens `PORT` and `HTTPS_PORT`. Rejects when a port is taken or the certificate cannot be used.
 */
export async function openListeners(config: Config, handler: RequestListener, log: Log, clock: Clock): Promise<PublicListeners> {
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
