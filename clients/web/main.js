// The page: what the elements do to the sound, the connection and the voices.

import { Connection } from "./connection.js";
import { Tape, toInt16 } from "./pcm.js";
import { Reference } from "./reference.js";
import { LagChart, Wave, animate } from "./scope.js";
import { Sound, devices } from "./sound.js";
import { Voices } from "./voices.js";

const KEPT_S = 120;
const MOST_LAG_MS = 400; // older audio is left out
const STATS_MS = 2000;
const SETTLE_MS = 120; // sliders send what they come to rest at

const $ = (id) => document.getElementById(id);
const sound = new Sound();
const connection = new Connection(new URL("v1", location.href.replace(/^http/, "ws")));
const voices = new Voices($("voices"), $("mix"));
const said = new Wave($("said"));
const heard = new Wave($("heard"));
const lags = new LagChart($("lags"));
const tapes = { said: new Tape(KEPT_S), heard: new Tape(KEPT_S) };
let live = false;

function status(state, text) {
  $("status").dataset.state = state;
  $("status").textContent = text;
}

function trouble(error) {
  $("trouble").textContent = error?.message ?? "";
  if (error?.code === "unauthorized") ask();
}

/** Shows the door: the server wants a token. */
function ask() {
  sessionStorage.removeItem("token");
  $("door").hidden = false;
  $("token").focus();
}

/** Connects, and learns the voices. */
async function enter() {
  connection.token = sessionStorage.getItem("token");
  try {
    await connection.open();
    $("door").hidden = true;
    trouble(null);
    await list();
    status("ready", "Ready");
  } catch (error) {
    status("away", error.code === "unauthorized" ? "A token is wanted" : "Not connected");
    $("go").disabled = error.code === "unauthorized";
    if (error.code !== "unauthorized" || connection.token) trouble(error);
    else ask();
  }
}

async function list(wanted = null) {
  const { voices: names } = await connection.ask({ type: "voices" }, "voices");
  voices.show(names, wanted);
}

const settings = () => ({
  voice: voices.choice,
  pitch: Number($("pitch").value),
  prosody: Number($("prosody").value),
  wet: document.querySelector("[name=heard]:checked").value === "wet" ? 1 : 0,
});

/** Opens the microphone unless it is open. */
async function open() {
  if (!sound.open) {
    await sound.start({ source: $("source").value, sink: $("sink").value, headphones: $("headphones").checked });
    sound.listen();
    await fillDevices();
  }
  return sound;
}

/** Closes the microphone unless somebody needs it. */
async function close() {
  if (!live && !reference.recording) await sound.stop();
}

async function start() {
  $("go").disabled = true;
  trouble(null);
  try {
    await connection.open();
    await open();
    sound.clear();
    for (const tape of Object.values(tapes)) tape.clear(sound.rate);
    for (const drawing of [said, heard, lags]) drawing.clear();
    const stream = { sample_rate: sound.rate, format: "s16", block: sound.block, max_lag_ms: MOST_LAG_MS };
    await connection.start({ ...stream, ...settings() });
    show(true);
    status("live", "Live");
  } catch (error) {
    trouble(error);
    await close();
  }
  $("go").disabled = !voices.choice;
}

async function stop() {
  $("go").disabled = true;
  status("live", "Finishing");
  try {
    await sound.hush();
    await connection.stop();
  } catch (error) {
    trouble(error);
  }
  await ended();
}

/** The session is over, whoever ended it. */
async function ended() {
  show(false);
  await close();
  if (sound.open) sound.listen();
  $("go").disabled = !voices.choice;
  if (connection.welcome) status("ready", "Ready");
}

function show(on) {
  live = on;
  $("go").setAttribute("aria-pressed", String(on));
  $("go-text").textContent = on ? "Stop" : "Start";
  $("keep").hidden = on || !tapes.said.length;
  for (const id of ["source", "headphones"]) $(id).disabled = on;
}

/** Sends what changed, once it has come to rest. */
function update() {
  const { voice, pitch, prosody } = settings();
  $("pitch-now").textContent = `${pitch > 0 ? "+" : ""}${pitch} semitone${Math.abs(pitch) === 1 ? "" : "s"}`;
  $("prosody-now").textContent = prosody === 0 ? "yours" : prosody === 1 ? "theirs" : `${Math.round(100 * prosody)} % theirs`;
  $("speaking").textContent = voice && settings().wet ? voices.title : "";
  clearTimeout(update.timer);
  if (live) update.timer = setTimeout(() => connection.ask({ type: "update", ...settings() }, "updated").catch(trouble), SETTLE_MS);
}

function save(name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(tapes[name].file());
  link.download = `${name}.wav`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

async function fillDevices() {
  const { sources, sinks } = await devices();
  for (const [id, found] of [["source", sources], ["sink", sinks]]) {
    const chosen = $(id).value;
    const options = found.map(({ deviceId, label }, i) => new Option(label || `Device ${i + 1}`, deviceId));
    $(id).replaceChildren(new Option("Default", ""), ...options);
    $(id).value = found.some(({ deviceId }) => deviceId === chosen) ? chosen : "";
  }
  $("sink-row").hidden = !sinks.length;
}

const milliseconds = (seconds) => `${Math.round(1000 * seconds)} ms`;

sound.addEventListener("block", ({ detail: { samples, captured } }) => {
  said.push(samples, sound.rate);
  if (!live) return;
  const block = toInt16(samples);
  if (connection.send(block, captured)) tapes.said.push(block);
});
sound.addEventListener("report", ({ detail: { lag, level, underruns, dropped } }) => {
  if (!live) return;
  if (lag !== null) {
    lags.push(1000 * lag);
    $("lag").textContent = Math.round(1000 * lag);
    $("lag95").textContent = `${Math.round(lags.percentile(0.95))} ms`;
  }
  $("level").textContent = milliseconds(level);
  $("gaps").textContent = underruns;
  $("lost").textContent = milliseconds(dropped + connection.lost + left.server);
});
sound.addEventListener("lost", () => {
  trouble(new Error("The microphone is gone. Choose another one, then start again."));
  if (live) stop();
});

connection.addEventListener("audio", ({ detail: { samples, captured } }) => {
  heard.push(samples, sound.rate);
  tapes.heard.push(toInt16(samples));
  if (sound.open) sound.play(samples, captured);
});
connection.addEventListener("waiting", () => status("waiting", "Connection lost, trying again…"));
connection.addEventListener("resumed", () => status("live", "Live again"));
connection.addEventListener("refused", ({ detail }) => trouble(detail));
connection.addEventListener("draining", ({ detail }) => trouble(new Error(`The server goes down within ${Math.round(detail)} seconds.`)));
connection.addEventListener("ended", ({ detail }) => {
  trouble(detail);
  ended();
});
connection.addEventListener("away", ({ detail }) => status("away", detail?.code === "idle" ? "Resting" : "Not connected"));

const left = { server: 0 };
setInterval(async () => {
  if (!live || connection.session?.away) return;
  const stats = await connection.ask({ type: "stats" }, "stats").catch(() => null);
  left.server = (stats?.dropped_ms ?? 0) / 1000;
}, STATS_MS);

const reference = new Reference(
  { name: $("name"), record: $("record"), choose: $("choose"), file: $("file"), drop: $("drop"), progress: $("progress") },
  {
    open,
    close,
    fail: trouble,
    send: async (name, bytes, progress) => {
      trouble(null);
      status($("status").dataset.state, `Making the voice ${name}…`);
      const made = await connection.upload(name, bytes, progress);
      await list(made.name);
      status(live ? "live" : "ready", [`${made.name} can speak now (${made.speech.toFixed(1)} s of speech).`, ...made.advice].join(" "));
    },
  },
);

$("go").addEventListener("click", () => (live ? stop() : start()));
$("volume").addEventListener("input", ({ target }) => sound.setVolume(Number(target.value)));
$("sink").addEventListener("change", ({ target }) => sound.context?.setSinkId(target.value).catch(trouble));
$("save-said").addEventListener("click", () => save("said"));
$("save-heard").addEventListener("click", () => save("heard"));
$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value);
  $("token").value = "";
  enter();
});
for (const id of ["pitch", "prosody"]) $(id).addEventListener("input", update);
for (const choice of document.querySelectorAll("[name=heard]")) choice.addEventListener("change", update);
voices.addEventListener("change", () => {
  $("go").disabled = !voices.choice;
  update();
});
navigator.mediaDevices?.addEventListener("devicechange", fillDevices);

update();
animate([said, heard, lags]);
enter();
