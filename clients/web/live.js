// Speaking live: the microphone, the session, the meters and the tapes, from Start to Stop.

import { Tape, toInt16 } from "./pcm.js";
import { LagChart, Wave, animate } from "./scope.js";
import { Session } from "./session.js";
import { Sound } from "./sound.js";

const KEPT_S = 120;
const MOST_LAG_MS = 400; // older audio is left out
const LOST_MS = 2000; // how often it is asked what was left out

const milliseconds = (seconds) => `${Math.round(1000 * seconds)} ms`;

export class Live extends EventTarget {
  /** `$` finds an element by its id; `status(state, text)` and `trouble(error)` tell people. */
  constructor($, { status, trouble }) {
    super();
    Object.assign(this, { $, status, trouble, on: false, able: false, lost: 0, reference: null });
    this.sound = new Sound();
    this.session = new Session(new URL("v1", location.href.replace(/^http/, "ws")));
    this.waves = { said: new Wave($("said")), heard: new Wave($("heard")) };
    this.lags = new LagChart($("lags"));
    this.tapes = { said: new Tape(KEPT_S), heard: new Tape(KEPT_S) };
    this.wireSound();
    this.wireSession();
    animate([...Object.values(this.waves), this.lags]);
    setInterval(() => this.count(), LOST_MS);
  }

  wireSound() {
    this.sound.addEventListener("block", ({ detail }) => this.waves.said.push(detail.samples, this.sound.rate, detail.captured));
    this.sound.addEventListener("report", ({ detail }) => this.on && this.meter(detail));
    this.sound.addEventListener("lost", () => {
      this.trouble(new Error("The microphone is gone. Choose another one, then start again."));
      if (this.on) this.stop();
    });
  }

  wireSession() {
    const when = (event, act) => this.session.addEventListener(event, ({ detail }) => act(detail));
    when("said", (block) => this.tapes.said.push(block));
    when("heard", ({ samples, captured }) => {
      this.waves.heard.push(samples, this.tapes.heard.rate, captured);
      this.tapes.heard.push(toInt16(samples));
    });
    when("waiting", () => this.status("waiting", "Connection lost, trying again…"));
    when("resumed", () => this.status("live", "Live again"));
    when("refused", (refusal) => this.trouble(refusal));
    when("draining", (seconds) => this.trouble(new Error(`The server goes down within ${Math.round(seconds)} seconds.`)));
    when("ended", (error) => {
      this.trouble(error);
      this.ended();
    });
    when("away", (refusal) => this.status("away", refusal?.code === "idle" ? "Resting" : "Not connected"));
  }

  /** Whether there is a voice to speak with. */
  can(able) {
    this.able = able;
    this.busy(false);
  }

  /** While something begins or ends, the button waits; it is not disabled then, or it would lose the focus of the keyboard. */
  busy(on) {
    this.$("go").disabled = !this.able && !this.on;
    this.$("go").setAttribute("aria-disabled", String(on));
  }

  /** What the button does. */
  toggle(settings) {
    if (this.$("go").getAttribute("aria-disabled") === "true") return;
    this.busy(true);
    if (this.on) this.stop();
    else this.start(settings);
  }

  /** Opens the microphone unless it is open. */
  async open() {
    if (!this.sound.open) {
      const [source, sink, headphones] = [this.$("source").value, this.$("sink").value, this.$("headphones").checked];
      await this.sound.start({ source, sink, headphones }, (said, heard) => this.session.attach(said, heard));
      this.sound.listen();
      this.dispatchEvent(new Event("devices"));
    }
    return this.sound;
  }

  /** Closes the microphone unless somebody needs it. */
  async close() {
    if (!this.on && !this.reference.recording) await this.sound.stop();
  }

  async start(settings) {
    this.trouble(null);
    try {
      const { chunk_ms } = await this.session.open();
      const { rate, block } = await this.open();
      this.sound.clear(chunk_ms / 1000);
      for (const tape of Object.values(this.tapes)) tape.clear(rate);
      for (const drawing of [...Object.values(this.waves), this.lags]) drawing.clear();
      this.lost = 0;
      const lag = this.$("slow").value === "live" ? { max_lag_ms: MOST_LAG_MS } : {};
      await this.session.start({ sample_rate: rate, format: "s16", block, ...lag, ...settings });
      this.show(true);
      this.status("live", "Live");
    } catch (error) {
      this.trouble(error);
      await this.close();
    }
    this.busy(false);
  }

  async stop() {
    this.status("live", "Finishing…");
    try {
      await this.sound.hush();
      await this.session.stop();
    } catch (error) {
      this.trouble(error);
    }
    await this.ended();
  }

  /** The session is over, whoever ended it. */
  async ended() {
    this.show(false);
    await this.close();
    if (this.sound.open) this.sound.listen();
    this.busy(false);
    if (this.session.connected) this.status("ready", "Ready");
  }

  show(on) {
    const { $ } = this;
    this.on = on;
    $("go").setAttribute("aria-pressed", String(on));
    $("go-text").textContent = on ? "Stop" : "Start";
    $("keep").hidden = on || !this.tapes.said.length;
    for (const id of ["source", "slow", "headphones"]) $(id).disabled = on;
  }

  /** Changes a running session. */
  update(settings) {
    if (this.on) this.session.ask({ type: "update", ...settings }, "updated").catch((error) => this.trouble(error));
  }

  async count() {
    if (this.on) this.lost = await this.session.lost().catch(() => this.lost);
  }

  meter({ lag, level, underruns, dropped }) {
    const { $ } = this;
    if (lag !== null) {
      this.lags.push(1000 * lag);
      $("lag").textContent = Math.round(1000 * lag);
      $("lag95").textContent = `${Math.round(this.lags.percentile(0.95))} ms`;
    }
    $("level").textContent = milliseconds(level);
    $("gaps").textContent = underruns;
    $("lost").textContent = milliseconds(dropped + this.lost);
  }

  /** Gives a tape to the user as a file. */
  save(name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(this.tapes[name].file());
    link.download = `${name}.wav`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }
}
