import { createServer } from 'node:net';

/**
 * Ports that nobody listens on at this moment, all different. Only for programs that must be told a port beforehand and keep it
 * over a restart; whatever runs in the test's own process listens on 0.
 */
export async function freePorts(count: number): Promise<number[]> {
  // All are held until the last is found, or the system would give the same one twice.
  const holders = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<ReturnType<typeof createServer>>((resolve, reject) => {
          const server = createServer();
          server.once('error', reject);
          server.listen(0, '127.0.0.1', () => resolve(server));
        }),
    ),
  );
  const ports = holders.map((server) => {
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('a listening TCP server has a port');
    return address.port;
  });
  await Promise.all(holders.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
