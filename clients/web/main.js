// The page: what its elements do to the sound, the session and the voices, and what it shows of them.

import { Live } from "./live.js";
import { Reference } from "./reference.js";
import { devices } from "./sound.js";
import { Voices } from "./voices.js";

const SETTLE_MS = 120; // sliders send what they come to rest at

const $ = (id) => document.getElementById(id);
const live = new Live($, { status, trouble });
const voices = new Voices($("voice"));

/** One line on how things are; screen readers hear it. */
function status(state, text) {
  $("status").dataset.state = state;
  $("status").textContent = text;
}

/** What went wrong, until something goes right. */
function trouble(error) {
  $("trouble").textContent = error?.message ?? "";
  if (error?.code === "unauthorized") ask();
}

/** Shows the door: the server wants a token. */
function ask() {
  sessionStorage.removeItem("token");
  status("away", "A token is wanted");
  $("door").hidden = false;
  $("token").focus();
}

/** Connects, and learns the voices. */
async function enter() {
  const knocked = sessionStorage.getItem("token");
  try {
    await live.session.open();
    $("door").hidden = true;
    trouble(null);
    await list();
    status("ready", "Ready");
  } catch (error) {
    status("away", "Not connected");
    if (error.code === "unauthorized" && !knocked) ask();
    else trouble(error);
  }
}

async function list(wanted = null) {
  const { voices: names } = await live.session.ask({ type: "voices" }, "voices");
  voices.show(names, wanted);
}

const settings = () => ({
  voice: voices.choice,
  pitch: voices.pitch,
  prosody: voices.prosody,
  wet: document.querySelector("[name=heard]:checked").value === "wet" ? 1 : 0,
});

/** Shows the settings, and sends what changed once it has come to rest. */
function update() {
  const { voice, wet } = settings();
  voices.say();
  $("speaking").textContent = voice && wet ? voices.title : "";
  live.can(voice !== null);
  clearTimeout(update.timer);
  update.timer = setTimeout(() => live.update(settings()), SETTLE_MS);
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

live.reference = new Reference(
  { name: $("name"), record: $("record"), choose: $("choose"), file: $("file"), drop: $("drop"), progress: $("progress") },
  {
    open: () => live.open(),
    close: () => live.close(),
    fail: trouble,
    send: async (name, bytes, progress) => {
      trouble(null);
      const { state } = $("status").dataset;
      status(state, `Making the voice ${name}…`);
      const made = await live.session.upload(name, bytes, progress);
      await list(made.name);
      const advice = made.advice.map((line) => `${line}.`);
      status(live.on ? "live" : "ready", [`${made.name} can speak now.`, ...advice].join(" "));
    },
  },
);

$("go").addEventListener("click", () => live.toggle(settings()));
$("volume").addEventListener("input", ({ target }) => live.sound.setVolume(Number(target.value)));
$("sink").addEventListener("change", ({ target }) => live.sound.context?.setSinkId(target.value).catch(trouble));
for (const name of ["said", "heard"]) $(`save-${name}`).addEventListener("click", () => live.save(name));
$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value);
  $("token").value = "";
  enter();
});
for (const id of ["pitch", "prosody"]) $(id).addEventListener("input", update);
for (const choice of document.querySelectorAll("[name=heard]")) choice.addEventListener("change", update);
voices.addEventListener("change", update);
live.addEventListener("devices", fillDevices);
navigator.mediaDevices?.addEventListener("devicechange", fillDevices);

update();
enter();
