/** What of an address counts here; `location` has it. */
export interface PageAddress {
  readonly protocol: string;
  /** An IPv6 address is in its brackets. */
  readonly hostname: string;
  readonly host: string;
  readonly port: string;
}

/**
 * Where the chat is. The service says in the page which of its ports has the chat of which (`8080=8081 8443=8444`); who comes by any other port
 * is behind a proxy, which has the chat at the same place as the page.
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
