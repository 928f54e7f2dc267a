import { HttpRefusal } from './http/wire.js';
import { OggScanner } from './ogg.js';
import { Sniffer, type SniffLimits, TAKEN } from './sniff.js';
import type { IngestAdmission, Source, SourceEnd, SourceFormat } from './source.js';

export interface PublicationOptions {
  readonly admission: IngestAdmission;
  readonly contentType: string;
  readonly limits: SniffLimits;
  /** Called when the decoder takes bytes again, after `push` has set `writable` to false. */
  onDrain(): void;
  /**
   * Called when Veza ends the source: the connection has to be closed. At most once, and not after
   * `end`.
   */
  onClose(error: { code: string; message: string }): void;
}

/**
 * The body of a broadcaster, from its first byte: its format is recognised, a source is opened, and
 * the bytes are written to it. An Ogg stream may need several sources, one after the other, on the
 * same admission.
 */
export class Publication {
  readonly #options: PublicationOptions;
  #sniffer: Sniffer | undefined;
  #format: SourceFormat | undefined;
  #source: Source | undefined;
  #ogg: OggScanner | undefined;
  #sourceNumber = 0;
  #writable = true;
  #ended = false;

  constructor(options: PublicationOptions) {
    this.#options = options;
    this.#sniffer = new Sniffer(options.limits, options.contentType);
  }

  get format(): SourceFormat | undefined {
    return this.#format;
  }

  /** When false, read no more from the socket until `onDrain`. */
  get writable(): boolean {
    return this.#writable;
  }

  /**
   * The refusal for a body that has ended before its format was recognised; undefined when it was
   * recognised.
   */
  get unrecognised(): HttpRefusal | undefined {
    return this.#sniffer && new HttpRefusal(415, 'unsupported_media', this.#sniffer.end().message);
  }

  /**
   * Takes the next bytes of the body. Throws HttpRefusal 415 for a format that is not accepted, and
   * whatever `IngestAdmission.open` throws.
   */
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
          // The sound that the old source holds is still played; the new source follows it.
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

  /** Ends the source. Twice is harmless. Returns what `Source.end` returns. */
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
    // Events of a source that another one has replaced are ignored.
    const number = ++this.#sourceNumber;
    this.#writable = true;
    this.#source = this.#options.admission.open(this.#format!, {
      onDrain: () => {
        if (number !== this.#sourceNumber || this.#ended || this.#writable) return;
        this.#writable = true;
        this.#options.onDrain();
      },
      onClose: (error) => {
        if (number !== this.#sourceNumber || this.#ended) return;
        this.#ended = true;
        // The live room does not know which formats this port accepts, so the list is added here.
        const list = error.code === 'unsupported_media' ? `; taken are ${TAKEN}` : '';
        this.#options.onClose({ code: error.code, message: `${error.message}${list}` });
      },
    });
  }
}
