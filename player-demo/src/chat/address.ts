/** The members of `location` that decide the chat's address. */
export interface PageAddress {
  readonly protocol: string;
  /** An IPv6 address has its brackets. */
  readonly hostname: string;
  readonly host: string;
  readonly port: string;
}

/**
 * The address of the chat. The page says which chat port belongs to which port of the service
 * (`8080=8081 8443=8444`). On any other port there is a proxy, which has the chat at the page's own
 * host.
 */
export function chatUrl(): string {
  return chatUrlFor(location, document.querySelector<HTMLMetaElement>('meta[name="veza-chat-ports"]')?.content ?? '');
}

export function chatUrlFor({ protocol, hostname, host, port }: PageAddress, told: string): string {
  const isSecure = protocol === 'https:';
  const ours = port || (isSecure ? '443' : '80');
  const chatPort = told
    .split(' ')
    .map((pair) => pair.split('='))
    .find(([page]) => page === ours)?.[1];
  const at = chatPort === undefined || chatPort === ours || chatPort === '0' ? host : `${hostname}:${chatPort}`;
  return `${isSecure ? 'wss:' : 'ws:'}//${at}/chat`;
}
