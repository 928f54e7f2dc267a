import { Agent, get } from 'node:http';
import { median, percentile } from '../support/audio.js';
import { ownCpuSeconds } from '../support/cpu.js';
import { ensurePackages } from '../support/packages.js';
import { start } from '../support/process.js';
import { Server } from '../support/server.js';
import { type Load, onAir, wrk } from './origin.js';
import { type Figure, figure, say, sleep } from './report.js';
import { prepareMusic, publish } from './sound.js';

const PLAYLIST = 'aac-128/index.m3u8';
const POLLS_PER_SECOND = 100;
/** Each with a connection of its own: enough that the limit of no address is met, so that passwords are looked at as fast as they can be. */
const ADDRESSES = 1000;
const OWNER = { email: 'owner@example.org', password: 'a right horse, no battery' };

/** Asks for a live playlist at a steady pace, whether the last was answered or not; how long each took. */
function poll(url: string): { stop(): Promise<number[]> } {
  const agent = new Agent({ keepAlive: true, maxSockets: 256 });
  const tookMs: number[] = [];
  const open = new Set<Promise<void>>();
  const timer = setInterval(() => {
    const startMs = performance.now();
    const answered = new Promise<void>((resolve, reject) => {
      get(url, { agent }, (res) => {
        if (res.statusCode !== 200) reject(new Error(`the playlist is answered ${res.statusCode}`));
        res.resume();
        res.once('end', () => {
          tookMs.push(performance.now() - startMs);
          resolve();
        });
      }).once('error', reject);
    });
    open.add(answered);
    answered.finally(() => open.delete(answered));
  }, 1000 / POLLS_PER_SECOND);
  return {
    async stop() {
      clearInterval(timer);
      await Promise.all(open);
      agent.destroy();
      return tookMs;
    },
  };
}

/**
 * Wrong passwords for many accounts from many addresses, while a live playlist is polled and an owner, who has signed in before, signs in
 * once a second. Nothing is bound to a core: the threads that look at passwords, the encoder, the load and the server share what there is.
 */
export async function measureSignInFlood(options: { triesPerSecond: number; seconds: number }): Promise<Figure[]> {
  const sound = await prepareMusic(60);
  const server = await Server.start({ embeddedDatabase: true, env: { RATE_LIMIT_PER_MINUTE: '1000' } });
  try {
    const publishing = await publish(server.rtmpPort, [await server.createChannel('bench')], sound);
    try {
      await server.onAir('bench', 8);
      const url = `${server.url}/live/bench/${PLAYLIST}`;
      const json = { 'content-type': 'application/json' };
      await fetch(`${server.url}/api/v1/auth/register`, {
        method: 'POST',
        headers: json,
        body: JSON.stringify({ ...OWNER, name: 'Owner' }),
      });
      const signIn = () => fetch(`${server.url}/api/v1/auth/login`, { method: 'POST', headers: json, body: JSON.stringify(OWNER) });
      const begun = await signIn();
      if (begun.status !== 200) throw new Error(`the owner cannot sign in: ${begun.status} ${await begun.text()}`);

      // V8 has compiled what is hot.
      const warm = poll(url);
      await sleep(5000);
      await warm.stop();
      const quiet = poll(url);
      await sleep((options.seconds / 2) * 1000);
      const calmMs = await quiet.stop();

      const { triesPerSecond, seconds } = options;
      const flood = start(process.execPath, [
        ...['--import', 'tsx', new URL('./sign-in-flood.ts', import.meta.url).pathname],
        ...[server.port, triesPerSecond, seconds, ADDRESSES].map(String),
      ]);
      await sleep(2000);
      const polling = poll(url);
      const owner: { status: number; tookMs: number }[] = [];
      const ownerTimer = setInterval(async () => {
        const startMs = performance.now();
        const { status } = await signIn();
        owner.push({ status, tookMs: performance.now() - startMs });
      }, 1000);
      const { stdout, stderr, code } = await flood.ended;
      clearInterval(ownerTimer);
      const floodedMs = await polling.stop();
      if (code !== 0) throw new Error(`the flood ended with ${code}: ${stderr}`);
      const {
        tries,
        skipped,
        answers,
        seconds: tookS,
      } = JSON.parse(stdout.toString()) as {
        tries: number;
        skipped: number;
        answers: Record<string, number>;
        seconds: number;
      };
      const letIn = owner.filter(({ status }) => status === 200);
      say(
        `${tries} wrong tries in ${tookS.toFixed(0)} s (${skipped} left out: no answer yet); answers ${JSON.stringify(answers)}; ` +
          `the owner signed in ${letIn.length} of ${owner.length} times, in ${median(letIn.map((one) => one.tookMs)).toFixed(0)} ms (median)`,
      );
      const peer = (share: number) => ({ name: 'no flood', value: percentile(calmMs, share) });
      return [
        figure('wrong sign-ins a second', tries / tookS, '/s', { least: triesPerSecond * 0.95 }),
        figure('live playlist during it, P99', percentile(floodedMs, 0.99), 'ms', { most: 50 }, peer(0.99)),
        figure('the same, P50', percentile(floodedMs, 0.5), 'ms', undefined, peer(0.5)),
        figure('passwords looked at meanwhile', (answers['401'] ?? 0) / tookS, '/s', undefined),
        figure(
          "an owner's sign-ins that succeed meanwhile, from an address that is known",
          (letIn.length / owner.length) * 100,
          '%',
          undefined,
        ),
      ];
    } finally {
      await publishing.stop();
    }
  } finally {
    await server.stop();
    await sound.remove();
  }
}

/** Requests a second of one core for the live playlist of a private channel by its link, beside those of a public channel. */
export async function measureSigned(options: { seconds: number; rounds: number }): Promise<Figure[]> {
  await ensurePackages('wrk');
  return onAir(
    async (server) => {
      await server.api('PATCH', '/channels/closed', { visibility: 'private' });
      const { token } = await server.api<{ token: string }>('POST', '/channels/closed/links', {});
      const open = `${server.url}/live/open/${PLAYLIST}`;
      const signed = `${server.url}/t/${token}/live/closed/${PLAYLIST}`;
      for (const [url, status] of [
        [open, 200],
        [signed, 200],
        [`${server.url}/live/closed/${PLAYLIST}`, 404],
      ] as const) {
        const answer = await fetch(url);
        if (answer.status !== status) throw new Error(`${url} is answered ${answer.status}, not ${status}`);
        await answer.arrayBuffer();
      }
      const load = (url: string, seconds: number) => wrk(url, seconds, () => ownCpuSeconds(server.pid));
      await load(open, 5);
      await load(signed, 5);
      const rounds: { open: Load; signed: Load }[] = [];
      for (let round = 0; round < options.rounds; round++) {
        // Who is first is not always the same: the machine warms up.
        const signedFirst = round % 2 === 1 ? await load(signed, options.seconds) : undefined;
        const unsigned = await load(open, options.seconds);
        const withToken = signedFirst ?? (await load(signed, options.seconds));
        rounds.push({ open: unsigned, signed: withToken });
        say(
          `round ${round + 1}: signed ${withToken.perCoreSecond.toFixed(0)}, unsigned ${unsigned.perCoreSecond.toFixed(0)} a second of one core; ` +
            `ratio ${(withToken.perCoreSecond / unsigned.perCoreSecond).toFixed(3)}`,
        );
      }
      const ratio = median(rounds.map((round) => round.signed.perCoreSecond / round.open.perCoreSecond));
      return [
        figure('live playlist by a signed link ÷ without, requests/s on one core', ratio, '×', { least: 0.9 }),
        figure(
          'live playlist by a signed link, requests per second of one core',
          median(rounds.map((r) => r.signed.perCoreSecond)),
          '',
          undefined,
          {
            name: 'without',
            value: median(rounds.map((r) => r.open.perCoreSecond)),
          },
        ),
      ];
    },
    ['open', 'closed'],
  );
}
