export interface Query {
  msn?: string;
  part?: string;
  skip?: string;
  session?: string;
  token?: string;
}

/** The player's session (CTA-5004) in its header or query parameter. */
export const CMCD_SESSION = /(?:%2C|,|=|^)sid(?:%3D|=)(?:%22|")([A-Za-z0-9._~-]{1,64})(?:%22|")/i;

/** Reads the parameters that mean something here; all others are ignored. */
export function parseQuery(url: string, from: number): Query {
  const query: Query = {};
  for (let at = from; at < url.length; ) {
    let end = url.indexOf('&', at);
    if (end < 0) end = url.length;
    if (url.startsWith('_HLS_msn=', at)) query.msn = url.slice(at + 9, end);
    else if (url.startsWith('_HLS_part=', at)) query.part = url.slice(at + 10, end);
    else if (url.startsWith('_HLS_skip=', at)) query.skip = url.slice(at + 10, end);
    else if (url.startsWith('token=', at)) query.token = url.slice(at + 6, end);
    else if (url.startsWith('CMCD=', at)) {
      const session = CMCD_SESSION.exec(url.slice(at, end))?.[1];
      if (session !== undefined) query.session = session;
    }
    at = end + 1;
  }
  return query;
}
