import { connect, type Socket } from 'node:net';
import { clientFrame } from './client-frame.js';

export interface RawSocketOptions {
  readonly port: number;
  /** A source address has 28,000 ports at most. */
  readonly localAddress: string;
  /** The handshake is done. */
  readonly opened: () => void;
  /** A whole text frame, where it lies. */
  readonly text: (bytes: Buffer, from: number, to: number) => void;
  /** Once; without a code: the line broke, or it never came about. */
  readonly ended: (code: number | undefined) => void;
}

const shared = Buffer.allocUnsafe(256 * 1024);

/**
 * As little of WebSocket as one of ten thousand clients in a process needs: a mask of zeros (RFC 6455 5.3 asks for one, not for a secret one), a read
 * buffer that all share, frames that are looked at where they lie.
 */
export class RawSocket {
  readonly #options: RawSocketOptions;
  readonly #socket: Socket;
  #rest: Buffer | undefined;
  #isUpgraded = false;
  #code: number | undefined;

  constructor(options: RawSocketOptions) {
    this.#options = options;
    const { port, localAddress } = options;
    this.#socket = connect({
      host: '127.0.0.1',
      port,
      localAddress,
      onread: {
        buffer: shared,
        callback: (length) => {
          this.#received(shared.subarray(0, length));
          return true;
        },
      },
    });
    this.#socket.setNoDelay(true);
    this.#socket.once('connect', () =>
      this.#socket.write(
        `GET /chat HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
          'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: veza.chat.v1\r\n\r\n',
      ),
    );
    this.#socket.on('error', () => undefined);
    this.#socket.once('close', () => options.ended(this.#code));
  }

  send(text: string): void {
    if (this.#socket.writable) this.#socket.write(clientFrame(text));
  }

  /** As a train in a tunnel does. */
  cut(): void {
    this.#socket.destroy();
  }

  #received(chunk: Buffer): void {
    const bytes = this.#rest ? Buffer.concat([this.#rest, chunk]) : chunk;
    this.#rest = undefined;
    let at = 0;
    if (!this.#isUpgraded) {
      const end = bytes.indexOf('\r\n\r\n');
      if (end < 0) {
        this.#rest = Buffer.from(bytes);
        return;
      }
      if (!bytes.toString('latin1', 0, end).startsWith('HTTP/1.1 101')) {
        this.cut();
        return;
      }
      this.#isUpgraded = true;
      at = end + 4;
      this.#options.opened();
    }
    while (bytes.length - at >= 2) {
      const opcode = bytes[at]! & 15;
      const short = bytes[at + 1]! & 127;
      const head = short === 126 ? 4 : short === 127 ? 10 : 2;
      if (bytes.length - at < head) break;
      const length = short === 126 ? bytes.readUInt16BE(at + 2) : short === 127 ? Number(bytes.readBigUInt64BE(at + 2)) : short;
      const from = at + head;
      if (bytes.length - from < length) break;
      at = from + length;
      if (opcode === 1) this.#options.text(bytes, from, at);
      else this.#control(opcode, bytes.subarray(from, at));
    }
    if (at < bytes.length) this.#rest = Buffer.from(bytes.subarray(at));
  }

  #control(opcode: number, payload: Buffer): void {
    if (opcode !== 8 && opcode !== 9) return;
    const answer = Buffer.alloc(6 + payload.length);
    answer[0] = opcode === 8 ? 0x88 : 0x8a;
    answer[1] = 0x80 | payload.length;
    payload.copy(answer, 6);
    if (opcode === 9) this.#socket.write(answer);
    else {
      this.#code = payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
      this.#socket.end(answer);
    }
  }
}
