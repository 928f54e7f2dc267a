/**
 * Where the chat is. The service says in the page which ports it has (`8080 8081`); who comes by the first reaches the chat at the second, and
 * who comes by any other is behind a proxy, which has the chat at the same place as the page.
 */
export function chatUrl(): string {
  const { protocol, hostname, host, port } = location;
  const scheme = protocol === 'https:' ? 'wss:' : 'ws:';
  const [pagePort, chatPort] = (document.querySelector<HTMLMetaElement>('meta[name="veza-ports"]')?.content ?? '').split(' ');
  const ours = port || (protocol === 'https:' ? '443' : '80');
  const isDirect = chatPort !== undefined && chatPort !== '' && pagePort === ours;
  const at =
    isDirect && chatPort !== pagePort
      ? `${hostname.includes(':') && !hostname.startsWith('[') ? `[${hostname}]` : hostname}:${chatPort}`
      : host;
  return `${scheme}//${at}/chat`;
}
