// A new voice: recorded here, chosen as a file, or dropped.

import { Tape, toInt16 } from "./pcm.js";

const LONGEST_S = 30;
const SHORTEST_S = 2;

/** A name that the server takes, from a file's name. */
export function nameOf(file) {
  return file.replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N}_-]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 48) || "voice";
}

export class Reference {
  /**
   * `elements`: name, record, choose, file, drop, progress.
   * `open` opens the microphone and resolves with the `Sound`; `send(name, bytes, progress)` makes the voice; `fail(error)` tells people.
   */
  constructor(elements, { open, close, send, fail }) {
    Object.assign(this, { ...elements, open, close, send, fail });
    this.tape = new Tape(LONGEST_S);
    this.recording = null;
    this.busy = false;
    this.record.addEventListener("click", () => this.busy || (this.recording ? this.finish() : this.begin()));
    this.choose.addEventListener("click", () => this.busy || this.file.click());
    this.file.addEventListener("change", () => this.take(this.file.files));
    this.wireDrop();
  }

  wireDrop() {
    const over = (on) => this.drop.classList.toggle("over", on);
    // the whole page takes a drop, or a near miss would replace the page by the recording
    addEventListener("dragover", (event) => {
      event.preventDefault();
      over(true);
    });
    addEventListener("dragleave", (event) => event.relatedTarget === null && over(false));
    addEventListener("drop", (event) => {
      event.preventDefault();
      over(false);
      this.take(event.dataTransfer.files);
    });
  }

  async take(files) {
    const [file] = files;
    this.file.value = "";
    if (file && !this.busy) await this.submit(this.name.value || nameOf(file.name), new Uint8Array(await file.arrayBuffer()));
  }

  async begin() {
    try {
      const sound = await this.open();
      this.tape.clear(sound.rate);
      const hear = ({ detail }) => this.hear(detail.samples);
      sound.addEventListener("block", hear);
      this.recording = () => sound.removeEventListener("block", hear);
      this.record.textContent = "Finish";
      this.show(0);
    } catch (error) {
      this.fail(error);
    }
  }

  hear(samples) {
    this.tape.push(toInt16(samples));
    const seconds = this.tape.length / this.tape.rate;
    this.show(seconds / LONGEST_S);
    if (seconds >= LONGEST_S) this.finish();
  }

  async finish() {
    this.recording();
    this.recording = null;
    this.record.textContent = "Record";
    this.progress.hidden = true;
    await this.close();
    if (this.tape.length < SHORTEST_S * this.tape.rate) this.fail(new Error("That was too short. Speak for five seconds or more."));
    else await this.submit(this.name.value || "my-voice", new Uint8Array(await this.tape.file().arrayBuffer()));
  }

  async submit(name, bytes) {
    this.wait(true);
    try {
      await this.send(nameOf(`${name}.`), bytes, (share) => this.show(share));
      this.name.value = "";
    } catch (error) {
      this.fail(error);
    } finally {
      this.wait(false);
      this.progress.hidden = true;
    }
  }

  /** The buttons wait; they are not disabled, or they would lose the focus of the keyboard. */
  wait(on) {
    this.busy = on;
    for (const button of [this.record, this.choose]) button.setAttribute("aria-disabled", String(on));
  }

  show(share) {
    this.progress.hidden = false;
    this.progress.value = share;
  }
}
