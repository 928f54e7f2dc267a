// The control: what this machine needs for the same members, messages and deliveries when a server does nothing but fan out. Processes that share a
// port; lines on bare sockets; from one process to the others by Redis' PUBLISH. bare-server.ts PORT PROCESSES REDIS_URL
import cluster from 'node:cluster';
import { createServer, type Socket } from 'node:net';
import { Redis } from 'ioredis';

const [port = '', processes = '', redisUrl = ''] = process.argv.slice(2);

if (cluster.isPrimary) {
  for (let index = 0; index < Number(processes); index++) cluster.fork();
  let listening = 0;
  cluster.on('listening', () => {
    if (++listening === Number(processes)) console.log('ready');
  });
} else {
  const publisher = new Redis(redisUrl, { enableAutoPipelining: true });
  const subscriber = new Redis(redisUrl);
  const rooms = new Map<string, Set<Socket>>();
  subscriber.on('messageBuffer', (channel: Buffer, line: Buffer) => {
    for (const socket of rooms.get(channel.toString('latin1')) ?? []) socket.write(line);
  });
  const server = createServer({ noDelay: true }, (socket) => {
    let rest = '';
    socket.setEncoding('latin1');
    socket.on('error', () => undefined);
    socket.on('data', (chunk: string) => {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop()!;
      for (const line of lines) {
        const [what, room = '', ...words] = line.split(' ');
        if (what === 'P') void publisher.publish(room, `${words.join(' ')}\n`);
        else {
          let members = rooms.get(room);
          if (!members) {
            members = new Set();
            rooms.set(room, members);
            void subscriber.subscribe(room);
          }
          members.add(socket);
        }
      }
    });
  });
  server.listen({ port: Number(port), host: '127.0.0.1', backlog: 4096 });
}
