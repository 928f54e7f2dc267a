import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import type { Browser, Page } from 'playwright-core';
import { RATE_HZ } from './audio.js';
import { launchChromium } from './chromium.js';
import { eventually } from './process.js';

/**
 * The players of the field in headless Chromium, as their npm packages build them, with a tap on the sound that comes out of the media element.
 */
export type PlayerKind = 'hls.js' | 'dash.js' | 'shaka';

const require = createRequire(import.meta.url);
const SCRIPTS: Readonly<Record<string, string>> = {
  '/hls.js': require.resolve('hls.js/dist/hls.min.js'),
  '/dash.js': new URL('../../node_modules/dashjs/dist/modern/umd/dash.all.min.js', import.meta.url).pathname,
  '/shaka.js': new URL('../../node_modules/shaka-player/dist/shaka-player.compiled.js', import.meta.url).pathname,
};

/**
 * Shaka counts from the end of what is available, 0.52 s behind the clock, and adds the delay to that; docs/embedding.md says the same.
 */
export const SHAKA_LOW_LATENCY = {
  streaming: { lowLatencyMode: true, liveSync: { enabled: true, targetLatency: 0.1, targetLatencyTolerance: 0.1 } },
  manifest: { defaultPresentationDelay: 0.9, dash: { ignoreSuggestedPresentationDelay: true } },
};

export interface PlayerEvent {
  /** Of the media element (`waiting`, `playing`, …), or `fatal`, `error`, `buffering` of the player itself. */
  readonly type: string;
  readonly detail: string;
  readonly wallMs: number;
  readonly mediaS: number;
}

export interface PlayerState {
  readonly currentTimeS: number;
  readonly bufferAheadS: number;
  readonly paused: boolean;
  readonly playbackRate: number;
  /** What the player itself believes to be its distance from the live edge. */
  readonly latencyS: number;
}

/** What the tap heard since it was last asked: mono, 48 kHz, and when its first sample left the audio device's queue. */
export interface Heard {
  readonly samples: Float32Array;
  /** For each 10 ms block the wall clock at which its first sample was heard. */
  readonly blockWallMs: readonly number[];
}

const BLOCK_SAMPLES = 480;

// Runs in the page. Kept as text: it is no module of ours, and its types would drag the three players' in.
const PAGE = `<!doctype html><title>players</title><video id="media" playsinline></video>
<script src="/hls.js"></script><script src="/dash.js"></script><script src="/shaka.js"></script>
<script>
const media = document.getElementById('media');
const events = [];
const blocks = [];
let player, latency = () => NaN, context;
const note = (type, detail = '') => events.push({ type, detail: String(detail), wallMs: Date.now(), mediaS: media.currentTime });
for (const type of ['waiting', 'stalled', 'playing', 'pause', 'seeking', 'seeked', 'emptied', 'ended', 'error', 'ratechange'])
  media.addEventListener(type, () => note(type, type === 'error' ? media.error && media.error.message : media.playbackRate));

const tap = \`registerProcessor('tap', class extends AudioWorkletProcessor {
  constructor() { super(); this.block = new Float32Array(${BLOCK_SAMPLES}); this.fill = 0; this.frame = 0; }
  process(inputs) {
    const input = inputs[0];
    const left = input[0] || new Float32Array(128), right = input[1] || left;
    for (let i = 0; i < 128; i++) {
      if (this.fill === 0) this.frame = currentFrame + i;
      this.block[this.fill++] = (left[i] + right[i]) / 2;
      if (this.fill === ${BLOCK_SAMPLES}) {
        this.port.postMessage({ frame: this.frame, block: this.block });
        this.block = new Float32Array(${BLOCK_SAMPLES}); this.fill = 0;
      }
    }
    return true;
  }
});\`;

async function listen() {
  context = new AudioContext({ sampleRate: ${RATE_HZ}, latencyHint: 'interactive' });
  await context.audioWorklet.addModule(URL.createObjectURL(new Blob([tap], { type: 'text/javascript' })));
  const node = new AudioWorkletNode(context, 'tap', { numberOfInputs: 1, numberOfOutputs: 0, channelCount: 2 });
  const source = context.createMediaElementSource(media);
  source.connect(node);
  source.connect(context.destination);
  node.port.onmessage = ({ data }) => {
    // What is rendered now is heard when the device has played what lies before it: the context tells which frame is heard when.
    const heard = context.getOutputTimestamp();
    if (!heard.contextTime) return;
    data.wallMs = Date.now() - performance.now() + heard.performanceTime + (data.frame / context.sampleRate - heard.contextTime) * 1000;
    blocks.push(data);
    if (blocks.length > 12000) blocks.shift();
  };
  await context.resume();
}

function take() {
  const taken = blocks.splice(0);
  const pcm = new Int16Array(taken.length * ${BLOCK_SAMPLES});
  taken.forEach(({ block }, n) => block.forEach((x, i) => { pcm[n * ${BLOCK_SAMPLES} + i] = Math.max(-32768, Math.min(32767, Math.round(x * 32768))); }));
  let text = '';
  const bytes = new Uint8Array(pcm.buffer);
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return { pcm: btoa(text), wallMs: taken.map(({ wallMs }) => wallMs) };
}

async function play(kind, url, settings) {
  await listen();
  if (kind === 'hls.js') {
    player = new Hls(settings);
    player.on(Hls.Events.ERROR, (_, { fatal, details }) => note(fatal ? 'fatal' : 'error', details));
    player.on(Hls.Events.LEVEL_SWITCHED, (_, { level }) => note('level', level));
    latency = () => player.latency;
    player.loadSource(url);
    player.attachMedia(media);
  } else if (kind === 'dash.js') {
    player = dashjs.MediaPlayer().create();
    player.updateSettings({ debug: { logLevel: 0 }, ...settings });
    player.on('error', ({ error }) => note('fatal', (error && (error.message || error.code)) || error));
    player.on('bufferStalled', ({ mediaType }) => note('buffering', mediaType));
    player.on('playbackError', ({ error }) => note('fatal', error));
    latency = () => player.getCurrentLiveLatency();
    player.initialize(media, url, true);
  } else {
    shaka.polyfill.installAll();
    player = new shaka.Player();
    await player.attach(media);
    player.configure(settings);
    player.addEventListener('error', ({ detail }) => note(detail.severity === 2 ? 'fatal' : 'error', detail.code + ' ' + JSON.stringify(detail.data)));
    player.addEventListener('buffering', ({ buffering }) => note('buffering', buffering));
    latency = () => (player.isLive() ? (Date.now() - (player.getPlayheadTimeAsDate() || 0)) / 1000 : NaN);
    await player.load(url);
  }
  media.play().catch((error) => note('error', error.message));
}

function state() {
  let ahead = 0;
  for (let i = 0; i < media.buffered.length; i++)
    if (media.buffered.start(i) <= media.currentTime + 0.1 && media.buffered.end(i) > media.currentTime) ahead = media.buffered.end(i) - media.currentTime;
  return { currentTimeS: media.currentTime, bufferAheadS: ahead, paused: media.paused, playbackRate: media.playbackRate, latencyS: latency() };
}
</script>`;

interface PageApi {
  play(kind: PlayerKind, url: string, settings: object): Promise<void>;
  take(): { pcm: string; wallMs: number[] };
  state(): PlayerState;
}

export class Players {
  readonly #browser: Browser;
  readonly #server: Server;
  readonly #address: string;

  private constructor(browser: Browser, server: Server) {
    this.#browser = browser;
    this.#server = server;
    this.#address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  }

  static async start(): Promise<Players> {
    const server = createServer((request, response) => {
      const script = SCRIPTS[request.url ?? ''];
      if (!script) return response.writeHead(200, { 'content-type': 'text/html' }).end(PAGE);
      readFile(script).then(
        (text) => response.writeHead(200, { 'content-type': 'text/javascript' }).end(text),
        () => response.writeHead(404).end(),
      );
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return new Players(await launchChromium(), server);
  }

  async stop(): Promise<void> {
    await this.#browser.close();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** A page with nothing on but the tap's code (`listen`, `take`, `media`). */
  async blank(): Promise<Page> {
    const page = await (await this.#browser.newContext()).newPage();
    await page.goto(this.#address);
    return page;
  }

  /** Opens a page of its own and begins to play; resolves when the media element plays. `settings` are the player's own. */
  async play(kind: PlayerKind, url: string, settings: object = {}): Promise<Player> {
    const context = await this.#browser.newContext();
    const page = await context.newPage();
    const errors: string[] = [];
    page.on('pageerror', (error) => errors.push(error.message));
    await page.goto(this.#address);
    await page.evaluate(([kind, url, settings]) => (globalThis as unknown as PageApi).play(kind, url, settings), [
      kind,
      url,
      settings,
    ] as const);
    const player = new Player(page, errors);
    try {
      await player.waitFor((events) => events.some(({ type }) => type === 'playing'), `${kind} plays ${url}`);
    } catch (error) {
      await player.close();
      throw error;
    }
    return player;
  }
}

export class Player {
  readonly page: Page;
  readonly #errors: readonly string[];

  constructor(page: Page, errors: readonly string[]) {
    this.page = page;
    this.#errors = errors;
  }

  events(): Promise<PlayerEvent[]> {
    return this.page.evaluate('events') as Promise<PlayerEvent[]>;
  }

  state(): Promise<PlayerState> {
    return this.page.evaluate('state()') as Promise<PlayerState>;
  }

  /** What a listener would notice, from the first `playing` on: stalls, jumps, restarts, errors that end it. */
  async disturbances(): Promise<PlayerEvent[]> {
    const events = await this.events();
    const from = events.findIndex(({ type }) => type === 'playing');
    const noticed = ['waiting', 'seeking', 'emptied', 'ended', 'pause', 'fatal'];
    return events.slice(from + 1).filter(({ type }) => noticed.includes(type));
  }

  /** Takes what the tap has heard since the last time (at most the last two minutes). */
  async take(): Promise<Heard> {
    const { pcm, wallMs } = (await this.page.evaluate('take()')) as { pcm: string; wallMs: number[] };
    const bytes = Buffer.from(pcm, 'base64');
    const samples = new Float32Array(bytes.length / 2);
    for (let at = 0; at < samples.length; at++) samples[at] = bytes.readInt16LE(at * 2) / 32_768;
    return { samples, blockWallMs: wallMs };
  }

  /** Waits until the events satisfy `good`. */
  async waitFor(good: (events: PlayerEvent[]) => boolean, what: string, timeoutMs = 30_000): Promise<void> {
    try {
      await eventually(what, async () => (good(await this.events()) ? true : undefined), timeoutMs);
    } catch (error) {
      const events = (await this.events()).map(({ type, detail }) => `${type} ${detail}`);
      throw new Error(`${(error as Error).message}: ${[...events, ...this.#errors].join(', ')} ${JSON.stringify(await this.state())}`);
    }
  }

  /** Waits until so much more of the media has been played. */
  async playedOn(seconds: number, timeoutMs = (seconds + 20) * 1000): Promise<void> {
    const from = (await this.state()).currentTimeS;
    await eventually(
      `${seconds} s more are played`,
      async () => ((await this.state()).currentTimeS >= from + seconds ? true : undefined),
      timeoutMs,
    );
  }

  close(): Promise<void> {
    return this.page.context().close();
  }
}
