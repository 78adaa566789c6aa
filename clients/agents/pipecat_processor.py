"""A processor for pipecat: what an agent says, or hears, in another voice.

Pipeline([transport.input(), stt, llm, tts, VoiceProcessor(there(url, "anna")), transport.output()])
"""

from dataclasses import fields
from typing import Any

import numpy as np
from pipecat.frames.frames import (
    AudioRawFrame,
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputAudioRawFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from rtvc.clients.agents.conversion import Conversion, Maker, decoded, encoded


class VoiceProcessor(FrameProcessor):
    """Converts the audio that passes; every other frame passes as it is, what was said before it
    first.

    Args:
        make: makes the conversion: `here(...)` or `there(...)`.
        frames: the kind of frames that are converted; `InputAudioRawFrame` for what a user says.
        settings: what else a `FrameProcessor` takes.
    """

    def __init__(
        self, make: Maker, frames: type[Frame] = OutputAudioRawFrame, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self._make, self._frames = make, frames
        self._conversion: Conversion | None = None
        self._rate = 0
        self._last: Any = None  # the audio frame whose like the rest becomes

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """See `FrameProcessor.process_frame`."""
        await super().process_frame(frame, direction)
        if direction is FrameDirection.DOWNSTREAM:
            if isinstance(frame, self._frames) and isinstance(frame, AudioRawFrame):
                await self._convert(frame)
                return
            if isinstance(frame, InterruptionFrame) and self._conversion is not None:
                self._last = None
                await self._conversion.drop()
            if isinstance(frame, TTSStoppedFrame | EndFrame):
                await self._flush()
            if isinstance(frame, EndFrame | CancelFrame):
                await self._close()
        await self.push_frame(frame, direction)

    async def cleanup(self) -> None:
        """See `FrameProcessor.cleanup`."""
        await self._close()
        await super().cleanup()

    async def _convert(self, frame: Any) -> None:
        if self._conversion is None or frame.sample_rate != self._rate:
            await self._flush()
            await self._close()
            self._rate = frame.sample_rate
            self._conversion = self._make(self._rate)
        self._last = frame
        samples = decoded(frame.audio, frame.num_channels)
        await self._say(await self._conversion.push(samples), frame)

    async def _flush(self) -> None:
        like, self._last = self._last, None
        if self._conversion is not None and like is not None:
            await self._say(await self._conversion.flush(), like)

    async def _say(self, samples: "np.ndarray[Any, np.dtype[np.float32]]", like: Any) -> None:
        if not len(samples):
            return
        said = {
            "audio": encoded(samples, like.num_channels),
            "sample_rate": like.sample_rate,
            "num_channels": like.num_channels,
        }
        more = {f.name: getattr(like, f.name) for f in fields(like) if f.init}
        frame = type(like)(**(more | said))
        frame.transport_destination = like.transport_destination
        frame.transport_source = like.transport_source
        await self.push_frame(frame, FrameDirection.DOWNSTREAM)

    async def _close(self) -> None:
        conversion, self._conversion, self._last = self._conversion, None, None
        if conversion is not None:
            await conversion.close()
