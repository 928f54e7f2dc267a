import { HttpRefusal } from './http/wire.js';
import { OggScanner } from './ogg.js';
import { Sniffer, type SniffLimits, TAKEN } from './sniff.js';
import type { Admission, Source, SourceEnd, SourceFormat } from './source.js';

export interface PublicationOptions {
  readonly admission: Admission;
  readonly contentType: string;
  readonly limits: SniffLimits;
  /** The decoder reads again: called after `push` answered false. */
  onDrain(): void;
  /** Veza ends this; the connection has to be closed. At most once, and not after `end`. */
  onClose(error: { code: string; message: string }): void;
}

/**
 * A broadcaster's body, from its first byte: recognised, opened as a source, written on. An Ogg stream may need several
 * sources one after the other on the same admission.
 */
export class Publication {
  readonly #options: PublicationOptions;
  #sniffer: Sniffer | undefined;
  #format: SourceFormat | undefined;
  #source: Source | undefined;
  #ogg: OggScanner | undefined;
  #opened = 0;
  #writable = true;
  #ended = false;

  constructor(options: PublicationOptions) {
    this.#options = options;
    this.#sniffer = new Sniffer(options.limits, options.contentType);
  }

  get format(): SourceFormat | undefined {
    return this.#format;
  }

  /** False: read no more until `onDrain`. */
  get writable(): boolean {
    return this.#writable;
  }

  /** What to answer when the body is over already; undefined when it was recognised. */
  get unrecognised(): HttpRefusal | undefined {
    return this.#sniffer && new HttpRefusal(415, 'unsupported_media', this.#sniffer.end().message);
  }

  /** Throws HttpRefusal 415 for what is not taken, and what the admission throws. */
  push(bytes: Buffer): void {
    if (this.#ended) return;
    if (!this.#sniffer) {
      if (this.#ogg) this.#ogg.push(bytes);
      else this.#write(bytes);
      return;
    }
    const sniffed = this.#sniffer.push(bytes);
    if (!sniffed) return;
    if (sniffed.kind === 'refused') throw new HttpRefusal(415, 'unsupported_media', sniffed.message);
    this.#sniffer = undefined;
    this.#format = sniffed.format;
    this.#open();
    if (sniffed.format === 'ogg') {
      this.#ogg = new OggScanner({
        bytes: (passed) => this.#write(passed),
        newDecoder: () => {
          // What it has is still played; the next one goes on after it.
          this.#source?.end('finished');
          this.#open();
        },
        title: (update) => this.#source?.title(update),
        refuse: (reason) => {
          throw new HttpRefusal(415, 'unsupported_media', `${reason}; taken are ${TAKEN}`);
        },
      });
    }
    this.push(sniffed.bytes);
  }

  /** Idempotent; returns what `Source.end` does. */
  end(how: SourceEnd): Promise<void> | undefined {
    if (this.#ended) return undefined;
    this.#ogg?.end();
    this.#ended = true;
    return this.#source?.end(how);
  }

  #write(bytes: Buffer): void {
    if (!this.#ended) this.#writable = this.#source!.write(bytes);
  }

  #open(): void {
    // Events of a source that was followed by another one are nobody's any more.
    const number = ++this.#opened;
    this.#writable = true;
    this.#source = this.#options.admission.open(this.#format!, {
      onDrain: () => {
        if (number !== this.#opened || this.#ended || this.#writable) return;
        this.#writable = true;
        this.#options.onDrain();
      },
      onClose: (error) => {
        if (number !== this.#opened || this.#ended) return;
        this.#ended = true;
        // The room behind the gate does not know what this port takes.
        const list = error.code === 'unsupported_media' ? `; taken are ${TAKEN}` : '';
        this.#options.onClose({ code: error.code, message: `${error.message}${list}` });
      },
    });
  }
}
