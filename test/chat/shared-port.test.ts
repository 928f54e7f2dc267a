import assert from 'node:assert/strict';
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { SharedPort } from '../../src/chat/processes/shared-port.js';
import { freePorts } from '../support/free-port.js';

async function world(t: TestContext, names: readonly string[]) {
  const [port] = (await freePorts(1)) as [number];
  const shared = await SharedPort.bind('127.0.0.1', port);
  const children = await Promise.all(
    names.map(async (name) => {
      const child = fork(new URL('./accepting-process.ts', import.meta.url), [name], {
        execArgv: ['--import', 'tsx'],
        serialization: 'advanced',
      });
      t.after(() => child.kill('SIGKILL'));
      await once(child, 'message');
      return child;
    }),
  );
  t.after(() => shared.close());
  /** Resolves to what it says of it. */
  const offer = async (child: ChildProcess, upTo: number): Promise<unknown> => {
    const said = once(child, 'message');
    child.send({ upTo, at: 'plain' }, shared.handle);
    return (await said)[0];
  };
  const sockets: Socket[] = [];
  t.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  return {
    shared,
    port,
    children: children as [ChildProcess, ChildProcess],
    offer,
    share: async (child: ChildProcess, upTo: number) => assert.equal(await offer(child, upTo), 'accepts'),
    /** Resolves to who has accepted; `''`: it was closed. */
    async come(at = port): Promise<string> {
      const socket = connect(at, '127.0.0.1');
      sockets.push(socket);
      socket.on('error', () => undefined);
      return Promise.race([once(socket, 'data').then(([data]) => String(data)), once(socket, 'close').then(() => '')]);
    },
    leave: () => sockets.shift()!.destroy(),
  };
}

test('a process accepts as many as it was told, and who comes after waits for the next', async (t) => {
  const { children, share, come } = await world(t, ['a', 'b']);
  const [a, b] = children;
  await share(a, 2);
  assert.deepEqual([await come(), await come()], ['a', 'a']);
  const third = come();
  await share(b, 2);
  assert.equal(await third, 'b');
});

test('who waits is not lost with the process that was to take him', async (t) => {
  const { children, share, come } = await world(t, ['a', 'b']);
  const [a, b] = children;
  await share(a, 3);
  assert.equal(await come(), 'a');
  a.kill('SIGSTOP');
  const waiting = [come(), come()];
  a.kill('SIGKILL');
  await once(a, 'exit');
  await share(b, 2);
  assert.deepEqual(await Promise.all(waiting), ['b', 'b']);
});

test('whoever has left is not counted', async (t) => {
  const { children, offer, share, come, leave } = await world(t, ['a', 'b']);
  const [a] = children;
  await share(a, 1);
  assert.equal(await come(), 'a');
  assert.equal(await offer(a, 1), 'ceased', 'it is full');
  leave();
  while ((await offer(a, 1)) === 'ceased');
  assert.equal(await come(), 'a');
});

test('it lets go of the port when it is told less than it has, and for good when it was stopped', async (t) => {
  const { shared, children, share, come } = await world(t, ['a', 'b']);
  const [a, b] = children;
  await share(a, 3);
  assert.equal(await come(), 'a');
  const ceased = once(a, 'message');
  a.send({ upTo: 1 });
  await ceased;
  const waiting = come();
  a.send({ upTo: -1 });
  a.send({ upTo: 4, at: 'plain' }, shared.handle);
  await share(b, 1);
  assert.equal(await waiting, 'b');
});

test('of two ports it accepts from both or from none', async (t) => {
  const { shared, port, children, come } = await world(t, ['a', 'b']);
  const [a] = children;
  const [otherPort] = (await freePorts(1)) as [number];
  const other = await SharedPort.bind('127.0.0.1', otherPort);
  t.after(() => other.close());
  a.send({ upTo: 2, at: 'plain', of: 2 }, shared.handle);
  // What was lost of a round does not come into the next one.
  a.send({ upTo: 2, at: 'plain', of: 2 }, shared.handle);
  const said = once(a, 'message');
  a.send({ upTo: 2, at: 'secure', of: 2 }, other.handle);
  assert.deepEqual((await said)[0], 'accepts');
  const ceased = once(a, 'message');
  assert.deepEqual([await come(port), await come(otherPort)], ['a', 'a']);
  assert.deepEqual((await ceased)[0], 'ceased', 'it is full');
});

test('that it cannot listen is said, and it accepts from neither port', async (t) => {
  const { shared, children, come } = await world(t, ['a', 'b']);
  const [a] = children;
  // Bound before anybody listens there, which Linux allows, and listened at by another meanwhile.
  const [takenPort] = (await freePorts(1)) as [number];
  const taken = await SharedPort.bind('127.0.0.1', takenPort);
  t.after(() => taken.close());
  const other = createServer().listen(takenPort, '127.0.0.1');
  t.after(() => other.close());
  await once(other, 'listening');
  const said = once(a, 'message');
  a.send({ upTo: 2, at: 'plain', of: 2 }, shared.handle);
  a.send({ upTo: 2, at: 'secure', of: 2 }, taken.handle);
  assert.match(String((await said)[0]), /EADDRINUSE/);
  const again = once(a, 'message');
  a.send({ upTo: 2, at: 'plain' }, shared.handle);
  assert.deepEqual((await again)[0], 'accepts');
  assert.equal(await come(), 'a');
});

test('sockets beyond the most that it may have are closed', async (t) => {
  const { children, share, come } = await world(t, ['a', 'b']);
  await share(children[0], 10);
  const came: string[] = [];
  for (let n = 0; n < 5; n++) came.push(await come());
  assert.deepEqual(came, ['a', 'a', 'a', 'a', '']);
});

test('a port that is taken, or a host that is not here, is refused as Node does', async (t) => {
  const other = createServer().listen(0, '127.0.0.1');
  t.after(() => other.close());
  await once(other, 'listening');
  const { port } = other.address() as { port: number };
  await assert.rejects(SharedPort.bind('127.0.0.1', port), { code: 'EADDRINUSE', syscall: 'listen', port });
  await assert.rejects(SharedPort.bind('192.0.2.1', 0), { code: 'EADDRNOTAVAIL' });
  await assert.rejects(SharedPort.bind('no-such-host.invalid', 0), { code: /ENOTFOUND|EAI_AGAIN/ });
  const named = await SharedPort.bind('localhost', 0);
  named.close();
  named.close();
});
