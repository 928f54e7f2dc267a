import { randomBytes } from 'node:crypto';
import { violation } from './errors.js';

const HANDSHAKE_BYTES = 1536;
const VERSION = 3;

/** What the client sends next: C0, C1, C2, or chunks. */
export type HandshakeStep = 'version' | 'hello' | 'echo' | 'done';

/**
 * The simple handshake (RTMP 1.0 5.2). Clients that offer a digest accept it as well, because S1
 * has version 0.
 */
export class Handshake {
  #step: HandshakeStep = 'version';
  /** Bytes that have not arrived, of C1 and then of C2. */
  #missingBytes = HANDSHAKE_BYTES;
  #hello: Buffer = Buffer.alloc(0);

  get step(): HandshakeStep {
    return this.#step;
  }

  /**
   * Takes bytes of the client and returns those that follow the handshake. `reply` sends bytes to
   * the client. Throws RtmpRefusal for a version other than 3.
   */
  read(bytes: Buffer, reply: (bytes: Buffer) => void): Buffer {
    let rest = bytes;
    if (this.#step === 'version' && rest.length > 0) {
      if (rest[0] !== VERSION) throw violation(`RTMP version ${rest[0]}; ${VERSION} is spoken`);
      rest = rest.subarray(1);
      this.#hello = Buffer.allocUnsafe(HANDSHAKE_BYTES);
      this.#step = 'hello';
    }
    if (this.#step === 'hello') {
      const take = Math.min(this.#missingBytes, rest.length);
      rest.copy(this.#hello, HANDSHAKE_BYTES - this.#missingBytes, 0, take);
      this.#missingBytes -= take;
      rest = rest.subarray(take);
      if (this.#missingBytes > 0) return rest;
      reply(Buffer.concat([Buffer.from([VERSION]), Buffer.alloc(8), randomBytes(HANDSHAKE_BYTES - 8), this.#hello]));
      this.#hello = Buffer.alloc(0);
      this.#missingBytes = HANDSHAKE_BYTES;
      this.#step = 'echo';
    }
    if (this.#step === 'echo') {
      const take = Math.min(this.#missingBytes, rest.length);
      this.#missingBytes -= take;
      rest = rest.subarray(take);
      if (this.#missingBytes === 0) this.#step = 'done';
    }
    return rest;
  }
}
