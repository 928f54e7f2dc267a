import type { IncomingMessage } from 'node:http';

/**
 * Evaluates the conditional headers of a request in the order of RFC 9110 13.2.2. `etag` is the tag
 * of the current representation; it is undefined when there is none, and then no tag matches.
 * Answers here have no modification date, so `If-Unmodified-Since` and `If-Modified-Since` are
 * ignored (RFC 9110 13.1.4, 13.1.3).
 */
export function conditionOf({ method, headers }: IncomingMessage, etag: string | undefined): 'holds' | 'not-modified' | 'failed' {
  const match = headers['if-match'];
  if (match !== undefined && !isListed(match, etag?.startsWith('W/') ? undefined : etag)) return 'failed';
  const noneMatch = headers['if-none-match'];
  if (noneMatch === undefined || !isListed(noneMatch.replaceAll('W/"', '"'), etag?.replace(/^W\//, ''))) return 'holds';
  return method === 'GET' || method === 'HEAD' ? 'not-modified' : 'failed';
}

/** Splitting at commas is enough: no tag that this service makes contains one. */
const isListed = (list: string, etag: string | undefined) => list.trim() === '*' || list.split(',').some((tag) => tag.trim() === etag);
