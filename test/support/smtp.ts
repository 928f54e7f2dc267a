import type { AddressInfo } from 'node:net';
import { SMTPServer } from 'smtp-server';

interface ReceivedMail {
  readonly from: string;
  readonly to: readonly string[];
  /** As it came. */
  readonly raw: string;
  readonly headers: ReadonlyMap<string, string>;
  readonly text: string;
  /** The token of the link in it. */
  readonly token: string | undefined;
}

export interface SmtpServer {
  readonly url: string;
  readonly mails: ReceivedMail[];
  /** Connections that were made. */
  readonly connections: () => number;
  /** What a recipient is answered with; undefined: taken. */
  refuse: (to: string) => { responseCode: number; message: string } | undefined;
  stop(): Promise<void>;
}

/** A mail server that takes everything, on a free port. */
export async function startSmtp(): Promise<SmtpServer> {
  const mails: ReceivedMail[] = [];
  let connections = 0;
  const server = new SMTPServer({
    disabledCommands: ['STARTTLS', 'AUTH'],
    logger: false,
    onConnect(_session, done) {
      connections++;
      done();
    },
    onRcptTo({ address }, _session, done) {
      const refused = result.refuse(address);
      done(refused && Object.assign(new Error(refused.message), { responseCode: refused.responseCode }));
    },
    onData(stream, session, done) {
      const chunks: Buffer[] = [];
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      stream.on('end', () => {
        const { mailFrom, rcptTo } = session.envelope;
        mails.push(
          received(
            mailFrom ? mailFrom.address : '',
            rcptTo.map(({ address }) => address),
            Buffer.concat(chunks).toString('latin1'),
          ),
        );
        done();
      });
    },
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const result: SmtpServer = {
    url: `smtp://127.0.0.1:${(server.server.address() as AddressInfo).port}`,
    mails,
    connections: () => connections,
    refuse: () => undefined,
    stop: () => new Promise((resolve) => server.close(resolve)),
  };
  return result;
}

function received(from: string, to: string[], raw: string): ReceivedMail {
  const end = raw.indexOf('\r\n\r\n');
  const headers = new Map<string, string>();
  for (const line of raw
    .slice(0, end)
    .replace(/\r\n[ \t]+/g, ' ')
    .split('\r\n')) {
    const colon = line.indexOf(':');
    headers.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim());
  }
  const body = raw.slice(end + 4);
  const text = headers.get('content-transfer-encoding') === 'quoted-printable' ? quotedPrintable(body) : body;
  return { from, to, raw, headers, text: text.replaceAll('\r\n', '\n'), token: /#token=([\w-]+)/.exec(text)?.[1] };
}

/** RFC 2045 6.7. */
function quotedPrintable(body: string): string {
  const bytes = body.replace(/=\r\n/g, '').replace(/=([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  return Buffer.from(bytes, 'latin1').toString('utf8');
}
