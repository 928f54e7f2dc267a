import type { IncomingMessage } from 'node:http';

/**
 * What the conditions of a request are worth, in the order of RFC 9110 13.2.2. `etag`: of the current representation, undefined when it has none, so
 * that no tag matches it. Nothing here has a modification date: `If-Unmodified-Since` and `If-Modified-Since` are ignored, as 13.1.4 and 13.1.3 have it.
 */
export function conditionOf({ method, headers }: IncomingMessage, etag: string | undefined): 'holds' | 'not-modified' | 'failed' {
  const match = headers['if-match'];
  if (match !== undefined && !isListed(match, etag?.startsWith('W/') ? undefined : etag)) return 'failed';
  const noneMatch = headers['if-none-match'];
  if (noneMatch === undefined || !isListed(noneMatch.replaceAll('W/"', '"'), etag?.replace(/^W\//, ''))) return 'holds';
  return method === 'GET' || method === 'HEAD' ? 'not-modified' : 'failed';
}

/** No tag of ours has a comma in it. */
const isListed = (list: string, etag: string | undefined) => list.trim() === '*' || list.split(',').some((tag) => tag.trim() === etag);
