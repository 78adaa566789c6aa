// Microphone and loudspeaker: one audio context, a worklet at each end.

const BLOCK_S = 0.01;

/** What went wrong with the microphone, for people. */
function explain(error) {
  const texts = {
    NotAllowedError: "The microphone was not allowed. Allow it in the browser's address bar, then start again.",
    NotFoundError: "No microphone was found. Plug one in, then start again.",
    NotReadableError: "The microphone is busy: another program holds it. Close that one, then start again.",
    OverconstrainedError: "That microphone is gone. Choose another one.",
  };
  return new Error(texts[error.name] ?? `The microphone cannot be opened: ${error.message}`);
}

export class Sound extends EventTarget {
  constructor() {
    super();
    this.context = null;
    this.stream = null;
    this.volume = 1;
  }

  get rate() {
    return this.context.sampleRate;
  }

  get block() {
    return Math.round(BLOCK_S * this.rate);
  }

  get open() {
    return this.stream !== null;
  }

  /**
   * Opens the microphone `source` (an id, "" for the default). Must be called from a click or a key.
   * `attach` is given two ports: one gives blocks of the microphone, what is posted to the other is played.
   */
  async start({ source, sink, headphones }, attach) {
    if (!navigator.mediaDevices) throw new Error("Microphones work only over https or from localhost. Open this page that way.");
    await this.stop();
    const raw = { echoCancellation: !headphones, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ audio: source ? { ...raw, deviceId: { exact: source } } : raw });
    } catch (error) {
      throw explain(error);
    }
    this.stream.getAudioTracks()[0].addEventListener("ended", () => this.dispatchEvent(new Event("lost")));
    await this.wire(sink, attach);
  }

  /** Microphone -> capture, playback -> gain -> loudspeaker. */
  async wire(sink, attach) {
    const context = (this.context = new AudioContext({ latencyHint: "interactive" }));
    await Promise.all(["capture", "playback"].map((name) => context.audioWorklet.addModule(`${name}.worklet.js`)));
    const mono = { numberOfInputs: 1, numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" };
    this.capture = new AudioWorkletNode(context, "rtvc-capture", { ...mono, processorOptions: { block: this.block } });
    this.player = new AudioWorkletNode(context, "rtvc-playback", { numberOfInputs: 0, outputChannelCount: [2] });
    this.gain = new GainNode(context, { gain: this.volume });
    this.microphone = context.createMediaStreamSource(this.stream);
    this.microphone.connect(this.capture);
    this.player.connect(this.gain).connect(context.destination);
    this.capture.port.onmessage = ({ data }) => this.captured(data);
    this.player.port.onmessage = ({ data }) => this.report(data);
    const [said, heard] = [new MessageChannel(), new MessageChannel()];
    this.capture.port.postMessage({ port: said.port1 }, [said.port1]);
    this.player.port.postMessage({ port: heard.port1 }, [heard.port1]);
    attach(said.port2, heard.port2);
    if (sink && context.setSinkId) await context.setSinkId(sink);
    await context.resume();
  }

  captured(data) {
    if (data.done) this.ended?.();
    else this.dispatchEvent(new CustomEvent("block", { detail: data }));
  }

  /** Adds what the worklet cannot know to its report: the delays of the two devices. */
  report(data) {
    const device = (this.context.outputLatency || this.context.baseLatency || 0) + (this.settings().latency ?? 0);
    const lag = data.lag === null ? null : data.lag + device;
    this.dispatchEvent(new CustomEvent("report", { detail: { ...data, lag } }));
  }

  settings() {
    return this.stream?.getAudioTracks()[0]?.getSettings() ?? {};
  }

  /** Blocks of the microphone come as `block` events from now on. */
  listen() {
    this.capture.port.postMessage("start");
  }

  /** No more blocks; resolves when the last one has come. */
  hush() {
    return new Promise((resolve) => {
      this.ended = resolve;
      this.capture.port.postMessage("stop");
    });
  }

  /** Forgets what waits to be played; from now on audio comes `chunk` seconds at a time. */
  clear(chunk) {
    this.player.port.postMessage({ chunk });
    this.player.port.postMessage({ reset: true });
  }

  setVolume(volume) {
    this.volume = volume;
    this.gain?.gain.setTargetAtTime(volume, this.context.currentTime, 0.02);
  }

  async stop() {
    if (this.player) this.player.port.onmessage = this.capture.port.onmessage = null;
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    await this.context?.close();
    this.context = this.gain = this.player = this.capture = null;
  }
}

/** Input and output devices; names are known once a microphone was allowed. */
export async function devices() {
  const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  const named = (kind) => all.filter((device) => device.kind === kind && device.deviceId && device.deviceId !== "default");
  return { sources: named("audioinput"), sinks: "setSinkId" in AudioContext.prototype ? named("audiooutput") : [] };
}
