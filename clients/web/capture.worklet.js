// The microphone's end: gathers render quanta into blocks and posts each with the time at which its first sample came, to the page
// and, past it, to the worker that speaks to the server.
// Times are seconds on the clock of the audio context, which the player shares: no clocks need comparing.

class Capture extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.block = new Float32Array(processorOptions.block);
    this.filled = 0;
    this.began = 0;
    this.running = false;
    this.ends = [this.port];
    this.port.onmessage = ({ data }) => {
      if (data.port) this.ends = [this.port, data.port];
      else if (data === "start") {
        this.running = true;
        this.filled = 0;
      } else if (data === "stop") {
        this.running = false;
        this.post(this.filled);
        for (const end of this.ends) end.postMessage({ done: true });
      }
    };
  }

  /** Sends the first `count` samples of the block and starts the next one. */
  post(count) {
    if (count > 0) {
      for (const end of this.ends) {
        const samples = this.block.slice(0, count);
        end.postMessage({ samples, captured: this.began }, [samples.buffer]);
      }
    }
    this.filled = 0;
  }

  process([input]) {
    const channel = input[0];
    if (!this.running || !channel) return true;
    for (let at = 0; at < channel.length; ) {
      if (this.filled === 0) this.began = (currentFrame + at) / sampleRate;
      const count = Math.min(channel.length - at, this.block.length - this.filled);
      this.block.set(channel.subarray(at, at + count), this.filled);
      this.filled += count;
      at += count;
      if (this.filled === this.block.length) this.post(this.filled);
    }
    return true;
  }
}

registerProcessor("rtvc-capture", Capture);
