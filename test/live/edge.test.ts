import { edgeContract } from '../contract/edge.js';
import { caughtUp, clockWith, startRemote, TestWorker } from '../support/remote-worker.js';

edgeContract('in this process', async (_t, world) => ({ edge: world.live, caughtUp: async () => undefined }));

edgeContract('at a worker', async (t, world) => {
  const worker = await TestWorker.start(world.live);
  const edge = await startRemote(worker.url, clockWith(world.clock));
  t.after(async () => {
    edge.stop();
    await worker.kill();
  });
  return { edge, caughtUp: () => caughtUp(edge) };
});
