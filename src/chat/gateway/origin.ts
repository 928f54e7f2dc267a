export interface OriginRules {
  readonly publicUrl: string;
  readonly corsEnabled: boolean;
  readonly allowedOrigins: readonly string[];
}

/**
 * Returns a check of which pages may open a chat connection: the service's own, pages of the same
 * host, and those in `ALLOWED_ORIGINS`.
 */
export function originCheck({
  publicUrl,
  corsEnabled,
  allowedOrigins,
}: OriginRules): (origin: string, host: string | undefined) => boolean {
  const own = new URL(publicUrl);
  const allowed = new Set(corsEnabled ? allowedOrigins : []);
  return (origin, host) => {
    if (allowed.has('*') || allowed.has(origin) || origin === own.origin) return true;
    // The host name alone is compared: the chat's port may differ from the page's.
    const nameOf = (value: string) => (URL.canParse(value) ? new URL(value).hostname : undefined);
    const page = nameOf(origin);
    return page !== undefined && host !== undefined && page === nameOf(`http://${host}`);
  };
}
