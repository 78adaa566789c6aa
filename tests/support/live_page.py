"""A live conversion with its page, in a process and a room of its own."""

import json
import urllib.request
from pathlib import Path
from typing import Any

from rtvc.benchmarks.live.pulse import Room

LIVE = """
import sys, time, os

sys.path.insert(0, {tests!r})
from pathlib import Path
from converters import DelayConverter
from serving import gain_voice
from rtvc.clients.control.desk import Desk
from rtvc.clients.control.endpoint import opened
from rtvc.clients.control.opening import PAGE
from rtvc.clients.control.runtime import announced
from rtvc.clients.control.speaking import SpeakingHere
from rtvc.clients.control.voicebook import Voicebook
from rtvc.clients.live.config import LiveConfig
from rtvc.clients.live.live import Live
from rtvc.clients.live.virtual_mic import VirtualMic
from rtvc.engine.backends.eager import TorchBackend
pairs = (("Anna", 1.0), ("Ben", 0.5), ("Cleo", 0.25))
voices = {{name: gain_voice(gain, name) for name, gain in pairs}}
config = LiveConfig(input="pulse", output="pulse", gate=False, block_ms=20, margin_ms=80)
backend = TorchBackend(DelayConverter(), 1200)
with VirtualMic() as microphone, Live(backend, voices["Anna"], config) as live:
    live.audio.recorder.folder = Path({takes!r})
    first = list(voices.values())
    book = Voicebook(list(voices), first, lambda path, name: gain_voice(0.125, name))
    desk = Desk(live, SpeakingHere(live, book), microphone)
    with opened(desk, pid=os.getpid(), page=PAGE) as address, announced(address):
        print(f"{{address.url}}/#token={{address.token}}", flush=True)
        while True:
            time.sleep(0.1)
            live.supervise()
"""


class Running:
    """A conversion with its page, in a room where somebody speaks all the time."""

    def __init__(self, server: Room, url: str, takes: Path, environment: dict[str, str]) -> None:
        self.server, self.url, self.takes, self.environment = server, url, takes, environment
        self.base, _, self.token = url.partition("/#token=")

    def status(self) -> dict[str, Any]:
        """What the conversion itself says."""
        request = urllib.request.Request(
            f"{self.base}/v1/status", headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(json.load(answer))

    def pactl(self, *arguments: str) -> str:
        return self.server.command("pactl", *arguments)
