"""`rtvc bench soak`: minutes of `rtvc live` on a private sound server and a busy core; meanwhile
the loudspeaker is unplugged, and the microphone comes back at another rate."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from rtvc.benchmarks.live.cold import ROOT, RUN, voice_file
from rtvc.benchmarks.live.pulse import MODULES, Room, room
from rtvc.errors import DeviceError

BUSY = "while True: pass"
"""A program that keeps a core busy."""
AWAY_S = 5.0
"""How long the loudspeaker is unplugged."""
OTHER_RATE = 44_100
TOLD = ("state", "problem", "level_in_db", "level_out_db", "losses")
"""What is said of a conversion that does not come back."""
LAST_WORDS = 2_000
"""Characters of what a process complained of that are told."""
COUNTED = ("xruns", "underruns", "dropped_ms", "losses")
"""Counts of the state that are told for each part."""


class Watched:
    """A live conversion in a process of its own, and every state that it told."""

    def __init__(self, place: Room, root: Path, seconds: float) -> None:
        arguments = ["live", "--voice", str(voice_file()), "--no-gate", "--json"]
        arguments += ["--chunk", "12.5", "--seconds", str(seconds)]
        environment = {**os.environ, **place.environment, "PYTHONPATH": str(root)}
        self.complaints = place.folder / "live.log"
        with self.complaints.open("w") as complaints:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUN, *arguments],
                env=environment,
                cwd=root,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
            )
        self.states = list[tuple[float, dict[str, Any]]]()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self.states.append((time.monotonic(), json.loads(line)))

    def wait_for(
        self, *, state: str = "running", after: float = 0.0, patience: float = 60
    ) -> float:
        """Seconds until it says that it is in a state and that something is heard.

        Raises:
            DeviceError: it never does.
        """
        began = time.monotonic()
        while time.monotonic() - began < patience and self.process.poll() is None:
            recent = [each for at, each in self.states if at > max(began, after)]
            if any(each["state"] == state and each["level_out_db"] > -60 for each in recent):
                return time.monotonic() - began
            time.sleep(0.1)
        last = self.states[-1][1] if self.states else {"problem": "it said nothing"}
        words = ", ".join(f"{name} {last[name]}" for name in TOLD if name in last)
        waited = time.monotonic() - began
        raise DeviceError(
            f"the conversion was not {state} within {waited:.0f} s: {words}{self.end()}"
        )

    def end(self) -> str:
        """How its process ended and what it said last, or nothing while it goes on."""
        status = self.process.poll()
        if status is None:
            return ""
        complaints = self.complaints.read_text(errors="replace")[-LAST_WORDS:].strip()
        return f"; it ended with {status}: {complaints!r}"

    def counts(self) -> dict[str, float]:
        """What it has counted so far."""
        return {name: self.states[-1][1][name] for name in COUNTED} if self.states else {}

    def memory(self) -> int:
        """Pages that it holds; 1 where the system does not tell."""
        try:
            return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except OSError:
            return 1


def replug(place: Room, name: str, module: str, away: float) -> None:
    """Takes a device of the room away, and puts another of that name in its place."""
    rows = [
        row.split("\t") for row in place.command("pactl", "list", "short", "modules").splitlines()
    ]
    ours = next(row[0] for row in rows if len(row) > 2 and f"_name={name} " in f"{row[2]} ")
    place.command("pactl", "unload-module", ours)
    time.sleep(away)
    place.command("pactl", "load-module", *module.split())


def soak(
    minutes: float, *, server: str = "pulseaudio", busy: int = 1, root: Path = ROOT
) -> dict[str, Any]:
    """Runs it.

    Args:
        minutes: how long; a third each without an event, after the loudspeaker was unplugged, and
            after the microphone changed its rate.
        server: `pulseaudio` or `pipewire`.
        busy: programs that do nothing but keep the core busy.
        root: the checkout whose `rtvc live` runs.

    Returns:
        For each part what was counted, and the lag; `back_s`, how soon sound was back after each
        event; `memory_growth`; the machine's `load`.
    """
    part = 20 * minutes
    with ExitStack() as stack:
        place = stack.enter_context(room(server=server))
        noise = np.random.default_rng(0).normal(0, 0.1, 10 * place.rate).astype(np.float32)
        speech = np.tile(noise, int(6 * minutes) + 12)
        stack.callback(place.say(speech).terminate)
        for _ in range(busy):
            stack.callback(subprocess.Popen([sys.executable, "-c", BUSY]).kill)
        watched = Watched(place, root, 60 * minutes + 120)
        stack.callback(watched.process.kill)
        watched.wait_for(patience=120)
        time.sleep(5)
        before, held, parts, back = watched.counts(), watched.memory(), list[dict[str, Any]](), {}
        speaker = MODULES[2].format(rate=place.rate)
        voice = f"{MODULES[3].format(rate=place.rate)} rate={OTHER_RATE}"
        for name, event in (
            ("undisturbed", None),
            ("loudspeaker unplugged", ("speaker", speaker, AWAY_S)),
            ("microphone at another rate", ("voice", voice, 0.5)),
        ):
            if event is not None:
                replug(place, *event)
                back[name] = round(watched.wait_for(after=time.monotonic()), 1)
            time.sleep(part)
            now = watched.counts()
            state = watched.states[-1][1]
            lags = {key: state[key] for key in ("lag_p50_ms", "lag_p95_ms", "lag_p99_ms")}
            counted = {key: round(now[key] - before[key], 1) for key in COUNTED}
            parts.append({"part": name, "minutes": round(part / 60, 2)} | counted | lags)
            before = now
        return {
            "server": server,
            "minutes": minutes,
            "parts": parts,
            "back_s": back,
            "memory_growth": round(watched.memory() / held - 1, 4),
            "busy": busy,
            "load": round(os.getloadavg()[0], 1),
        }
