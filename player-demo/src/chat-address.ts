/**
 * Where the chat is. The service says in the page which of its ports has the chat of which (`8080=8081 8443=8444`); who comes by any other port
 * is behind a proxy, which has the chat at the same place as the page.
 */
export function chatUrl(): string {
  const { protocol, hostname, host, port } = location;
  const isSecure = protocol === 'https:';
  const ours = port || (isSecure ? '443' : '80');
  const told = document.querySelector<HTMLMetaElement>('meta[name="veza-chat-ports"]')?.content ?? '';
  const chatPort = told
    .split(' ')
    .map((pair) => pair.split('='))
    .find(([page]) => page === ours)?.[1];
  // `hostname` has an IPv6 address in its brackets already.
  const at = chatPort === undefined || chatPort === ours || chatPort === '0' ? host : `${hostname}:${chatPort}`;
  return `${isSecure ? 'wss:' : 'ws:'}//${at}/chat`;
}
