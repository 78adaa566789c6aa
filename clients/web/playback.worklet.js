// The listener's end: a jitter buffer that keeps its wait short, fades instead of clicking, and knows how old its audio is.
//
// The lowest level of the last window is what jitter left over. Above the margin plus some slack it is waiting for nothing and
// the excess is dropped; when it runs dry the margin grows, and shrinks again while all goes well.

const CAPACITY_S = 8;
const WINDOW_S = 1.0; // over which the lowest level is taken
const SLACK_S = 0.012; // above the margin before anything is dropped
const STALE_S = 0.3; // above the margin: a burst after an outage, dropped at once
const FADE_S = 0.005;
const LEAST_S = 0.012;
const MOST_S = 0.25;
const CALM_S = 8; // without running dry, after which the margin shrinks
const REPORT_S = 0.1;

class Playback extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.ring = new Float32Array(Math.ceil(CAPACITY_S * sampleRate));
    this.fade = Math.round(FADE_S * sampleRate);
    this.first = processorOptions?.margin ?? 0.015;
    this.chunk = 0; // seconds that the server sends at a time: right after they came, so much more waits than at the lowest
    this.reset();
    this.port.onmessage = ({ data }) => {
      if (data.port) data.port.onmessage = this.port.onmessage; // the worker's audio comes past the page
      else if (data.samples) this.write(data);
      else if (data.chunk !== undefined) this.chunk = data.chunk;
      else this.reset();
    };
  }

  reset() {
    this.written = this.read = 0;
    this.marks = []; // [position, capture time] of blocks
    this.margin = this.first;
    this.waiting = true;
    this.rising = 0; // samples of the fade-in still to come
    this.last = 0; // what sounded last, faded out where audio ends
    this.lowest = Infinity;
    this.seen = this.calm = this.reported = 0;
    this.underruns = this.dropped = 0;
    this.lag = null;
  }

  /** Queues a block whose first sample was captured at `captured`, in seconds of the context. */
  write({ samples, captured }) {
    const room = this.ring.length - (this.written - this.read);
    const kept = samples.length > room ? samples.subarray(0, room) : samples;
    this.dropped += samples.length - kept.length;
    this.marks.push([this.written, captured]);
    for (let i = 0; i < kept.length; i++) this.ring[(this.written + i) % this.ring.length] = kept[i];
    this.written += kept.length;
  }

  at(position) {
    return this.ring[position % this.ring.length];
  }

  /** Seconds since what sounds now was captured. */
  age() {
    while (this.marks.length > 1 && this.marks[1][0] <= this.read) this.marks.shift();
    if (!this.marks.length) return null;
    const [position, captured] = this.marks[0];
    return currentTime - captured - (this.read - position) / sampleRate;
  }

  /** Samples that wait for nothing: the least that was left in the last window, less the margin. */
  excess(left, length) {
    this.lowest = Math.min(this.lowest, left);
    this.seen += length;
    if (left > (this.chunk + this.margin + STALE_S) * sampleRate) return this.window(left);
    if (this.seen < WINDOW_S * sampleRate) return 0;
    return this.lowest > (this.margin + SLACK_S) * sampleRate ? this.window(this.lowest) : this.window(0);
  }

  /** Ends a window; returns how far `level` lies above the margin. */
  window(level) {
    this.lowest = Infinity;
    this.seen = 0;
    return Math.max(0, level - Math.round(this.margin * sampleRate));
  }

  fill(out) {
    const length = out.length;
    const level = this.written - this.read;
    if (this.waiting && level < length + (this.chunk + this.margin) * sampleRate) return this.silence(out, 0);
    if (this.waiting) {
      this.waiting = false;
      this.rising = this.fade;
      this.last = 0;
      this.lowest = Infinity;
      this.seen = 0;
    }
    const drop = this.excess(level - length, length);
    const from = this.read;
    if (drop > this.fade) {
      this.read += drop;
      this.dropped += drop;
    }
    const count = Math.min(length, this.written - this.read);
    for (let i = 0; i < count; i++) {
      let sample = this.at(this.read + i);
      if (drop > this.fade && i < length) {
        const share = (i + 1) / (length + 1); // old and new cross over within this quantum
        sample = share * sample + (1 - share) * this.at(from + i);
      }
      if (this.rising > 0) sample *= 1 - this.rising-- / (this.fade + 1);
      out[i] = sample;
    }
    this.lag = this.age();
    this.read += count;
    if (count > 0) this.last = out[count - 1];
    if (count < length) {
      this.silence(out, count);
      this.waiting = true;
      this.underruns++;
      this.calm = 0;
      this.margin = Math.min(MOST_S, this.margin * 1.5);
    } else if ((this.calm += length) > CALM_S * sampleRate) {
      this.calm = 0;
      this.margin = Math.max(LEAST_S, this.margin * 0.9);
    }
  }

  /** Nothing to play from `start` on: from the last sample to zero without a step. */
  silence(out, start) {
    for (let i = start; i < out.length; i++) {
      out[i] = this.last;
      this.last = Math.abs(this.last) < 1e-5 ? 0 : this.last * 0.98;
    }
  }

  process(_, [output]) {
    this.fill(output[0]);
    for (const channel of output.slice(1)) channel.set(output[0]);
    this.reported += output[0].length;
    if (this.reported >= REPORT_S * sampleRate) {
      this.reported = 0;
      this.port.postMessage({
        lag: this.waiting ? null : this.lag,
        level: (this.written - this.read) / sampleRate,
        margin: this.margin,
        underruns: this.underruns,
        dropped: this.dropped / sampleRate,
      });
    }
    return true;
  }
}

registerProcessor("rtvc-playback", Playback);
