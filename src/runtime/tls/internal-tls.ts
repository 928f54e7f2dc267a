import type { ConnectionOptions, TlsOptions } from 'node:tls';
import type { Certificates } from './tls-files.js';

/**
 * Options for mutual TLS between the service's own processes, and with monitoring systems. Both
 * sides show a certificate that the installation's own authority signed, and accept no other. TLS
 * 1.3 only, since both ends are under the operator's control. `ca` is required: without it a
 * certificate of any public authority would be accepted.
 */
export function internalServerTls(certificates: Certificates): TlsOptions {
  return { ...trusted(certificates), requestCert: true, rejectUnauthorized: true };
}

/**
 * The same for the client's side (`https.request`, `tls.connect`, HTTP/2). The server's name is
 * checked too.
 */
export function internalClientTls(certificates: Certificates): ConnectionOptions {
  return { ...trusted(certificates), rejectUnauthorized: true };
}

function trusted({ cert, key, ca }: Certificates) {
  if (!ca) throw new Error('mutual TLS needs the certificate of the authority that signs for both sides');
  return { cert, key, ca, minVersion: 'TLSv1.3' } as const;
}
