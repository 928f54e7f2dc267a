import assert from 'node:assert/strict';
import { WebSocket } from 'ws';
import { TestAuthority } from './certificates.js';
import { freePorts } from './free-port.js';
import { HttpFuzz, type HttpPort } from './http-fuzz.js';
import { Server } from './server.js';

/**
 * Sends what strangers may send to every port of a service that speaks HTTP, until `isEnough`. Rejects when the process ends, a client that behaves is
 * not answered, or a stranger's doing is logged as an error.
 */
export async function fuzzHttp(seed: number, isEnough: (sent: number) => boolean): Promise<number> {
  const authority = await TestAuthority.make();
  const { certFile, keyFile } = await authority.issue('fuzz');
  const [wsPort, httpsPort] = (await freePorts(2)) as [number, number];
  // The chat has a port of its own, and is with the pages on `HTTPS_PORT`.
  const env = { WS_PORT: String(wsPort), HTTPS_PORT: String(httpsPort), TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile };
  const server = await Server.start({ env });
  try {
    await server.createChannel('radio');
    const ports: HttpPort[] = [
      { name: 'PORT', port: server.port, isSecure: false, hasChat: false },
      { name: 'HTTPS_PORT', port: httpsPort, isSecure: true, hasChat: true },
      { name: 'WS_PORT', port: wsPort, isSecure: false, hasChat: true },
      { name: 'PROMETHEUS_PORT', port: server.metricsPort, isSecure: false, hasChat: false },
    ];
    const fuzz = new HttpFuzz(ports, seed);
    while (!isEnough(fuzz.sent)) {
      await fuzz.round(24);
      await behaves(server, wsPort).catch((error) => {
        throw new Error(`seed ${seed}, after ${fuzz.sent} connections: ${error}\n${server.logTail()}`);
      });
    }
    const errors = server.log().filter(({ level }) => level >= 50);
    assert.deepEqual(errors, [], `seed ${seed}: what strangers do is no error of the service`);
    assert.equal(await server.stopGracefully(), 0);
    return fuzz.sent;
  } finally {
    await server.stop();
    await authority.remove();
  }
}

/** One that knows what it does, at each port. */
async function behaves(server: Server, wsPort: number): Promise<void> {
  const signal = AbortSignal.timeout(30_000);
  for (const url of [
    `${server.url}/health/ready`,
    `${server.url}/api/v1/channels/radio`,
    `http://127.0.0.1:${server.metricsPort}/metrics`,
  ]) {
    const response = await fetch(url, { signal });
    await response.arrayBuffer();
    assert.equal(response.status, 200, url);
  }
  await new Promise<void>((resolve, reject) => {
    const socket = new WebSocket(`ws://127.0.0.1:${wsPort}/chat`, 'veza.chat.v1');
    socket.on('open', () => socket.send('{"t":"hello"}'));
    socket.on('message', (data) => {
      if (!String(data).includes('"welcome"')) return;
      socket.terminate();
      resolve();
    });
    socket.on('error', reject);
    socket.on('close', () => reject(new Error('the chat has closed')));
  });
}
