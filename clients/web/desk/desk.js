// The page of `rtvc live`: shows the state of the conversion, and sends what a person changes.

import { Api } from "./api.js";
import { Reference } from "./reference.js";
import { LagChart, animate } from "./scope.js";
import { Voices } from "./voices.js";

const SETTLE_MS = 80; // sliders send what they come to rest at
const LISTEN_S = 10; // of the microphone, for a new voice
const SWITCHES = ["virtual_mic", "gate", "denoise", "agc"];
const DEVICES = ["input", "output", "monitor"];

const $ = (id) => document.getElementById(id);
const api = new Api();
const voices = new Voices($("voice"));
const lags = new LagChart($("lags"));
const sending = new Map(); // field -> changes under way: until they are answered, the state is old
const resting = new Map(); // field -> timer of a slider that has not come to rest
let showing = false; // what the voices tell meanwhile is our own doing
let heard = null; // the last state

function trouble(error) {
  $("trouble").textContent = error?.message ?? "";
}

/** Sends a change; what is refused is told, and the page shows again what holds. */
async function send(fields) {
  for (const name of Object.keys(fields)) sending.set(name, (sending.get(name) ?? 0) + 1);
  try {
    const state = await api.change(fields);
    trouble(null);
    heard = state;
  } catch (error) {
    trouble(error);
  }
  for (const name of Object.keys(fields)) sending.set(name, sending.get(name) - 1);
  if (heard) show(heard);
}

/** Sends a change once nothing newer came for a moment. */
function soon(fields) {
  const [name] = Object.keys(fields);
  clearTimeout(resting.get(name));
  resting.set(
    name,
    setTimeout(() => {
      resting.delete(name);
      send(fields);
    }, SETTLE_MS),
  );
}

/** Whether the state may be shown: nobody is changing this. */
const settled = (name) => !sending.get(name) && !resting.has(name);

function show(state) {
  heard = state;
  const going = state.state === "running";
  $("status").dataset.state = going ? "live" : "waiting";
  const words = going ? "Live" : `${state.state}${state.problem ? `: ${state.problem}` : ""}`;
  if ($("status").textContent !== words) $("status").textContent = words;
  showNumbers(state);
  if (settled("bypass")) document.querySelector(`[name=heard][value=${state.bypass ? "dry" : "wet"}]`).checked = true;
  if (settled("mute")) $("mute").setAttribute("aria-pressed", String(state.muted));
  showRecording(state.recording);
  if (settled("pitch")) $("pitch").value = state.pitch;
  if (settled("prosody")) $("prosody").value = state.prosody;
  for (const name of SWITCHES) {
    $(name).disabled = state[name] === null;
    if (settled(name)) $(name).checked = Boolean(state[name]);
  }
  for (const name of DEVICES) if (settled(name)) choose($(name), state[name]);
  if (settled("voice")) showVoice(state);
  showLookahead(state);
  say();
}

function showNumbers(state) {
  const milliseconds = (value) => `${Math.round(value)} ms`;
  $("level-in").value = state.level_in_db;
  $("level-out").value = state.level_out_db;
  if ($("input-problem").textContent !== state.input_problem) $("input-problem").textContent = state.input_problem;
  $("lag").textContent = Math.round(state.lag_ms);
  for (const share of ["p50", "p95", "p99"]) $(share).textContent = milliseconds(state[`lag_${share}_ms`]);
  $("expected").textContent = milliseconds(state.expected_ms);
  $("xruns").textContent = state.xruns;
  $("underruns").textContent = state.underruns;
  $("dropped").textContent = milliseconds(state.dropped_ms);
  $("cpu").textContent = `${Math.round(100 * state.cpu)} % of a core`;
  $("gain").textContent = state.gain_db === undefined ? "" : `${state.gain_db > 0 ? "+" : ""}${state.gain_db} dB`;
  if (state.state === "running") lags.push(state.lag_ms);
}

function showRecording({ on, seconds, folder, problem }) {
  if (settled("record")) $("record").setAttribute("aria-pressed", String(on));
  const words = on ? `${Math.floor(seconds)} s recorded` : problem;
  $("recorded").textContent = words;
  $("recorded").title = folder;
}

function showVoice({ voice, voices: names }) {
  showing = true;
  if (names.join("\n") !== voices.names.join("\n")) voices.show(names);
  if (JSON.stringify(voices.choice) !== JSON.stringify(voice) && !same(voice)) {
    const shares = typeof voice === "string" ? [[voice, 100]] : Object.entries(voice);
    const most = Math.max(...shares.map(([, share]) => share));
    voices.mix.checked = shares.length > 1;
    voices.chosen = new Map(shares.map(([name, share]) => [name, Math.max(5, Math.round((100 * share) / most))]));
    voices.render();
  }
  showing = false;
}

/** Whether the list shows this voice already, whatever the scale of its shares. */
function same(voice) {
  if (typeof voice === "string") return voices.choice === voice;
  const mine = voices.choice;
  if (!mine || typeof mine === "string") return false;
  const [a, b] = [mine, voice].map((shares) => {
    const most = Math.max(...Object.values(shares));
    return Object.entries(shares).map(([name, share]) => `${name} ${Math.round((20 * share) / most)}`).sort().join("\n");
  });
  return a === b;
}

function showLookahead({ lookaheads_ms: settings, lookahead_ms: now }) {
  const select = $("lookahead");
  const shown = settings.join(" ");
  if (select.dataset.settings === shown) return;
  select.dataset.settings = shown;
  select.replaceChildren(...settings.map((ms) => new Option(`${ms} ms`, ms, ms === now, ms === now)));
  select.disabled = settings.length < 2;
  $("lookahead-hint").textContent = settings.length ? "This model has one setting." : "The server's.";
  $("lookahead-hint").hidden = settings.length > 1;
}

/** The words beside the sliders, and who speaks. */
function say() {
  voices.say();
  $("speaking").textContent = heard?.bypass ? "" : voices.title;
}

/** Selects a device, which may have been named by a part of its name. */
function choose(select, device) {
  const value = device === null ? "off" : device;
  if (![...select.options].some((option) => option.value === value)) select.add(new Option(value, value));
  select.value = value;
}

async function listDevices() {
  const { devices } = await api.ask("v1/devices");
  for (const name of DEVICES) {
    const kind = name === "input" ? "inputs" : "outputs";
    const options = devices.filter((device) => device[kind]).map((device) => new Option(device.name, device.key));
    const off = name === "monitor" ? [new Option("Off", "off")] : [];
    $(name).replaceChildren(...off, new Option("Default", ""), ...options);
    if (heard) choose($(name), heard[name]);
  }
}

/** A new voice of the microphone that `rtvc live` hears, not the browser's. */
class Desk extends Reference {
  async begin() {
    const name = this.name.value || "my-voice";
    this.wait(true);
    const began = Date.now();
    const timer = setInterval(() => this.show(Math.min(1, (Date.now() - began) / 1000 / LISTEN_S)), 100);
    try {
      made(await api.post(`v1/voices/${encodeURIComponent(name)}/microphone?seconds=${LISTEN_S}`));
      this.name.value = "";
    } catch (error) {
      trouble(error);
    }
    clearInterval(timer);
    this.progress.hidden = true;
    this.wait(false);
  }
}

function made({ name, advice }) {
  trouble(advice.length ? new Error(`${name} can speak now. ${advice.map((line) => `${line}.`).join(" ")}`) : null);
  send({ voice: name });
}

new Desk(
  { name: $("name"), record: $("listen"), choose: $("choose"), file: $("file"), drop: $("drop"), progress: $("progress") },
  {
    fail: trouble,
    send: async (name, bytes) => made(await api.post(`v1/voices/${encodeURIComponent(name)}`, bytes)),
  },
);

voices.addEventListener("change", () => {
  if (!showing && voices.choice !== null) soon({ voice: voices.choice });
  say();
});
for (const name of ["pitch", "prosody"]) {
  $(name).addEventListener("input", () => {
    soon({ [name]: Number($(name).value) });
    say();
  });
}
for (const choice of document.querySelectorAll("[name=heard]"))
  choice.addEventListener("change", () => send({ bypass: choice.value === "dry" && choice.checked }));
for (const name of ["mute", "record"]) $(name).addEventListener("click", () => send({ [name]: $(name).getAttribute("aria-pressed") !== "true" }));
for (const name of SWITCHES) $(name).addEventListener("change", () => send({ [name]: $(name).checked }));
for (const name of DEVICES) {
  $(name).addEventListener("change", () => send({ [name]: $(name).value === "off" ? null : $(name).value }));
  $(name).addEventListener("focus", () => listDevices().catch(trouble));
}
$("lookahead").addEventListener("change", () => send({ lookahead: Number($("lookahead").value) }));

animate([lags]);
listDevices().catch(() => {}); // `listen` tells what is wrong
api.listen(show, (error) => {
  $("status").dataset.state = "away";
  $("status").textContent = "Not connected";
  trouble(error?.message?.includes("Authorization") ? new Error("Open the address that `rtvc live --page` printed: it holds the key.") : null);
});
