import { randomBytes } from 'node:crypto';
import { WebSocket } from 'ws';
import { SUBPROTOCOL } from '../../src/chat-client/index.js';
import { gatewayTokens } from '../support/gateway-token.js';
import { Server } from '../support/server.js';

/** What it costs that the embedded database syncs every commit: senders that wait for each acknowledgement before they say the next. */
const ROOM = 'bench';
const SENDERS = [1, 20, 100];
const MEASURED_MS = 10_000;

interface Row {
  readonly senders: number;
  readonly acksPerS: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

async function measure(sync: boolean): Promise<Row[]> {
  const secret = randomBytes(32).toString('base64url');
  const env = { JWT_SECRET: secret, JWT_AUDIENCE: 'test', DATABASE_SYNC: String(sync), MODERATION_ENABLED: 'false', LOG_LEVEL: 'warn' };
  const server = await Server.start({ embeddedDatabase: true, env });
  const rows: Row[] = [];
  try {
    await server.createChannel(ROOM);
    await server.api('PATCH', `/rooms/${ROOM}`, { perS: 100, burst: 100, roomPerS: 1000 });
    const tokenOf = gatewayTokens(secret);
    for (const senders of SENDERS) {
      const times: number[] = [];
      const stops = await Promise.all(
        Array.from({ length: senders }, (_, n) => send(server.port, tokenOf(`sender-${n}`), (ms) => times.push(ms))),
      );
      await new Promise((resolve) => setTimeout(resolve, MEASURED_MS / 5));
      times.length = 0;
      const beganMs = performance.now();
      await new Promise((resolve) => setTimeout(resolve, MEASURED_MS));
      const measuredS = (performance.now() - beganMs) / 1000;
      const sorted = [...times].sort((a, b) => a - b);
      for (const stop of stops) stop();
      const at = (share: number) => Math.round((sorted[Math.floor(share * (sorted.length - 1))] ?? Number.NaN) * 10) / 10;
      rows.push({ senders, acksPerS: Math.round(sorted.length / measuredS), p50Ms: at(0.5), p99Ms: at(0.99) });
    }
  } finally {
    await server.stop();
  }
  return rows;
}

/** Says one thing after the other. Resolves when it is in the room. */
function send(port: number, token: string, acked: (ms: number) => void): Promise<() => void> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/chat`, [SUBPROTOCOL]);
    let saidMs = 0;
    let said = 0;
    const tell = (frame: object) => socket.send(JSON.stringify(frame));
    const say = () => {
      const key = `k${said++}`;
      saidMs = performance.now();
      tell({ t: 'pub', id: key, room: ROOM, key, body: { text: `message ${key} ${token.slice(-8)}` } });
    };
    socket.on('error', reject);
    socket.on('open', () => tell({ t: 'hello', token }));
    socket.on('message', (data) => {
      const frame = JSON.parse(String(data)) as { t: string; id?: string; retryMs?: number };
      if (frame.t === 'welcome') tell({ t: 'join', id: 'j', room: ROOM });
      else if (frame.t === 'joined') {
        resolve(() => socket.terminate());
        say();
      } else if (frame.t === 'ack') {
        acked(performance.now() - saidMs);
        say();
      } else if (frame.t === 'err' || frame.t === 'error') setTimeout(say, frame.retryMs ?? 100);
    });
  });
}

for (const sync of [true, false, true, false]) {
  console.log(`DATABASE_SYNC=${sync}`);
  console.table(await measure(sync));
}
