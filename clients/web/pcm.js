// Samples: between floats and 16-bit numbers, kept on a tape, written as a WAV file.

/** Floats in [-1, 1] as 16-bit numbers. */
export function toInt16(samples) {
  const out = new Int16Array(samples.length);
  for (let i = 0; i < samples.length; i++) out[i] = Math.max(-32768, Math.min(32767, Math.round(samples[i] * 32768)));
  return out;
}

/** 16-bit numbers as floats in [-1, 1). */
export function toFloat32(samples) {
  const out = new Float32Array(samples.length);
  for (let i = 0; i < samples.length; i++) out[i] = samples[i] / 32768;
  return out;
}

/** A mono WAV file of 16-bit blocks. */
export function wav(blocks, rate) {
  const bytes = 2 * blocks.reduce((sum, block) => sum + block.length, 0);
  const view = new DataView(new ArrayBuffer(44));
  const text = (at, word) => [...word].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, bytes, true);
  return new Blob([view.buffer, ...blocks], { type: "audio/wav" });
}

/** The last seconds of a stream of 16-bit blocks. */
export class Tape {
  constructor(seconds) {
    this.seconds = seconds;
    this.clear(1);
  }

  clear(rate) {
    this.rate = rate;
    this.blocks = [];
    this.length = 0;
  }

  push(block) {
    this.blocks.push(block);
    this.length += block.length;
    while (this.length - this.blocks[0].length >= this.seconds * this.rate) this.length -= this.blocks.shift().length;
  }

  file() {
    return wav(this.blocks, this.rate);
  }
}
