"""A pipeline of pipecat that says a recording in another voice: no service, no key, no network.

python examples/pipecat_voice.py examples/source.flac said.wav --reference examples/reference.flac

In an agent the recording's place is taken by its speech synthesis:
Pipeline([transport.input(), stt, llm, tts, VoiceProcessor(there(url, "anna")), transport.output()])
"""

import argparse
import asyncio

import numpy as np
import soundfile
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    OutputAudioRawFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

import rtvc
from rtvc.clients.agents.conversion import here, there
from rtvc.clients.agents.pipecat_processor import VoiceProcessor


class Listener(FrameProcessor):
    """Keeps what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = bytearray()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """See `FrameProcessor.process_frame`."""
        await super().process_frame(frame, direction)
        if isinstance(frame, OutputAudioRawFrame):
            self.heard += frame.audio
        await self.push_frame(frame, direction)


async def main() -> None:
    """Says a file in another voice, into another file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("source")
    parser.add_argument("output")
    parser.add_argument("--reference", help="a recording of the voice, converted here")
    parser.add_argument("--server", help="address of `rtvc serve`, which has the voice")
    parser.add_argument("--voice", default="anna", help="name of the server's voice")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the recording at most")
    given = parser.parse_args()
    speech, rate = soundfile.read(given.source, dtype="int16")
    speech = speech[: int(given.seconds * rate)]
    if given.server:
        make = there(given.server, given.voice)
    else:
        converter = rtvc.load()
        make = here(converter, converter.voice(given.reference))
    listener = Listener()
    worker = PipelineWorker(Pipeline([VoiceProcessor(make), listener]))
    for at in range(0, len(speech), rate // 50):
        audio = speech[at : at + rate // 50].tobytes()
        await worker.queue_frame(TTSAudioRawFrame(audio, rate, 1))
    await worker.queue_frame(TTSStoppedFrame())
    await worker.queue_frame(EndFrame())
    runner = WorkerRunner()
    await runner.add_workers(worker)
    await runner.run()
    samples = np.frombuffer(listener.heard, "<i2")
    soundfile.write(given.output, samples, rate)
    print(f"{len(samples)} of {len(speech)} samples in {given.output}")


if __name__ == "__main__":
    asyncio.run(main())
