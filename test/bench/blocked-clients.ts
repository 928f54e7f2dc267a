// blocked-clients.ts PORT PLAYLIST-PATH CLIENTS ROUNDS
//
// So many keep-alive connections that all ask for one part of one playlist before it is there. A line of JSON a round on stdout: the part, the
// moments (monotonic clock of the machine, ms) at which the first and the last request was sent and at which each answer was whole.
import { connect, type Socket } from 'node:net';

const [port = '', path = '', clientsText, roundsText] = process.argv.slice(2);
const clients = Number(clientsText);
const rounds = Number(roundsText);
/** Parts ahead of the playlist's last: at 320 ms this gives 10,000 requests 1.6 s to arrive; 3 s is the most that is allowed. */
const PARTS_AHEAD = 5;
/** A source address has 28,000 ports at most, and many of them are in TIME_WAIT after an earlier run. */
const CLIENTS_A_SOURCE = 2500;
const CONNECTING_AT_A_TIME = 200;

const nowMs = () => Number(process.hrtime.bigint()) / 1e6;

const buffer = Buffer.allocUnsafe(64 * 1024);
const sockets: Socket[] = [];
const left = new Int32Array(clients);
const doneMs = new Float64Array(clients);
let pending = 0;
let allDone = () => {};

function received(index: number, bytes: number): boolean {
  if (left[index] === 0) {
    const head = buffer.toString('latin1', 0, Math.min(bytes, 1024));
    const end = head.indexOf('\r\n\r\n');
    const length = /\r\ncontent-length: (\d+)/i.exec(head)?.[1];
    if (!head.startsWith('HTTP/1.1 200') || end < 0 || length === undefined) throw new Error(`unexpected answer: ${head.slice(0, 300)}`);
    left[index] = end + 4 + Number(length);
  }
  left[index]! -= bytes;
  if (left[index]! > 0) return true;
  doneMs[index] = nowMs();
  pending--;
  if (pending === 0) allDone();
  return true;
}

function open(index: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({
      host: '127.0.0.1',
      port: Number(port),
      localAddress: `127.0.0.${2 + Math.floor(index / CLIENTS_A_SOURCE)}`,
      onread: { buffer, callback: (bytes) => received(index, bytes) },
    });
    socket.setNoDelay(true);
    socket.once('connect', () => resolve());
    socket.once('error', reject);
    socket.once('close', () => {
      console.error(`client ${index} was disconnected`);
      process.exit(1);
    });
    sockets[index] = socket;
  });
}

for (let at = 0; at < clients; at += CONNECTING_AT_A_TIME) {
  await Promise.all(Array.from({ length: Math.min(CONNECTING_AT_A_TIME, clients - at) }, (_, index) => open(at + index)));
}
console.log('connected');

for (let round = 0; round < rounds; round++) {
  const playlist = await (await fetch(`http://127.0.0.1:${port}${path}`)).text();
  const hint = /PRELOAD-HINT:TYPE=PART,URI="\w+-(\d+)\.(\d+)\.m4s"/.exec(playlist);
  const parts = Math.max(...[...playlist.matchAll(/URI="\w+-\d+\.(\d+)\.m4s"/g)].map((match) => Number(match[1]))) + 1;
  if (!hint) throw new Error('the playlist has no hint');
  const ahead = Number(hint[2]) + PARTS_AHEAD;
  const msn = Number(hint[1]) + Math.floor(ahead / parts);
  const part = ahead % parts;
  // As a browser asks.
  const request = Buffer.from(
    `GET ${path}?_HLS_msn=${msn}&_HLS_part=${part} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nConnection: keep-alive\r\n` +
      'User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n' +
      'Accept: */*\r\nOrigin: https://radio.example\r\nReferer: https://radio.example/\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n' +
      'Accept-Language: en\r\n\r\n',
  );
  pending = clients;
  const done = new Promise<void>((resolve) => {
    allDone = resolve;
  });
  const firstSentMs = nowMs();
  for (let at = 0; at < clients; at++) {
    sockets[at]!.write(request);
    // The server reads as fast as it can; what it answers must be read here, too.
    if (at % 500 === 499) await new Promise((resolve) => setImmediate(resolve));
  }
  const lastSentMs = nowMs();
  await done;
  console.log(JSON.stringify({ msn, part, firstSentMs, lastSentMs, doneMs: [...doneMs].map((ms) => Math.round(ms * 100) / 100) }));
}
process.exit(0);
