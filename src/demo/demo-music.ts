/**
 * The music of the demo: two minutes of slow electric piano, pad, bass and brushed drums, computed
 * from numbers, so that a fresh clone has something to play without a download. Notes and reverb at
 * the end continue at the start, so that the piece loops without a break.
 */
const RATE_HZ = 48_000;
/** Samples per beat: 87.9 beats per minute. A whole number, so that the loop is exact. */
const BEAT = 32_768;
const BAR = 4 * BEAT;
const BARS = 48;
const TOTAL = BARS * BAR;

export const MUSIC_SECONDS = TOTAL / RATE_HZ;

/** MIDI notes: the bass, then the chord from its lowest note up. */
const CHORDS: readonly (readonly [number, ...number[]])[] = [
  [38, 53, 57, 60, 64],
  [43, 53, 57, 59, 64],
  [36, 52, 55, 59, 62],
  [45, 52, 55, 60, 59],
  [41, 52, 55, 57, 60],
  [40, 50, 55, 59, 62],
  [38, 53, 57, 60, 64],
  [43, 53, 57, 60, 62],
];

/** The melody of the middle section by bar: [eighth in the bar, length in eighths, MIDI note]. */
const MELODY: readonly (readonly (readonly [number, number, number])[])[] = [
  [
    [0, 3, 76],
    [3, 1, 74],
    [4, 4, 72],
  ],
  [
    [1, 2, 71],
    [3, 5, 74],
  ],
  [
    [0, 2, 67],
    [2, 2, 71],
    [4, 4, 74],
  ],
  [[0, 6, 72]],
  [
    [0, 3, 72],
    [3, 1, 74],
    [4, 4, 76],
  ],
  [
    [1, 2, 79],
    [3, 5, 74],
  ],
  [
    [0, 2, 77],
    [2, 2, 76],
    [4, 2, 74],
    [6, 2, 72],
  ],
  [[0, 7, 74]],
];

const hzOf = (note: number) => 440 * 2 ** ((note - 69) / 12);

/** A fixed seed, so that the music is the same every time. */
let seed = 20_260;
function random(): number {
  seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
  return seed / 2 ** 32;
}

const TABLE = 4096;
function waveTable(partials: readonly number[]): Float32Array {
  const table = new Float32Array(TABLE + 1);
  for (let i = 0; i <= TABLE; i++) {
    let x = 0;
    partials.forEach((level, n) => {
      x += level * Math.sin((2 * Math.PI * (n + 1) * i) / TABLE);
    });
    table[i] = x;
  }
  return table;
}

const SINE = waveTable([1]);
const WARM = waveTable([1, 0.42, 0.22, 0.1, 0.06, 0.03]);
const SOFT = waveTable([1, 0.05, 0.16, 0.02, 0.04]);
const BELL = waveTable([1, 0.1, 0, 0.22, 0, 0, 0.06]);

/** A stereo track that is circular: sound after its end continues at its start. */
class Track {
  readonly left = new Float32Array(TOTAL);
  readonly right = new Float32Array(TOTAL);

  tone(
    table: Float32Array,
    at: number,
    hz: number,
    samples: number,
    level: number,
    pan: number,
    shape: (t: number) => number,
    vibrato = 0,
  ): void {
    const gainLeft = level * Math.cos(((pan + 1) * Math.PI) / 4);
    const gainRight = level * Math.sin(((pan + 1) * Math.PI) / 4);
    const step = (hz * TABLE) / RATE_HZ;
    let phase = random() * TABLE;
    let envelope = shape(0);
    let slope = 0;
    let index = ((at % TOTAL) + TOTAL) % TOTAL;
    for (let n = 0; n < samples; n++) {
      // The envelope is computed every 64 samples and interpolated linearly in between.
      if (n % 64 === 0) {
        envelope = shape(n / RATE_HZ);
        slope = (shape((n + 64) / RATE_HZ) - envelope) / 64;
      }
      const whole = phase | 0;
      const x = (table[whole]! + (table[whole + 1]! - table[whole]!) * (phase - whole)) * envelope;
      this.left[index]! += x * gainLeft;
      this.right[index]! += x * gainRight;
      envelope += slope;
      phase += vibrato === 0 ? step : step * (1 + vibrato * Math.sin((n / RATE_HZ) * 2 * Math.PI * 5.2));
      if (phase >= TABLE) phase -= TABLE;
      if (++index === TOTAL) index = 0;
    }
  }

  /** A burst of noise through a one-pole high-pass. */
  noise(at: number, seconds: number, level: number, pan: number, brightness: number): void {
    let low = 0;
    for (let n = 0; n < seconds * 5 * RATE_HZ; n++) {
      const white = random() * 2 - 1;
      low += (white - low) * brightness;
      const x = (white - low) * level * Math.exp(-n / RATE_HZ / seconds) * Math.min(1, n / 96);
      const index = (at + n) % TOTAL;
      this.left[index]! += x * (1 - Math.max(0, pan));
      this.right[index]! += x * (1 + Math.min(0, pan));
    }
  }

  kick(at: number, level: number): void {
    let phase = 0;
    for (let n = 0; n < 0.35 * RATE_HZ; n++) {
      const t = n / RATE_HZ;
      phase += (2 * Math.PI * (46 + 70 * Math.exp(-t / 0.03))) / RATE_HZ;
      const x = Math.sin(phase) * level * Math.exp(-t / 0.11) * Math.min(1, n / 64);
      const index = (at + n) % TOTAL;
      this.left[index]! += x;
      this.right[index]! += x;
    }
  }

  /** A repeated echo on the opposite side, every `samples`. */
  pingPong(samples: number, feedback: number): void {
    // The loop runs twice: its second pass starts with the echo of the first, which makes the track
    // circular.
    const left = this.left.slice();
    const right = this.right.slice();
    const echoLeft = new Float32Array(TOTAL);
    const echoRight = new Float32Array(TOTAL);
    for (let n = 0; n < 2 * TOTAL; n++) {
      const index = n % TOTAL;
      const from = (index - samples + TOTAL) % TOTAL;
      echoLeft[index] = (right[from]! + echoRight[from]!) * feedback;
      echoRight[index] = (left[from]! + echoLeft[from]!) * feedback;
    }
    for (let n = 0; n < TOTAL; n++) {
      this.left[n]! += echoLeft[n]!;
      this.right[n]! += echoRight[n]!;
    }
  }

  add(other: Track, level = 1): void {
    for (let n = 0; n < TOTAL; n++) {
      this.left[n]! += other.left[n]! * level;
      this.right[n]! += other.right[n]! * level;
    }
  }
}

/**
 * A room reverb: four damped delay lines that feed each other (a Householder matrix keeps the
 * energy). The end of the loop rings into its start.
 */
function reverb(dry: Track): Track {
  const wet = new Track();
  const lengths = [2239, 2917, 3529, 4127];
  const lines = lengths.map((length) => new Float32Array(length));
  const heads = [0, 0, 0, 0];
  const damped = [0, 0, 0, 0];
  const out = [0, 0, 0, 0];
  // The last three seconds come first: their reverb is what the start begins with.
  for (let n = -3 * RATE_HZ; n < TOTAL; n++) {
    const index = (n + TOTAL) % TOTAL;
    let sum = 0;
    for (let i = 0; i < 4; i++) {
      damped[i]! += (lines[i]![heads[i]!]! - damped[i]!) * 0.55;
      out[i] = damped[i]! * 0.83;
      sum += out[i]!;
    }
    const inputs = [dry.left[index]!, dry.right[index]!];
    for (let i = 0; i < 4; i++) {
      lines[i]![heads[i]!] = inputs[i % 2]! * 0.4 + out[i]! - sum / 2;
      heads[i] = (heads[i]! + 1) % lengths[i]!;
    }
    wet.left[index] = out[0]! - out[2]!;
    wet.right[index] = out[1]! - out[3]!;
  }
  return wet;
}

const decay = (attackS: number, timeS: number) => (t: number) => Math.min(1, t / attackS) * Math.exp(-t / timeS);
const swell = (attackS: number, holdS: number, releaseS: number) => (t: number) => {
  const rise = Math.min(1, t / attackS);
  const fall = t < holdS ? 1 : Math.max(0, 1 - (t - holdS) / releaseS);
  return rise * rise * (3 - 2 * rise) * fall * fall;
};

function compose(): Track {
  seed = 20_260;
  const pad = new Track();
  const keys = new Track();
  const rhythm = new Track();
  for (let bar = 0; bar < BARS; bar++) {
    const at = bar * BAR;
    const [bass, ...chord] = CHORDS[bar % CHORDS.length]!;
    // Eight bars per section: pad and keys, then with bass and brushes, then all, all with melody,
    // only keys and melody, all.
    const section = Math.floor(bar / 8);
    chord.forEach((note, voice) => {
      for (const detune of [-0.0018, 0.0021]) {
        const shape = swell(0.9, BAR / RATE_HZ - 0.2, 1.6);
        pad.tone(WARM, at, hzOf(note) * (1 + detune), BAR + 1.4 * RATE_HZ, 0.021, Math.sign(detune) * (0.35 + voice * 0.15), shape);
      }
    });
    const order = [0, 2, 1, 3, 2, 0, 3, 1];
    for (let eighth = 0; eighth < 8; eighth++) {
      if (section !== 2 && eighth % 2 === 1 && random() < 0.35) continue;
      const note = chord[order[(eighth + bar) % 8]!]! + (random() < 0.25 ? 12 : 0);
      const late = eighth % 2 === 1 ? 0.06 * BEAT : 0;
      const level = 0.075 * (0.65 + 0.35 * random());
      const when = Math.round(at + (eighth * BEAT) / 2 + late + random() * 240);
      keys.tone(SINE, when, hzOf(note + 12), 1.6 * RATE_HZ, level, 0.3 * Math.sin(eighth + bar), decay(0.004, 0.42));
      keys.tone(BELL, when, hzOf(note + 12), 0.5 * RATE_HZ, level * 0.35, -0.3 * Math.sin(eighth + bar), decay(0.002, 0.09));
    }
    if (section === 3 || section === 4) {
      for (const [eighth, length, note] of MELODY[bar % MELODY.length]!) {
        const lengthS = (length * BEAT) / 2 / RATE_HZ;
        const when = at + (eighth * BEAT) / 2;
        keys.tone(SOFT, when, hzOf(note), (lengthS + 0.35) * RATE_HZ, 0.105, 0.08, swell(0.07, lengthS - 0.05, 0.4), 0.0022);
      }
    }
    if (section === 0 || section === 4) continue;
    for (const [beat, length, interval] of [
      [0, 1.4, 0],
      [1.5, 0.5, 0],
      [2, 1.4, 7],
      [3.5, 0.5, bar % 2 === 0 ? 12 : 10],
    ] as const) {
      const shape = swell(0.012, (length * BEAT) / RATE_HZ - 0.05, 0.12);
      rhythm.tone(SOFT, at + beat * BEAT, hzOf(bass + interval), length * BEAT + 0.1 * RATE_HZ, 0.17, 0, shape);
    }
    rhythm.kick(at, 0.26);
    rhythm.kick(at + 2 * BEAT, 0.22);
    if (bar % 4 === 3) rhythm.kick(at + 3.5 * BEAT, 0.16);
    for (const beat of [1, 3]) {
      rhythm.noise(at + beat * BEAT, 0.07, 0.05, 0.1, 0.25);
      rhythm.tone(SINE, at + beat * BEAT, 190, 0.12 * RATE_HZ, 0.05, 0.1, decay(0.001, 0.03));
    }
    for (let eighth = 0; eighth < 8; eighth++) {
      const late = eighth % 2 === 1 ? 0.06 * BEAT : 0;
      rhythm.noise(Math.round(at + (eighth * BEAT) / 2 + late), 0.018 + 0.02 * random(), eighth % 2 === 0 ? 0.022 : 0.034, -0.35, 0.75);
    }
  }
  keys.pingPong(Math.round(0.75 * BEAT), 0.32);
  const send = new Track();
  send.add(pad, 0.9);
  send.add(keys, 0.7);
  send.add(rhythm, 0.12);
  const room = reverb(send);
  const mix = new Track();
  mix.add(pad);
  mix.add(keys);
  mix.add(rhythm);
  mix.add(room, 0.55);
  return mix;
}

/** The piece as a WAV file: 48 kHz, stereo, 16 bit, 25 MB. It takes a few seconds to make. */
export function renderMusic(): Buffer {
  const { left, right } = compose();
  let power = 0;
  for (let n = 0; n < TOTAL; n++) power += (left[n]! ** 2 + right[n]! ** 2) / 2;
  // −17.5 dBFS RMS is about −16 LUFS for this mix. Peaks are limited softly below −1 dBFS.
  const gain = 10 ** (-17.5 / 20) / Math.sqrt(power / TOTAL);
  const file = Buffer.alloc(44 + TOTAL * 4);
  file.write('RIFF', 0, 'latin1');
  file.writeUInt32LE(36 + TOTAL * 4, 4);
  file.write('WAVEfmt ', 8, 'latin1');
  file.writeUInt32LE(16, 16);
  file.writeUInt16LE(1, 20);
  file.writeUInt16LE(2, 22);
  file.writeUInt32LE(RATE_HZ, 24);
  file.writeUInt32LE(RATE_HZ * 4, 28);
  file.writeUInt16LE(4, 32);
  file.writeUInt16LE(16, 34);
  file.write('data', 36, 'latin1');
  file.writeUInt32LE(TOTAL * 4, 40);
  const samples = new Int16Array(file.buffer, file.byteOffset + 44, TOTAL * 2);
  for (let n = 0; n < TOTAL; n++) {
    samples[2 * n] = limited(left[n]! * gain);
    samples[2 * n + 1] = limited(right[n]! * gain);
  }
  return file;
}

const KNEE = 0.6;
const CEILING = 0.88;
function limited(x: number): number {
  const size = Math.abs(x);
  const bent = size <= KNEE ? size : KNEE + (CEILING - KNEE) * Math.tanh((size - KNEE) / (CEILING - KNEE));
  return Math.round(Math.sign(x) * bent * 32_767);
}
