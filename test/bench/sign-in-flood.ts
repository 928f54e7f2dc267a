// A process of its own: signs in wrongly, so many times a second, from so many addresses of 127.0.0.0/8, one connection each.
// sign-in-flood.ts PORT TRIES_PER_SECOND SECONDS ADDRESSES; prints how often it was answered what.
import { connect, type Socket } from 'node:net';

const [port, perSecond, seconds, addresses] = process.argv.slice(2).map(Number) as [number, number, number, number];
const STEP_MS = 10;

interface Client {
  readonly socket: Socket;
  busy: boolean;
}

const answers: Record<string, number> = {};
let tries = 0;
let skipped = 0;

const clients: Client[] = [];
for (let index = 0; index < addresses; index++) {
  const localAddress = `127.0.${1 + Math.floor(index / 250)}.${1 + (index % 250)}`;
  const client: Client = { socket: connect({ port, host: '127.0.0.1', localAddress }), busy: false };
  client.socket.on('data', (bytes) => {
    const status = /^HTTP\/1\.1 (\d{3})/.exec(bytes.toString('latin1', 0, 16))?.[1];
    if (status === undefined) return;
    client.busy = false;
    answers[status] = (answers[status] ?? 0) + 1;
  });
  client.socket.on('error', () => undefined);
  clients.push(client);
  if (index % 100 === 99) await new Promise((resolve) => setTimeout(resolve, 10));
}

const startMs = performance.now();
let next = 0;
const timer = setInterval(() => {
  const passedS = (performance.now() - startMs) / 1000;
  const due = Math.floor(Math.min(passedS, seconds) * perSecond);
  for (; tries + skipped < due; next++) {
    const client = clients[next % addresses]!;
    if (client.busy) {
      skipped++;
      continue;
    }
    client.busy = true;
    tries++;
    // As many accounts as addresses, in another order with each turn: no limit but those of the whole is met soon.
    const email = `victim-${(next * 7 + Math.floor(next / addresses)) % addresses}@example.org`;
    const body = JSON.stringify({ email, password: `wrong password ${next}` });
    client.socket.write(
      `POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
  }
  if (passedS < seconds) return;
  clearInterval(timer);
  console.log(JSON.stringify({ tries, skipped, answers, seconds: passedS }));
  process.exit(0);
}, STEP_MS);
