// A receiver beside the real service: a show with a lost line and a power cut in it is one on air, one off air and one recording.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isSigned, Receiver } from '../access/webhook-support.js';
import { reachesState, sounding, startServer } from '../support/on-air.js';
import { eventually } from '../support/process.js';
import { publishRtmp } from '../support/publishers.js';

test('a show is told from its beginning to its recording, once, over a crash of the service', async () => {
  const receiver = await Receiver.open();
  const server = await startServer({ WEBHOOK_ALLOWED_HOSTS: '127.0.0.1', RECONNECT_WINDOW_S: '30' });
  const publish = (key: string) => publishRtmp(server.rtmpUrl(key), { hz: 997, seconds: 60 });
  let publisher: ReturnType<typeof publish> | undefined;
  try {
    const key = await server.createChannel('radio');
    const { secret } = await server.api<{ secret: string }>('POST', '/channels/radio/webhooks', {
      url: receiver.url(),
      events: ['channel.on_air', 'channel.off_air', 'recording.ready'],
    });
    publisher = publish(key);
    await sounding(server, 'radio', 2);
    await receiver.has(1);

    // The line is lost and comes back; then the service dies, and goes on.
    await publisher.kill('SIGKILL');
    await reachesState(server, 'radio', 'holding');
    publisher = publish(key);
    await reachesState(server, 'radio', 'live');
    await server.kill9();
    await publisher.kill('SIGKILL');
    await server.restart();
    publisher = publish(key);
    await reachesState(server, 'radio', 'live');
    assert.deepEqual(receiver.events(), ['channel.on_air']);

    // The receiver is broken when the show ends.
    receiver.answer = (res) => res.writeHead(500).end();
    await server.api('POST', '/channels/radio/end');
    await receiver.has(2);
    receiver.answer = (res) => res.writeHead(204).end();
    await eventually('both are delivered', async () => (new Set(receiver.ids()).size === 3 ? true : undefined), 40_000);
    await server.stopGracefully();

    const told = new Map(receiver.received.map((received) => [JSON.parse(received.body).event as string, received]));
    assert.deepEqual([...told.keys()].sort(), ['channel.off_air', 'channel.on_air', 'recording.ready']);
    for (const received of told.values()) assert.ok(isSigned(received, secret, Date.now()));
    const data = (event: string) => JSON.parse(told.get(event)!.body).data;
    assert.equal(data('channel.on_air').broadcastId, data('channel.off_air').broadcastId);
    assert.equal(data('channel.on_air').startedAt, data('channel.off_air').startedAt);
    assert.ok(data('channel.off_air').endedAt > data('channel.off_air').startedAt);
    assert.equal(data('recording.ready').asset, data('channel.on_air').broadcastId);
    assert.match(data('recording.ready').urls.hls, /\/vod\/\w+\/master\.m3u8$/);
    assert.doesNotMatch(server.logTail(10_000), /whsec_/);
  } finally {
    await publisher?.kill('SIGKILL');
    await server.stop();
    await receiver.close();
  }
});
