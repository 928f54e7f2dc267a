import type { ConnectionOptions, TlsOptions } from 'node:tls';
import type { Certificates } from './tls-files.js';

/**
 * Mutual TLS between our own processes, and those who watch them: both sides show a certificate that the installation's own authority has
 * signed, and take nothing else. TLS 1.3, since both ends are ours. `ca` must be there: without it any public authority would do.
 */
export function internalServerTls(certificates: Certificates): TlsOptions {
  return { ...trusted(certificates), requestCert: true, rejectUnauthorized: true };
}

/** For `https.request`, `tls.connect` and HTTP/2. The server's name is checked, too. */
export function internalClientTls(certificates: Certificates): ConnectionOptions {
  return { ...trusted(certificates), rejectUnauthorized: true };
}

function trusted({ cert, key, ca }: Certificates) {
  if (!ca) throw new Error('mutual TLS needs the certificate of the authority that signs for both sides');
  return { cert, key, ca, minVersion: 'TLSv1.3' } as const;
}
