// One of the processes that share a port, for the tests of that: says its number to whoever it accepts, and holds him.
import type { Socket } from 'node:net';
import type { PortHandle } from '../../src/chat/processes.js';
import { Acceptor } from '../../src/chat/shared-port.js';

const name = process.argv[2]!;
const acceptor = new Acceptor({
  take: (socket: Socket) => {
    socket.on('error', () => undefined);
    socket.resume();
    socket.write(name);
  },
  changed: () => process.send!(acceptor.accepts ? 'accepts' : 'ceased'),
  most: 4,
});
process.on('message', ({ upTo, at }: { upTo: number; at?: 'plain' }, handle: unknown) => {
  if (upTo < 0) acceptor.stop();
  else acceptor.accept(upTo, at, handle as PortHandle | undefined);
});
process.on('disconnect', () => process.exit(0));
process.send!('ready');
