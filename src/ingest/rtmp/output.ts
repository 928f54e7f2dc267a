import type { Socket } from 'node:net';
import { type AmfInput, encodeAmf0 } from './amf0.js';
import { AUDIO_FOURCCS } from './audio.js';
import { encodeMessage, MESSAGE } from './chunk.js';

/**
 * The window after which the client must send an acknowledgement (RTMP 1.0 5.4.4), and after which
 * this side sends one until the client asks for another window.
 */
export const WINDOW_BYTES = 2_500_000;
const CHUNK_BYTES = 4096;
const STREAM_BEGIN = 0;
const PING_RESPONSE = 7;

/** CanDecode of Enhanced RTMP v2: the codec is decoded here. */
const CAN_DECODE = 1;
/** capsEx of Enhanced RTMP v2: Multitrack and ModEx messages are understood. */
const CAPS_EX = 2 | 4;

/**
 * Sends the commands and control messages of a session, and limits what the client leaves unread.
 */
export class RtmpOutput {
  readonly #socket: Socket;
  readonly #maxUnreadBytes: number;
  readonly #onUnread: () => void;
  /** The chunk size of what is sent: 128 until the client was told another (RTMP 1.0 5.4.1). */
  #chunkBytes = 128;

  /** `onUnread` is called when the client has left more than `maxUnreadBytes` unread. */
  constructor(socket: Socket, maxUnreadBytes: number, onUnread: () => void) {
    this.#socket = socket;
    this.#maxUnreadBytes = maxUnreadBytes;
    this.#onUnread = onUnread;
  }

  sendBytes(bytes: Buffer): void {
    if (!this.#socket.writable) return;
    this.#socket.write(bytes);
    if (this.#socket.writableLength > this.#maxUnreadBytes) this.#onUnread();
  }

  sendCommand(command: string, transaction: number, object: AmfInput, info: AmfInput, streamId = 0): void {
    const payload = encodeAmf0(command, transaction, object, info);
    this.sendBytes(encodeMessage(3, { type: MESSAGE.command, streamId, payload }, this.#chunkBytes));
  }

  /** RTMP 1.0 5.4.3. */
  sendAcknowledgement(receivedBytes: number): void {
    this.#sendControl(MESSAGE.acknowledgement, uint32(receivedBytes));
  }

  /**
   * Sends the window, the bandwidth and the chunk size. They are sent before the answer to
   * `connect`.
   */
  sendSettings(): void {
    this.#sendControl(MESSAGE.windowAckSize, uint32(WINDOW_BYTES));
    this.#sendControl(MESSAGE.setPeerBandwidth, Buffer.concat([uint32(WINDOW_BYTES), Buffer.from([2])]));
    this.#sendControl(MESSAGE.setChunkSize, uint32(CHUNK_BYTES));
    this.#chunkBytes = CHUNK_BYTES;
  }

  /** Answers `connect`, with the codecs of Enhanced RTMP that are decoded here. */
  sendConnected(transaction: number): void {
    this.sendCommand(
      '_result',
      transaction,
      { fmsVer: 'FMS/3,0,1,123', capabilities: 31 },
      {
        ...status('status', 'NetConnection.Connect.Success', 'connected'),
        objectEncoding: 0,
        capsEx: CAPS_EX,
        fourCcList: [...AUDIO_FOURCCS],
        audioFourCcInfoMap: Object.fromEntries(AUDIO_FOURCCS.map((fourCc) => [fourCc, CAN_DECODE])),
        videoFourCcInfoMap: {},
      },
    );
  }

  sendStreamBegin(streamId: number): void {
    this.#sendControl(MESSAGE.userControl, Buffer.concat([uint16(STREAM_BEGIN), uint32(streamId)]));
  }

  sendPingResponse(timestamp: Buffer): void {
    this.#sendControl(MESSAGE.userControl, Buffer.concat([uint16(PING_RESPONSE), timestamp]));
  }

  #sendControl(type: number, payload: Buffer): void {
    this.sendBytes(encodeMessage(2, { type, streamId: 0, payload }, this.#chunkBytes));
  }
}

/** Returns the `info` object of an `onStatus`, or of the answer to `connect`. */
export function status(level: 'status' | 'error', code: string, description: string): { level: string; code: string; description: string } {
  return { level, code, description };
}

function uint16(value: number): Buffer {
  return Buffer.from([value >> 8, value & 0xff]);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}
