import { createHmac } from 'node:crypto';

/** How a member speaks to one kind of server. All but `bare` are inside WebSocket frames. */
export interface Dialect {
  /** Path and subprotocol of the WebSocket; undefined: no WebSocket, lines. */
  readonly upgrade: { readonly path: string; readonly protocol?: string } | undefined;
  /** What is sent once connected. */
  hello(member: number): string | undefined;
  /** What a text that is no message is answered with; `ready` is called when the member is in its rooms. */
  answer(text: string, member: number, rooms: readonly string[], ready: () => void): string[];
  /** Whether this text is a message of the room, told by its first bytes. */
  isMessage(head: string): boolean;
  publish(room: string, text: string, key: string): string;
  /** What a publisher counts: accepted, or not. */
  outcome(text: string): 'acked' | 'refused' | undefined;
}

export interface TokenOptions {
  readonly secret: string;
  readonly localRoom: string;
}

const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** Of a platform's gateway: no account is needed, and each is looked at. */
export function tokenOf(member: number, { secret, localRoom }: TokenOptions): string {
  const expiresAtS = Math.floor(Date.now() / 1000) + 6 * 3600;
  const claims = { iss: 'gateway', aud: localRoom, sub: `member-${member}`, name: `Member ${member}`, role: 'listener', exp: expiresAtS };
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

export function veza(tokens: TokenOptions): Dialect {
  const ids = new Map<string, string>();
  return {
    upgrade: { path: '/chat', protocol: 'veza.chat.v1' },
    hello: (member) => JSON.stringify({ t: 'hello', token: tokenOf(member, tokens), client: 'bench' }),
    answer(text, _member, rooms, ready) {
      if (text.startsWith('{"t":"welcome"')) return rooms.map((room) => JSON.stringify({ t: 'join', id: room, room }));
      if (text.startsWith('{"t":"joined"')) {
        // Its first two members; the rest is not looked at, for the load has to cost less than the server.
        const [, id = '', room = ''] = /^\{"t":"joined","id":"([^"]+)","room":"([^"]+)"/.exec(text) ?? [];
        ids.set(id, room);
        if (id === rooms.at(-1)) ready();
      } else if (text.startsWith('{"t":"err"')) throw new Error(text);
      return [];
    },
    isMessage: (head) => head.startsWith('{"t":"msg"'),
    publish: (room, text, key) => JSON.stringify({ t: 'pub', id: key, room: ids.get(room) ?? room, key, body: { text } }),
    outcome: (text) => (text.startsWith('{"t":"ack"') ? 'acked' : /^\{"t":"(?:refused|held|err)"/.test(text) ? 'refused' : undefined),
  };
}

/** Engine.IO 4 by WebSocket alone, Socket.IO 5 within. */
export const socketIo: Dialect = {
  upgrade: { path: '/socket.io/?EIO=4&transport=websocket' },
  hello: () => undefined,
  answer(text, _member, rooms, ready) {
    if (text.startsWith('0')) return ['40'];
    if (text.startsWith('40')) return rooms.map((room, index) => `42${index}["join",${JSON.stringify(room)}]`);
    if (text === '2') return ['3'];
    if (text.startsWith('43') && text.slice(2).startsWith(String(rooms.length - 1))) ready();
    return [];
  },
  isMessage: (head) => head.startsWith('42['),
  publish: (room, text) => `42["pub",${JSON.stringify({ room, text })}]`,
  outcome: () => undefined,
};

export const nats: Dialect = {
  upgrade: { path: '/' },
  hello: () => 'CONNECT {"verbose":false,"pedantic":false,"protocol":1,"echo":true}\r\nPING\r\n',
  answer(text, _member, rooms, ready) {
    if (text.includes('PING\r\n')) return ['PONG\r\n'];
    // The first PONG is the answer to ours.
    if (!text.includes('PONG\r\n')) return [];
    ready();
    return [rooms.map((room, index) => `SUB ${room} ${index}\r\n`).join('')];
  },
  isMessage: (head) => head.startsWith('MSG '),
  publish: (room, text) => `PUB ${room} ${Buffer.byteLength(text)}\r\n${text}\r\n`,
  outcome: () => undefined,
};

/** The control: lines on a bare socket, nothing kept, nothing checked. */
export const bare: Dialect = {
  upgrade: undefined,
  hello: () => undefined,
  answer: () => [],
  isMessage: () => true,
  publish: (room, text) => `P ${room} ${text}\n`,
  outcome: () => undefined,
};
