"""A running conversion as it is controlled: one place for the keys, the page and `rtvc control`."""

import threading
import time
from typing import Any

import numpy as np

from rtvc.audio.samples import Samples
from rtvc.clients.control.change import Change, Switch, switched
from rtvc.clients.control.speaking import Speaking, stepped
from rtvc.clients.live import devices as sound
from rtvc.clients.live.duplex_audio import DuplexAudio
from rtvc.clients.live.live import Live
from rtvc.clients.live.virtual_mic import VirtualMic
from rtvc.clients.websocket.mic import RemoteLive
from rtvc.errors import ConfigError

SECONDS = (2.0, 60.0)
"""Least and most of a recording from the microphone."""
CPU_S = 0.5
"""Seconds over which the processor's load is taken."""
KEYS = {
    "b": Change(bypass="toggle"),
    "m": Change(mute="toggle"),
    "r": Change(record="toggle"),
    "+": Change(pitch="up"),
    "-": Change(pitch="down"),
}
"""What a key changes; digits choose voices, q ends."""


class Desk:
    """Carries out changes of a conversion.

    Args:
        live: the conversion.
        speaking: the model's part of it.
        microphone: the virtual one, where there can be one.
    """

    def __init__(
        self, live: Live | RemoteLive, speaking: Speaking, microphone: VirtualMic | None = None
    ) -> None:
        self.live, self.speaking, self.microphone = live, speaking, microphone
        self._before: str | None = None  # the output before the virtual microphone took its place
        self._cpu = (time.monotonic(), time.process_time(), 0.0)

    @property
    def audio(self) -> DuplexAudio:
        """Devices, worker and recorder."""
        return self.live.audio

    def press(self, key: str) -> bool:
        """Carries out a key's action; returns whether to go on.

        Raises:
            RtvcError: what was asked for is refused.
        """
        if key in KEYS:
            self.change(KEYS[key])
        elif key.isdigit() and 0 < int(key) <= len(names := self.speaking.names()):
            self.change(Change(voice=names[int(key) - 1]))
        return key != "q"

    def change(self, change: Change) -> None:
        """Carries out a change, field by field; what comes before one that is refused is done.

        Raises:
            RtvcError: what was asked for is refused.
        """
        for name, value in change.asked().items():
            self._set(name, value)

    def status(self) -> dict[str, Any]:
        """Everything worth showing, as plain values."""
        status, speaking = self.live.status(), self.speaking
        routes, lookaheads = self.audio.devices.routes, speaking.lookaheads()
        return status.as_dict() | {
            "voice": speaking.voice,
            "voices": speaking.names(),
            "prosody": speaking.prosody,
            "gate": speaking.gate,
            "lookahead_ms": lookaheads[0] if lookaheads else None,
            "lookaheads_ms": sorted(lookaheads),
            "input": routes["input"].device or "",
            "output": routes["output"].device or "",
            "monitor": (routes["monitor"].device or "") if "monitor" in routes else None,
            "virtual_mic": None if self.microphone is None else self.microphone.on,
            "cpu": round(self._load(), 3),
        }

    def devices(self) -> list[dict[str, Any]]:
        """The sound devices, those of the sound server last."""
        known = sound.devices()
        return [device.row() for device in [*known, *sound.server_devices(known)]]

    def voice_of(self, name: str, recording: bytes) -> dict[str, Any]:
        """Makes a voice of a recording's file.

        Raises:
            RtvcError: it cannot be used.
        """
        return self.speaking.add(name, recording)

    def voice_of_microphone(self, name: str, seconds: float) -> dict[str, Any]:
        """Makes a voice of what is said from now on.

        Raises:
            ConfigError: too short or too long.
            RtvcError: it cannot be used.
        """
        if not SECONDS[0] <= seconds <= SECONDS[1]:
            raise ConfigError(f"expected {SECONDS[0]:g} to {SECONDS[1]:g} seconds, got {seconds:g}")
        rate = self.audio.rate_in
        length, enough = round(seconds * rate), threading.Event()
        parts, count = list[Samples](), 0

        def listen(block: Samples) -> None:
            nonlocal count
            parts.append(block)
            count += len(block)
            if count >= length:
                enough.set()

        self.audio.listeners.append(listen)
        try:
            if not enough.wait(2 * seconds + 5):
                raise ConfigError("the microphone gives nothing: choose another one")
        finally:
            self.audio.listeners.remove(listen)
        return self.speaking.add(name, (np.concatenate(parts)[:length], rate))

    def _set(self, name: str, value: Any) -> None:
        """One field of a change."""
        speaking, audio = self.speaking, self.audio
        match name:
            case "voice":
                speaking.speak(value)
            case "pitch":
                speaking.set_pitch(stepped(value, self.live.status().pitch))
            case "prosody":
                speaking.set_prosody(value)
            case "bypass":
                speaking.set_bypass(switched(value, self.live.status().bypass))
            case "mute":
                self.live.pump.muted = switched(value, self.live.pump.muted)
            case "gate":
                speaking.set_gate(switched(value, bool(speaking.gate)))
            case "lookahead":
                speaking.set_lookahead(value)
            case "record":
                recorder = audio.recorder
                (recorder.start if switched(value, recorder.on) else recorder.stop)()
            case "agc" | "denoise":
                self._treat(name, value)
            case "virtual_mic":
                self._be_a_microphone(value)
            case "input" | "output" | "monitor":
                audio.use(name, value)

    def _treat(self, name: str, position: Switch) -> None:
        front = self.audio.front
        now = {"agc": front.gain is not None, "denoise": front.suppressor is not None}
        front.set(**(now | {name: switched(position, now[name])}))

    def _be_a_microphone(self, position: Switch) -> None:
        if self.microphone is None:
            raise ConfigError(
                "expected Linux with PipeWire or PulseAudio for a virtual microphone: elsewhere a"
                " virtual cable takes its place, see docs/live.md"
            )
        devices = self.audio.devices
        on = switched(position, self.microphone.on)
        if on and not self.microphone.on:
            self._before = devices.routes["output"].device
            self.microphone.start()
            devices.switch("output", None)
        elif not on and self.microphone.on:
            self.microphone.stop()
            devices.switch("output", self._before)

    def _load(self) -> float:
        """The share of one core that this process takes."""
        then, used, load = self._cpu
        now = time.monotonic()
        if now - then >= CPU_S:
            load = (time.process_time() - used) / (now - then)
            self._cpu = (now, time.process_time(), load)
        return load
