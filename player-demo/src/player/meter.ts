/**
 * The ribbon: levels of the last seconds as they were heard, newest at the right. It listens to the
 * element from outside where the browser allows (`captureStream`), so that a suspended AudioContext
 * never silences the radio.
 */
export interface Ribbon {
  readonly canvas: HTMLCanvasElement;
  /**
   * Starts listening; call it from a user's gesture or when sound starts. Harmless when repeated.
   */
  listen(): void;
  setActive(active: boolean): void;
  destroy(): void;
}

const BAR_PX = 3;
const STEP_PX = 6;
const COLUMN_MS = 70;
/** Quieter sound is drawn as a dot. */
const FLOOR_DB = -42;

type Capturing = HTMLAudioElement & { captureStream?: () => MediaStream };

export function createRibbon(audio: HTMLAudioElement): Ribbon {
  const canvas = document.createElement('canvas');
  canvas.className = 'ribbon';
  canvas.setAttribute('aria-hidden', 'true');
  const paint = canvas.getContext('2d');
  const stillness = matchMedia('(prefers-reduced-motion: reduce)');
  const tap = createTap(audio);

  let columns: number[] = [];
  let peak = 0;
  let columnStartedMs = 0;
  let active = false;
  let frame = 0;
  let width = 0;
  let height = 0;

  const resize = new ResizeObserver(() => {
    const scale = Math.min(devicePixelRatio, 2);
    width = canvas.clientWidth;
    height = canvas.clientHeight;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    paint?.setTransform(scale, 0, 0, scale, 0, 0);
    draw(0);
  });
  resize.observe(canvas);
  const redraw = () => draw(0);
  const dark = matchMedia('(prefers-color-scheme: dark)');
  dark.addEventListener('change', redraw);

  function draw(shift: number): void {
    if (!paint || width === 0) return;
    const style = getComputedStyle(canvas);
    const ink = style.getPropertyValue('--ink').trim();
    const accent = style.getPropertyValue('--accent').trim();
    paint.clearRect(0, 0, width, height);
    const count = Math.ceil(width / STEP_PX) + 1;
    const middle = height / 2;
    for (let i = 0; i < count; i++) {
      const level = columns[columns.length - 1 - i] ?? 0;
      const x = width - BAR_PX - i * STEP_PX - shift * STEP_PX + STEP_PX;
      const half = Math.max(BAR_PX / 2, level * (middle - 2));
      const age = i / count;
      const hot = active && level > 0 && i < 4;
      paint.globalAlpha = hot ? 1 : level > 0 ? 0.78 * (1 - age) ** 1.3 + 0.1 : 0.2;
      paint.fillStyle = hot ? accent : ink;
      paint.beginPath();
      paint.roundRect(x, middle - half, BAR_PX, half * 2, BAR_PX / 2);
      paint.fill();
    }
    paint.globalAlpha = 1;
  }

  function turn(nowMs: number): void {
    frame = active ? requestAnimationFrame(turn) : 0;
    peak = Math.max(peak, tap.level());
    // For people who prefer less motion: a new picture every second, moved by whole columns.
    const still = stillness.matches;
    const elapsed = nowMs - columnStartedMs;
    if (elapsed >= COLUMN_MS) {
      columns.push(peak);
      if (columns.length > 512) columns = columns.slice(-400);
      peak = 0;
      columnStartedMs = elapsed > COLUMN_MS * 4 ? nowMs : columnStartedMs + COLUMN_MS;
      if (still && columns.length % 15 === 0) draw(0);
    }
    if (!still) draw(Math.min(1, (nowMs - columnStartedMs) / COLUMN_MS));
  }

  return {
    canvas,
    listen: () => tap.open(),
    setActive(next) {
      if (next === active) return;
      active = next;
      if (active && frame === 0) {
        columnStartedMs = performance.now();
        frame = requestAnimationFrame(turn);
      }
      if (!active) draw(0);
    },
    destroy() {
      active = false;
      cancelAnimationFrame(frame);
      resize.disconnect();
      dark.removeEventListener('change', redraw);
      tap.close();
    },
  };
}

/** Reads the level, 0…1, of what the element plays; 0 when the browser does not give it. */
function createTap(audio: Capturing): { open(): void; level(): number; close(): void } {
  let context: AudioContext | undefined;
  let analyser: AnalyserNode | undefined;
  let source: AudioNode | undefined;
  let tapped: MediaStreamTrack | undefined;
  let samples = new Float32Array(0);
  // iOS silences an element that goes through WebAudio when it locks the screen: there the ribbon
  // stays still instead.
  const isIos = /iP(hone|ad|od)/.test(navigator.userAgent) || (navigator.platform === 'MacIntel' && navigator.maxTouchPoints > 1);

  function connect(): void {
    if (context?.state !== 'running') return;
    analyser ??= new AnalyserNode(context, { fftSize: 2048, smoothingTimeConstant: 0 });
    if (samples.length !== analyser.fftSize) samples = new Float32Array(analyser.fftSize);
    if (audio.captureStream) {
      const stream = audio.captureStream();
      const track = stream.getAudioTracks().find((candidate) => candidate.readyState === 'live');
      if (!track || track === tapped) return;
      source?.disconnect();
      tapped = track;
      source = context.createMediaStreamSource(new MediaStream([track]));
      source.connect(analyser);
    } else if (!source) {
      source = context.createMediaElementSource(audio);
      source.connect(analyser);
      analyser.connect(context.destination);
      const running = context;
      running.onstatechange = () => {
        if (running.state === 'suspended') void running.resume();
      };
    }
  }

  const reconnect = () => connect();
  audio.addEventListener('playing', reconnect);
  return {
    open() {
      if (isIos && !audio.captureStream) return;
      context ??= new AudioContext({ latencyHint: 'playback' });
      if (context.state === 'running') connect();
      else void context.resume().then(connect, () => {});
    },
    level() {
      if (!analyser || audio.paused) return 0;
      if (tapped?.readyState === 'ended') connect();
      analyser.getFloatTimeDomainData(samples);
      let sum = 0;
      for (const sample of samples) sum += sample * sample;
      const db = 10 * Math.log10(sum / samples.length + 1e-9);
      return Math.min(1, Math.max(0, (db - FLOOR_DB) / (-6 - FLOOR_DB)));
    },
    close() {
      audio.removeEventListener('playing', reconnect);
      void context?.close();
    },
  };
}
