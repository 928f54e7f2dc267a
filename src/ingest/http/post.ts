import { type Answer, type Framing, HttpRefusal, REASONS, type RequestHead } from './wire.js';

/** `POST /ingest/{channel}`: programs, not encoders. They get problem documents (RFC 9457). */

/** The stream key of a Bearer authorization (RFC 6750). Throws HttpRefusal 401. */
export function postKey(head: RequestHead): string {
  const match = /^Bearer +([!-~]+)$/i.exec(head.headers.get('authorization') ?? '');
  if (!match) throw new HttpRefusal(401, 'unauthorized', 'the stream key is missing: Authorization: Bearer KEY');
  return match[1]!;
}

/**
 * RFC 9112 6.3: a request without a length has no body. A client that means to send until it closes has to say so, with
 * `Connection: close` or HTTP/1.0, else 411. Its end is then a lost line, since a close does not tell.
 */
export function postFraming(framing: Framing, head: RequestHead): Framing {
  if (framing.kind !== 'none') return framing;
  const closes = (head.headers.get('connection') ?? '')
    .toLowerCase()
    .split(/[ \t]*,[ \t]*/)
    .includes('close');
  if (closes || head.version !== 'HTTP/1.1') return { kind: 'close' };
  throw new HttpRefusal(411, 'length_required', 'send the body chunked, or with Content-Length, or with Connection: close');
}

export function postRefusal(refusal: HttpRefusal): Answer {
  const { status, code, message } = refusal;
  return {
    status,
    headers: {
      'Content-Type': 'application/problem+json',
      ...(status === 401 ? { 'WWW-Authenticate': 'Bearer realm="Veza"' } : {}),
      ...refusal.headers,
    },
    body: `${JSON.stringify({ type: 'about:blank', title: REASONS[status] ?? 'Error', status, code, detail: message })}\n`,
  };
}

export const POST_DONE: Answer = { status: 200, headers: { 'Content-Type': 'application/json' }, body: '{"status":"finished"}\n' };
