"""Sound cards in place of this machine's."""

import threading
import time
from typing import ClassVar

import numpy as np

from rtvc.clients.live import config, duplex_audio, live, open_devices
from rtvc.clients.live.devices import Device, pick
from rtvc.clients.sound import priority
from rtvc.clients.websocket import mic

MIC = Device(0, "Blue mic", "ALSA", 1, 0, 48_000, 0.01, 0.0, "input")
SPEAKER = Device(1, "Speaker", "ALSA", 0, 2, 44_100, 0.0, 0.01, "output")
CARD = Device(2, "Blue card", "ALSA", 2, 2, 48_000, 0.01, 0.01, "")
ALL = [MIC, SPEAKER, CARD]


class FakeStream:
    """A sound card driven by a thread at real time: the microphone hears a counting tone, the
    speaker remembers."""

    made: ClassVar[list] = []

    def __init__(self, device, callback, *, rate, block, incoming):
        self.rate, self.block, self.incoming, self.callback = rate, block, incoming, callback
        self.xruns, self.latency, self.alive, self.heard = 0, 0.01, True, []
        self.running, self.held = True, 0.0
        self.thread = threading.Thread(target=self.run, daemon=True)
        FakeStream.made.append(self)
        self.thread.start()

    def run(self):
        at, begin = 0, time.perf_counter()
        while self.running:
            if self.incoming:
                self.callback(
                    (0.1 * np.sin(np.arange(at, at + self.block) / 10)).astype(np.float32),
                    time.perf_counter() - self.block / self.rate,
                )
            else:
                out = np.empty(self.block, np.float32)
                self.callback(out, time.perf_counter())
                self.heard.append(out)
            at += self.block
            time.sleep(max(0, begin + at / self.rate - time.perf_counter()))

    def stop(self):
        self.running = False
        self.thread.join(1)


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def fake_cards(monkeypatch):
    """Lets conversions find these; gives the list of those that were opened, in order."""
    # This process keeps its own place among others.
    monkeypatch.setattr(duplex_audio, "raise_priority", lambda: False)
    monkeypatch.setattr(priority, "realtime", lambda *_, **__: False)
    FakeStream.made.clear()
    for module in (config, live, mic, open_devices):
        monkeypatch.setattr(
            module, "pick", lambda wanted, kind, known=None: pick(wanted, kind, ALL)
        )
    monkeypatch.setattr(open_devices, "refresh", lambda: None)
    monkeypatch.setattr(open_devices, "RETRY_S", 0.05)
    return FakeStream.made
