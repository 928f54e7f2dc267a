// One of the processes that share a port, for the tests of that: says its number to whoever it accepts, and holds him.
import type { Socket } from 'node:net';
import type { ChatPort, PortHandle } from '../../src/chat/processes/process-pool.js';
import { Acceptor } from '../../src/chat/processes/shared-port.js';

const name = process.argv[2]!;
const acceptor = new Acceptor({
  take: (socket: Socket) => {
    socket.on('error', () => undefined);
    socket.resume();
    socket.write(name);
  },
  changed: () => process.send!(acceptor.accepts ? 'accepts' : 'ceased'),
  failed: ({ message }) => process.send!(message),
  most: 4,
});
process.on('message', ({ upTo, at, of = 1 }: { upTo: number; at?: ChatPort; of?: number }, handle: unknown) => {
  if (upTo < 0) acceptor.stop();
  else acceptor.acceptUpTo(upTo);
  if (at && handle) acceptor.addPort(at, handle as PortHandle, of);
});
process.on('disconnect', () => process.exit(0));
process.send!('ready');
