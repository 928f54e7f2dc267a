import { type Framing, HttpRefusal, type IngestAnswer, REASONS, type RequestHead } from './wire.js';

/**
 * `POST /ingest/{channel}` is for programs, not for encoders. Refusals are problem documents (RFC
 * 9457).
 */

/**
 * Returns the stream key of a Bearer authorization (RFC 6750). Throws HttpRefusal 401 when there is
 * none.
 */
export function postKey(head: RequestHead): string {
  const match = /^Bearer +([!-~]+)$/i.exec(head.headers.get('authorization') ?? '');
  if (!match) throw new HttpRefusal(401, 'unauthorized', 'the stream key is missing: Authorization: Bearer KEY');
  return match[1]!;
}

/**
 * Returns how the body of a POST ends. By RFC 9112 6.3 a request without a length has no body, so a
 * client that sends until it closes must say so with `Connection: close` or by HTTP/1.0; otherwise
 * HttpRefusal 411 is thrown. Such a body ends as `closed`, since a close may also be a failed
 * connection.
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

export function postRefusal(refusal: HttpRefusal): IngestAnswer {
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

export const POST_DONE: IngestAnswer = { status: 200, headers: { 'Content-Type': 'application/json' }, body: '{"status":"finished"}\n' };
