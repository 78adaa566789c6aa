"""Live conversion on this machine: two sound cards, one worker, one pump; devices may come and
go."""

from dataclasses import replace
from typing import Self

from rtvc.clients.live.audio_streams import stream_type
from rtvc.clients.live.config import LiveConfig
from rtvc.clients.live.devices import own_rate, pick
from rtvc.clients.live.duplex_audio import DuplexAudio
from rtvc.clients.live.open_devices import Devices, Opener
from rtvc.clients.live.status import Status
from rtvc.engine.backends.base import Backend
from rtvc.engine.callback.duplex import Pump
from rtvc.engine.streams.backlog import Backlog
from rtvc.engine.streams.gate import Gate
from rtvc.engine.streams.session import Session
from rtvc.errors import DependencyError
from rtvc.voices.voice import Voice

SLACK_S = 0.060
"""Seconds beyond a chunk and a block that input may be old before it counts as stale."""


def gate_of(rate: int, config: LiveConfig) -> Gate | None:
    """The speech gate, which may be switched while somebody speaks; None where it is not wanted and
    there can be none.

    Raises:
        DependencyError: it is wanted and its packages are not installed.
    """
    try:
        gate = Gate(rate, lookback=config.lookback_ms / 1000)
    except DependencyError:
        if config.gate:
            raise
        return None
    gate.on = config.gate
    return gate


class Live:
    """A session between a microphone and a loudspeaker; use it as a context manager.

    Args:
        backend: what runs the steps.
        voice: the voice to speak with.
        config: devices, sizes and switches.
        streams: opens a stream, as the classes of `audio_streams.STREAMS` do; by default the one
            that `config.sound` names.

    Attributes:
        session: voice, pitch and mix, which may be changed from any thread.
        pump: what joins the session to the two callbacks.
        audio: devices, worker and recorder.
    """

    def __init__(
        self, backend: Backend, voice: Voice, config: LiveConfig, *, streams: Opener | None = None
    ) -> None:
        self.backend, self.config = backend, config
        streams = streams or stream_type(config.sound)
        source, sink = pick(config.input, "input"), pick(config.output, "output")
        rate_in, rate_out = (
            config.input_rate or own_rate(source, "input"),
            config.output_rate or own_rate(sink, "output"),
        )
        nominal = backend.chunk / backend.sample_rate + config.block_ms / 1000
        self.session = Session(
            backend,
            voice,
            sample_rate=rate_in,
            output_rate=rate_out,
            pitch=config.pitch,
            prosody=config.prosody,
            gate=gate_of(backend.sample_rate, config),
            backlog=Backlog(backend.sample_rate, nominal=nominal, limit=nominal + SLACK_S),
        )
        margin = None if config.margin_ms is None else config.margin_ms / 1000
        self.pump = Pump(self.session, margin=margin, monitor=config.monitor)
        self.audio = DuplexAudio(self.pump, config, rate_in, rate_out, streams)

    def __enter__(self) -> Self:
        self.warm()
        self.audio.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.audio.stop()

    @property
    def devices(self) -> Devices:
        """The open sound cards."""
        return self.audio.devices

    def warm(self) -> None:
        """Runs the model a few times before anybody speaks: first calls compile and allocate."""
        state = self.backend.initial(1)
        x = state.new_zeros(1, 1, self.backend.chunk)
        for _ in range(3):
            _, state = self.backend.step(x, self.session.chunker.voice, state)

    def supervise(self) -> None:
        """Call it a few times a second: notices a lost device and takes it back when it returns,
        and raises what ended the worker, if anything did."""
        if self.audio.failure is not None:
            raise self.audio.failure
        self.devices.supervise()

    def status(self) -> Status:
        """How it is doing."""
        status = self.audio.status(
            latency=self.session.latency,
            dropped=self.pump.dropped / self.pump.rate_out,
            rtf=self.audio.rtf,
            bypass=self.session.wet == 0.0,
            pitch=self.session.pitch,
        )
        gate = self.session.chunker.gate
        return replace(
            status,
            steps=self.session.steps,
            skipped=gate.skipped if gate else 0,
            resets=self.session.resets,
            repaired=self.pump.repaired,
        )
