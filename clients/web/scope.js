// Drawing: two waveforms and the lag, each a strip of columns that moves to the left.

const COLUMN_S = 0.02; // seconds a column of the waveform
const SHOWN_S = 10; // seconds in a waveform's width
const LAGS = 600; // lag reports in the chart's width: a minute
const CALM = matchMedia("(prefers-reduced-motion: reduce)");
const FRAME_MS = 33; // between pictures: sound comes first
const REDRAW_MS = 500; // the same where motion is unwelcome

/** Sizes a canvas to its box and returns its context, width and height in CSS pixels. */
function surface(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

function colour(canvas, name) {
  return getComputedStyle(canvas).getPropertyValue(name).trim();
}

/** Waveform of a stream of blocks: one column of peaks every 20 ms. */
export class Wave {
  constructor(canvas) {
    this.canvas = canvas;
    this.peaks = new Float32Array(Math.round(SHOWN_S / COLUMN_S));
    this.at = this.filled = 0;
    this.peak = 0;
    this.next = null; // capture time of the next sample
  }

  clear() {
    this.peaks.fill(0);
    this.filled = this.peak = 0;
    this.next = null;
    this.changed = true;
  }

  /** Takes samples at `rate` that were captured at `captured`, in seconds; what is missing before them is shown as silence. */
  push(samples, rate, captured) {
    const missing = this.next === null ? 0 : Math.min(SHOWN_S, captured - this.next);
    for (let column = 1; column * COLUMN_S <= missing; column++) this.column();
    this.next = captured + samples.length / rate;
    for (const sample of samples) {
      const size = Math.abs(sample);
      if (size > this.peak) this.peak = size;
      if (++this.filled >= COLUMN_S * rate) this.column();
    }
  }

  /** Ends a column. */
  column() {
    this.peaks[this.at] = this.peak;
    this.at = (this.at + 1) % this.peaks.length;
    this.filled = this.peak = 0;
    this.changed = true;
  }

  draw() {
    this.changed = false;
    const { context, width, height } = surface(this.canvas);
    const count = this.peaks.length;
    const step = width / count;
    context.strokeStyle = colour(this.canvas, "--wave");
    context.lineWidth = Math.max(1, step * 0.7);
    context.beginPath();
    const middle = height / 2;
    for (let i = 0; i < count; i++) {
      const size = Math.min(1, this.peaks[(this.at + i) % count]) ** 0.6 * (middle - 2);
      const x = (i + 0.5) * step;
      context.moveTo(x, middle - Math.max(size, 0.4));
      context.lineTo(x, middle + Math.max(size, 0.4));
    }
    context.stroke();
  }
}

/** The lag of the last minute, in milliseconds, on a scale that fits. */
export class LagChart {
  constructor(canvas) {
    this.canvas = canvas;
    this.lags = [];
  }

  clear() {
    this.lags = [];
    this.changed = true;
  }

  push(milliseconds) {
    this.changed = true;
    this.lags.push(milliseconds);
    if (this.lags.length > LAGS) this.lags.shift();
  }

  /** The value that a share of the reports does not exceed. */
  percentile(share) {
    const sorted = [...this.lags].sort((a, b) => a - b);
    return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] : null;
  }

  draw() {
    this.changed = false;
    const { context, width, height } = surface(this.canvas);
    if (!this.lags.length) return;
    const top = Math.max(100, ...this.lags) * 1.1;
    const y = (lag) => height - 2 - (lag / top) * (height - 4);
    context.strokeStyle = colour(this.canvas, "--line");
    context.beginPath();
    context.moveTo(0, y(0));
    context.lineTo(width, y(0));
    context.stroke();
    context.strokeStyle = colour(this.canvas, "--accent");
    context.lineWidth = 1.5;
    context.beginPath();
    this.lags.forEach((lag, i) => context.lineTo(width - ((this.lags.length - 1 - i) / LAGS) * width, y(lag)));
    context.stroke();
  }
}

/** Draws what changed, twice a second where motion is unwelcome; nothing while the page is hidden. */
export function animate(drawings) {
  let drawn = -Infinity;
  const frame = (now) => {
    if (now - drawn >= (CALM.matches ? REDRAW_MS : FRAME_MS)) {
      drawn = now;
      for (const drawing of drawings) if (drawing.changed) drawing.draw();
    }
    requestAnimationFrame(frame);
  };
  const everything = () => drawings.forEach((drawing) => (drawing.changed = true));
  addEventListener("resize", everything);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", everything);
  everything();
  requestAnimationFrame(frame);
}
