import { connect } from 'node:net';

export interface RawAnswer {
  readonly status: number;
  /** Lower-case names; of several fields with one name the last. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/**
 * Sends bytes as they are and reads until the server closes, or until there are `answers` final ones (interim ones, 1xx, come before them in the
 * list). `HEAD`: no answer has a body.
 */
export function sendRaw(port: number, bytes: string | Buffer, options: { answers?: number; isHead?: boolean } = {}): Promise<RawAnswer[]> {
  return new Promise((resolve) => {
    const { answers = Number.POSITIVE_INFINITY, isHead = false } = options;
    let text = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(bytes));
    socket.on('data', (got) => {
      text += got.toString('latin1');
      if (readAnswers(text, isHead).filter(({ status }) => status >= 200).length >= answers) socket.destroy();
    });
    socket.on('error', () => undefined);
    // A server that does not answer fails the test by what is missing.
    socket.setTimeout(10_000, () => socket.destroy());
    socket.on('close', () => resolve(readAnswers(text, isHead)));
  });
}

/** The whole answers in a text. A body without a length goes to the end. */
function readAnswers(text: string, isHead: boolean): RawAnswer[] {
  const found: RawAnswer[] = [];
  for (let at = 0; at < text.length; ) {
    const end = text.indexOf('\r\n\r\n', at);
    if (end < 0) break;
    const [first = '', ...lines] = text.slice(at, end).split('\r\n');
    const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(first)?.[1] ?? Number.NaN);
    const headers = Object.fromEntries(
      lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]),
    );
    const isBodiless = isHead || status < 200 || status === 204 || status === 304;
    const length = isBodiless ? 0 : Number(headers['content-length'] ?? text.length);
    if (headers['content-length'] !== undefined && text.length < end + 4 + length) break;
    found.push({ status, headers, body: text.slice(end + 4, end + 4 + length) });
    at = end + 4 + length;
  }
  return found;
}
