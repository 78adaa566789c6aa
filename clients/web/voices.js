// The card of the voices: one of them, or a mix of several by share; its pitch, and whose melody it speaks.

const CARD = `
  <div class="head">
    <h2 id="voice-title">Voice</h2>
    <label class="switch"><input id="mix" type="checkbox" role="switch" /><span>Mix</span></label>
  </div>
  <fieldset id="voices" class="voices">
    <legend class="unseen">Voices</legend>
    <p class="hint">No voice yet: record or drop a reference below.</p>
  </fieldset>
  <label class="slide" for="pitch">Pitch <output id="pitch-now">0 semitones</output></label>
  <input id="pitch" type="range" min="-12" max="12" step="1" value="0" />
  <label class="slide" for="prosody">Melody <output id="prosody-now">theirs</output></label>
  <input id="prosody" type="range" min="0" max="1" step="0.05" value="1" aria-describedby="prosody-hint" />
  <p id="prosody-hint" class="hint">Left keeps your own register and range, right takes theirs.</p>
`;

export class Voices extends EventTarget {
  /** Fills `card`, above what it has already. */
  constructor(card) {
    super();
    card.insertAdjacentHTML("afterbegin", CARD);
    this.card = card;
    this.box = card.querySelector("#voices");
    this.mix = card.querySelector("#mix");
    this.empty = this.box.querySelector(".hint");
    this.names = [];
    this.chosen = new Map(); // name -> share in percent; exactly one entry without mixing
    this.mix.addEventListener("change", () => this.remix());
  }

  /** What the protocol calls a voice: a name, or names with shares; null without voices. */
  get choice() {
    const shares = [...this.chosen].filter(([, share]) => share > 0);
    if (!shares.length) return null;
    return shares.length === 1 ? shares[0][0] : Object.fromEntries(shares);
  }

  /** The choice in words. */
  get title() {
    return [...this.chosen.keys()].join(" + ");
  }

  /** In semitones. */
  get pitch() {
    return Number(this.card.querySelector("#pitch").value);
  }

  /** 0 keeps the speaker's own melody, 1 takes the voice's. */
  get prosody() {
    return Number(this.card.querySelector("#prosody").value);
  }

  /** Shows the words beside the sliders. */
  say() {
    const { pitch, prosody } = this;
    const now = (name, words) => (this.card.querySelector(`#${name}-now`).textContent = words);
    now("pitch", `${pitch > 0 ? "+" : ""}${pitch} semitone${Math.abs(pitch) === 1 ? "" : "s"}`);
    now("prosody", prosody === 0 ? "yours" : prosody === 1 ? "theirs" : `${Math.round(100 * prosody)} % theirs`);
  }

  /** Shows these voices; `wanted` is chosen, or else what was, or else the first. */
  show(names, wanted = null) {
    this.names = names;
    if (wanted && !this.mix.checked) this.chosen.clear();
    if (wanted) this.chosen.set(wanted, 100);
    for (const name of this.chosen.keys()) if (!names.includes(name)) this.chosen.delete(name);
    if (!this.chosen.size && names.length) this.chosen.set(names[0], 100);
    this.render();
    this.changed();
  }

  render() {
    const mixing = this.mix.checked;
    this.box.replaceChildren(this.box.querySelector("legend"), ...(this.names.length ? [] : [this.empty]));
    for (const name of this.names) {
      const row = document.createElement("div");
      row.className = mixing ? "voice mixed" : "voice";
      const label = document.createElement("label");
      const input = document.createElement("input");
      input.type = mixing ? "checkbox" : "radio";
      input.name = "voice";
      input.value = name;
      input.checked = this.chosen.has(name);
      label.append(input, name);
      row.append(label);
      if (mixing) row.append(this.share(name, input));
      else input.addEventListener("change", () => this.choose(name));
      this.box.append(row);
    }
  }

  /** The slider of one voice's share, which follows its check box. */
  share(name, box) {
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: 5, max: 100, step: 5, value: this.chosen.get(name) ?? 100, disabled: !box.checked });
    slider.setAttribute("aria-label", `Share of ${name} in percent`);
    slider.addEventListener("input", () => {
      this.chosen.set(name, Number(slider.value));
      this.changed();
    });
    box.addEventListener("change", () => {
      if (!box.checked && this.chosen.size === 1) box.checked = true; // somebody has to speak
      else if (box.checked) this.chosen.set(name, Number(slider.value));
      else this.chosen.delete(name);
      slider.disabled = !box.checked;
      this.changed();
    });
    return slider;
  }

  choose(name) {
    this.chosen = new Map([[name, 100]]);
    this.changed();
  }

  remix() {
    if (!this.mix.checked && this.chosen.size > 1) {
      const [first] = [...this.chosen].sort((a, b) => b[1] - a[1])[0];
      this.chosen = new Map([[first, 100]]);
    }
    this.render();
    this.changed();
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }
}
