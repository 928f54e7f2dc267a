import type { IncomingMessage } from 'node:http';
import { VezaError } from '../../runtime/errors.js';

export const MAX_BODY_BYTES = 64 * 1024;
export const MAX_JSON_DEPTH = 16;

/**
 * Reads the request's JSON; undefined when it has no body. Rejects with `payload_too_large`,
 * `unsupported_media` or `bad_request`. Only UTF-8 is taken (RFC 8259 8.1), and no compression: a
 * few kilobytes could become gigabytes.
 */
export async function readJson(req: IncomingMessage): Promise<unknown> {
  const declared = Number(req.headers['content-length'] ?? 0);
  if (declared > MAX_BODY_BYTES) throw tooLarge();
  const encoding = req.headers['content-encoding'];
  if (encoding !== undefined && encoding.toLowerCase() !== 'identity') {
    throw new VezaError('unsupported_media', 'The body must not be compressed: send it without Content-Encoding.');
  }
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  try {
    for await (const chunk of req as AsyncIterable<Buffer>) {
      sizeBytes += chunk.length;
      if (sizeBytes > MAX_BODY_BYTES) break;
      chunks.push(chunk);
    }
  } catch (error) {
    throw new VezaError('bad_request', 'The request ended before its body was complete.', { cause: error });
  }
  if (sizeBytes > MAX_BODY_BYTES) throw tooLarge();
  if (sizeBytes === 0) return undefined;
  const type = /^application\/(?:[\w.-]+\+)?json\s*(?:;(.*))?$/i.exec(req.headers['content-type'] ?? '');
  if (!type) throw new VezaError('unsupported_media', 'The body must be application/json.');
  const charset = /(?:^|;)\s*charset\s*=\s*"?([^";\s]*)/i.exec(type[1] ?? '')?.[1];
  if (charset !== undefined && !/^utf-?8$/i.test(charset)) throw new VezaError('unsupported_media', 'The body must be UTF-8.');
  const text = textOf(Buffer.concat(chunks));
  if (depthOf(text) > MAX_JSON_DEPTH) throw new VezaError('bad_request', `The body may be nested at most ${MAX_JSON_DEPTH} levels deep.`);
  try {
    return JSON.parse(text, noPrototype);
  } catch (error) {
    if (error instanceof VezaError) throw error;
    throw new VezaError('bad_request', 'The body is not JSON.', { cause: error });
  }
}

const tooLarge = () => new VezaError('payload_too_large', `The body may have at most ${MAX_BODY_BYTES} bytes.`);

const decoder = new TextDecoder('utf-8', { fatal: true });

function textOf(bytes: Buffer): string {
  try {
    return decoder.decode(bytes);
  } catch (error) {
    throw new VezaError('bad_request', 'The body is not UTF-8.', { cause: error });
  }
}

/** Refuses `__proto__`: code that copies members one by one would set the prototype. */
function noPrototype(key: string, value: unknown): unknown {
  if (key === '__proto__') throw new VezaError('bad_request', 'The body has a member "__proto__".');
  return value;
}

/** Nesting depth of brackets outside strings, found before the text is parsed. */
function depthOf(json: string): number {
  let depth = 0;
  let deepest = 0;
  let inString = false;
  for (let at = 0; at < json.length; at++) {
    const letter = json[at];
    if (inString) {
      if (letter === '\\') at++;
      else if (letter === '"') inString = false;
    } else if (letter === '"') inString = true;
    else if (letter === '[' || letter === '{') deepest = Math.max(deepest, ++depth);
    else if (letter === ']' || letter === '}') depth--;
  }
  return deepest;
}
