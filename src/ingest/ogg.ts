import { type OggCodec, oggCodecOf, oggPacketRefusal } from './audio-bounds.js';
import { titleUpdate } from './http/titles.js';
import type { TitleUpdate } from './source.js';

/**
 * At most this much of a comment packet is read. In practice the texts come first and cover art
 * follows.
 */
const COMMENT_BYTES = 64 * 1024;

export interface OggEvents {
  /** Called with the bytes of the stream, unchanged and in order. */
  bytes(bytes: Buffer): void;
  /** The next bytes need a new decoder: the one that had the bytes until now cannot decode them. */
  newDecoder(): void;
  title(update: TitleUpdate): void;
  /** The next link is refused and must not reach the decoder. Throws. */
  refuse(reason: string): never;
}

/**
 * Follows the pages (RFC 3533 6) of an Ogg stream as they pass. An encoder that chains makes each
 * song a link with comments of its own. At most the header of a page is held back, or the first
 * page of a link (27 to 65,307 bytes).
 *
 * Where a link has the codec of the one before, ffmpeg (tried with a build of 2018 and with 5.1)
 * decodes across the boundary, Vorbis and FLAC also with another rate or channel count. Opus with
 * another channel count comes out 3 dB off, and another codec not at all: these get a new decoder.
 * A broken page structure is passed on; the decoder decides about it.
 */
export class OggScanner {
  readonly #events: OggEvents;
  #held: Buffer = Buffer.alloc(0);
  #state: 'header' | 'body' | 'lost' = 'header';
  #bodyLeft = 0;
  /**
   * The lacing values of the page that is being read, while that page is of the audio stream and
   * may hold comments.
   */
  #lacing: Buffer | undefined;
  #lacingAt = 0;
  #lacingLeft = 0;
  /** The serial number of the link's audio stream; undefined until its first page. */
  #serial: number | undefined;
  #kind: string | undefined;
  #inFirstPages = false;
  /** Index of the packet in the audio stream: 0 is identification, 1 comments. */
  #packet = 0;
  #codec: OggCodec | undefined;
  #comment: Buffer[] = [];
  #commentBytes = 0;

  constructor(events: OggEvents) {
    this.#events = events;
  }

  push(bytes: Buffer): void {
    const data = this.#held.length > 0 ? Buffer.concat([this.#held, bytes]) : bytes;
    this.#held = Buffer.alloc(0);
    /**
     * Offset of the first byte that has not been passed on. Adjacent pages are passed on in one
     * piece.
     */
    let from = 0;
    let at = 0;
    const flush = () => {
      if (at > from) this.#events.bytes(data.subarray(from, at));
      from = at;
    };
    while (at < data.length) {
      if (this.#state === 'body') {
        const take = Math.min(this.#bodyLeft, data.length - at);
        this.#readBody(data.subarray(at, at + take));
        at += take;
        this.#bodyLeft -= take;
        if (this.#bodyLeft === 0) this.#state = 'header';
        continue;
      }
      if (this.#state === 'lost') {
        const found = data.indexOf('OggS', at, 'latin1');
        // The last three bytes may be the beginning of the next page.
        at = found < 0 ? Math.max(at, data.length - 3) : found;
        if (found < 0) break;
        this.#state = 'header';
      }
      const page = readPage(data.subarray(at));
      if (page === 'more') break;
      if (page === 'bad') {
        this.#state = 'lost';
        at++;
        continue;
      }
      if (page.first) {
        if (data.length - at < page.headerBytes + page.bodyBytes) break;
        flush();
        this.#beginStream(page.serial, data.subarray(at + page.headerBytes, at + page.headerBytes + page.bodyBytes));
      } else {
        this.#inFirstPages = false;
      }
      this.#lacing = page.serial === this.#serial && this.#packet < 2 ? Buffer.from(page.lacing) : undefined;
      this.#lacingAt = 0;
      this.#lacingLeft = this.#lacing?.[0] ?? 0;
      at += page.headerBytes;
      this.#bodyLeft = page.bodyBytes;
      this.#state = page.bodyBytes > 0 ? 'body' : 'header';
    }
    flush();
    this.#held = at < data.length ? Buffer.from(data.subarray(at)) : Buffer.alloc(0);
  }

  /** Passes on the bytes that are held back, because no more will come. */
  end(): void {
    if (this.#held.length > 0) this.#events.bytes(this.#held);
    this.#held = Buffer.alloc(0);
  }

  #beginStream(serial: number, packet: Buffer): void {
    if (!this.#inFirstPages) {
      // A first page after pages of another kind begins a new link (RFC 3533 4, chaining).
      this.#inFirstPages = true;
      this.#serial = undefined;
    }
    const codec = oggCodecOf(packet);
    if (!codec || this.#serial !== undefined) return;
    const refused = oggPacketRefusal(packet);
    if (refused !== undefined) this.#events.refuse(`this is Ogg with ${refused}`);
    this.#serial = serial;
    this.#codec = codec;
    this.#packet = 0;
    this.#comment = [];
    this.#commentBytes = 0;
    const kind = codec === 'opus' ? `opus ${packet[9]} ${packet[18]}` : codec;
    if (this.#kind !== undefined && kind !== this.#kind) this.#events.newDecoder();
    this.#kind = kind;
  }

  /**
   * Collects the second packet of the audio stream. It may span pages; a lacing value below 255
   * ends a packet.
   */
  #readBody(bytes: Buffer): void {
    let at = 0;
    while (this.#lacing && this.#lacingAt < this.#lacing.length) {
      const take = Math.min(this.#lacingLeft, bytes.length - at);
      if (this.#packet === 1 && take > 0 && this.#commentBytes < COMMENT_BYTES) {
        this.#comment.push(Buffer.from(bytes.subarray(at, at + take)));
        this.#commentBytes += take;
      }
      at += take;
      this.#lacingLeft -= take;
      if (this.#lacingLeft > 0) return;
      const ended = this.#lacing[this.#lacingAt]! < 255;
      this.#lacingLeft = this.#lacing[++this.#lacingAt] ?? 0;
      if (!ended) continue;
      if (this.#packet === 1) this.#readComments(Buffer.concat(this.#comment));
      this.#packet++;
      if (this.#packet > 1) {
        this.#lacing = undefined;
        this.#comment = [];
      }
    }
  }

  #readComments(packet: Buffer): void {
    const magic = packet.toString('latin1', 0, 8);
    if (this.#codec === 'opus' && magic !== 'OpusTags') return;
    if (this.#codec === 'vorbis' && !magic.startsWith('\x03vorbis')) return;
    if (this.#codec === 'flac' && (packet[0]! & 0x7f) !== 4) return;
    const comments = readVorbisComments(packet.subarray(this.#codec === 'opus' ? 8 : this.#codec === 'vorbis' ? 7 : 4));
    const update = titleUpdate(comments.get('TITLE') ?? '', comments.get('ARTIST') ?? '');
    if (update) this.#events.title(update);
  }
}

interface OggPage {
  headerBytes: number;
  bodyBytes: number;
  serial: number;
  first: boolean;
  lacing: Buffer;
}

function readPage(bytes: Buffer): OggPage | 'more' | 'bad' {
  if (!'OggS'.startsWith(bytes.toString('latin1', 0, Math.min(4, bytes.length)))) return 'bad';
  if (bytes.length < 27 || bytes.length < 27 + bytes[26]!) return 'more';
  const headerBytes = 27 + bytes[26]!;
  const lacing = bytes.subarray(27, headerBytes);
  let bodyBytes = 0;
  for (const value of lacing) bodyBytes += value;
  return { headerBytes, bodyBytes, serial: bytes.readUInt32LE(14), first: (bytes[5]! & 2) !== 0, lacing };
}

/**
 * Reads comments (Vorbis I 5.2.1). Names are in upper case; of a repeated name the first value
 * counts. A list that is cut off yields the comments that are whole.
 */
function readVorbisComments(bytes: Buffer): Map<string, string> {
  const comments = new Map<string, string>();
  let at = 0;
  const text = (): string | undefined => {
    if (at + 4 > bytes.length) return undefined;
    const size = bytes.readUInt32LE(at);
    if (size > bytes.length - at - 4) return undefined;
    at += 4 + size;
    return bytes.toString('utf8', at - size, at);
  };
  if (text() === undefined || at + 4 > bytes.length) return comments;
  const count = bytes.readUInt32LE(at);
  at += 4;
  for (let i = 0; i < count; i++) {
    const comment = text();
    if (comment === undefined) break;
    const equals = comment.indexOf('=');
    const name = comment.slice(0, equals).toUpperCase();
    if (equals > 0 && !comments.has(name)) comments.set(name, comment.slice(equals + 1));
  }
  return comments;
}
