import { type ServerResponse, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { ERROR_CODES, type ErrorCode } from './errors.js';

/** Why a request is refused. One place turns it into bytes. */
export interface Refusal {
  readonly code: ErrorCode;
  readonly detail: string;
  /** Additional header fields: names and values in turn. */
  readonly headers?: readonly string[];
}

/** Every method that some address of the service takes. */
export const METHODS = 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS';
export const NO_CONNECT: Refusal = { code: 'not_implemented', detail: 'the service is not a proxy', headers: ['Allow', METHODS] };

/** The text of an RFC 9457 problem document. */
function problemText({ code, detail }: Refusal): string {
  const status = ERROR_CODES[code];
  return JSON.stringify({ type: 'about:blank', title: STATUS_CODES[status], status, code, detail });
}

/**
 * Answers with a problem document that is never cached. A 503 also says that the client may try
 * again after a second. Throws when the head has been sent.
 */
export function sendRefusal(res: ServerResponse, refusal: Refusal, more: readonly string[] = []): void {
  const body = Buffer.from(problemText(refusal));
  res.writeHead(ERROR_CODES[refusal.code], [...fieldsOf(refusal, body.length), ...more]);
  res.end(body);
}

/**
 * Sends the refusal where there is no response object: for bytes that are no request, and for a
 * connection that left HTTP. Closes the connection.
 */
export function refuseSocket(socket: Duplex, refusal: Refusal): void {
  const status = ERROR_CODES[refusal.code];
  const body = problemText(refusal);
  const fields = [...fieldsOf(refusal, Buffer.byteLength(body))];
  // RFC 9110 7.8: a response with the field `Upgrade` has to list it in `Connection`.
  const connection = fields.includes('Upgrade') ? 'close, Upgrade' : 'close';
  fields.push('Date', new Date().toUTCString(), 'Connection', connection);
  let head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n`;
  for (let at = 0; at < fields.length; at += 2) head += `${fields[at]}: ${fields[at + 1]}\r\n`;
  // The client may keep its half of the connection open, so the socket is destroyed here.
  socket.once('finish', () => socket.destroy());
  socket.end(`${head}\r\n${body}`);
}

const fieldsOf = ({ code, headers = [] }: Refusal, sizeBytes: number): string[] => [
  'Content-Type',
  'application/problem+json',
  'Content-Length',
  String(sizeBytes),
  'Cache-Control',
  'no-store',
  ...(ERROR_CODES[code] === 503 ? ['Retry-After', '1'] : []),
  ...headers,
];
