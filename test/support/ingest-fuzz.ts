import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { connect } from 'node:net';
import { HostileInput, type Recorded } from './hostile-input.js';
import { randomOf } from './long.js';
import { publishRtmp, toneFrames } from './rtmp-publisher.js';
import type { Server } from './server.js';

/** Connections at one time. */
const AT_ONCE = 4;
/** A server that waits for more is not waited for. */
const CONNECTION_MS = 1500;
/** An honest encoder comes after so many connections. */
const HONEST_EVERY = 40;

/** Two seconds in each container, made now: what is changed is what encoders really send. */
function recordings(): Recorded[] {
  const make = (type: string, ...args: string[]): Recorded => ({
    type,
    bytes: execFileSync(
      'ffmpeg',
      ['-v', 'error', '-f', 'lavfi', '-i', 'sine=440:duration=2:sample_rate=48000', '-ac', '2', ...args, 'pipe:1'],
      {
        maxBuffer: 1 << 26,
      },
    ),
  });
  return [
    make('audio/mpeg', '-c:a', 'libmp3lame', '-f', 'mp3'),
    make('audio/aac', '-c:a', 'aac', '-f', 'adts'),
    make('audio/ogg', '-c:a', 'libopus', '-f', 'ogg'),
    make('audio/ogg', '-c:a', 'libvorbis', '-f', 'ogg'),
    make('audio/ogg', '-c:a', 'flac', '-f', 'ogg'),
    make('audio/webm', '-c:a', 'libopus', '-f', 'webm'),
    make('audio/x-matroska', '-c:a', 'aac', '-f', 'matroska'),
    make('audio/flac', '-c:a', 'flac', '-f', 'flac'),
    make('audio/wav', '-c:a', 'pcm_s16le', '-f', 'wav'),
  ];
}

/**
 * Sends hostile connections for `victim`'s key until `isOver`. Every few of them an honest encoder of `honest` has to get in, and at the end of each
 * the process lives and nothing has failed inside of it. What else is on air is for the caller to listen to.
 */
export async function fuzzIngest(
  server: Server,
  keys: { victim: string; honest: string },
  { seed, isOver }: { seed: number; isOver: (connections: number) => boolean },
): Promise<number> {
  const input = new HostileInput({ random: randomOf(seed), key: keys.victim, channel: 'victim', recordings: recordings() });
  const sound = await toneFrames('aac', { seconds: 0.5 });
  const { pid } = server;
  let connections = 0;
  while (!isOver(connections)) {
    const some = Array.from({ length: AT_ONCE }, () => input.next());
    await Promise.all(some.map(({ port, pieces }) => sendPieces(port === 'http' ? server.ingestPort : server.rtmpPort, pieces)));
    connections += some.length;
    const said = `seed ${seed}, up to connection ${connections}: ${some.map(({ what }) => what).join(', ')}`;
    assert.equal(server.pid, pid, `the process has ended; ${said}`);
    const failed = server.log().find(({ event, msg }) => event === 'ingest.failed' || /unhandled|uncaught/i.test(`${event} ${msg}`));
    assert.equal(failed, undefined, `${JSON.stringify(failed)}; ${said}`);
    if (connections % HONEST_EVERY !== 0) continue;
    const honest = await publishRtmp({ port: server.rtmpPort, key: keys.honest });
    await honest.play(sound);
    honest.unpublish();
  }
  return connections;
}

/** Writes the pieces one after the other, ends, and waits until the server closes or long enough. */
function sendPieces(port: number, pieces: readonly Buffer[]): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.setNoDelay(true);
      const write = (index: number) => {
        const piece = pieces[index];
        if (piece === undefined) socket.end();
        else socket.write(piece, () => write(index + 1));
      };
      write(0);
    });
    socket.resume();
    socket.on('error', () => undefined);
    socket.setTimeout(CONNECTION_MS, () => socket.destroy());
    socket.once('close', () => resolve());
  });
}
