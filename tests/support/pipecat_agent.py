"""What a pipeline of pipecat does with a voice processor, as a program: it runs where pipecat is
installed, which asks for older packages than the tests have. Prints what came out as JSON.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from pipecat.frames.frames import (
    InputAudioRawFrame,
    InterruptionFrame,
    TextFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.tests.utils import SleepFrame, run_test
from serving import served

from rtvc.clients.agents.conversion import there
from rtvc.clients.agents.pipecat_processor import VoiceProcessor

RATE = 16_000


def tone(seconds, rate=RATE):
    """16-bit samples of a tone."""
    x = 8_000 * np.sin(2 * np.pi * 300 * np.arange(round(seconds * rate)) / rate)
    return x.astype("<i2")


def spoken(samples, rate=RATE, channels=1, kind=TTSAudioRawFrame, **more):
    """Frames of 20 ms."""
    size = rate // 50
    return [
        kind(
            audio=np.repeat(samples[at : at + size], channels).tobytes(),
            sample_rate=rate,
            num_channels=channels,
            **more,
        )
        for at in range(0, len(samples), size)
    ]


def told(frames):
    """Names of the frames, audio in a row as one: its kind, rate, channels, samples, level."""
    out = []
    for frame in frames:
        name = type(frame).__name__
        if not hasattr(frame, "audio"):
            out.append([name])
            continue
        samples = np.frombuffer(frame.audio, "<i2")
        form = [name, frame.sample_rate, frame.num_channels, getattr(frame, "context_id", None)]
        if out and out[-1][:4] == form:
            out[-1][4] = np.concatenate([out[-1][4], samples])
        else:
            out.append([*form, samples])
    for one in out:
        if len(one) > 1:
            one[4:] = [len(one[4]), int(np.abs(one[4][len(one[4]) // 2 :]).max(initial=0))]
    return out


async def main(folder):
    results = {}
    async with served(folder) as (service, url):

        async def run(name, sent, **settings):
            processor = VoiceProcessor(there(url, "half"), **settings)
            down, _ = await run_test(processor, frames_to_send=sent, start_timeout=10.0)
            results[name] = told(down)

        begin, end = TTSStartedFrame(), TTSStoppedFrame()
        said = spoken(tone(1.0), context_id="c")
        await run("sentence", [begin, *said, end, TextFrame("x")])
        await run("two", [*spoken(tone(0.5)), end, *spoken(tone(0.4)), TTSStoppedFrame()])
        await run("stereo", [*spoken(tone(0.5, 48_000), 48_000, 2), end])
        await run("unended", spoken(tone(0.5)))
        await run("input untouched", spoken(tone(0.2), kind=InputAudioRawFrame))
        heard = spoken(tone(0.5), kind=InputAudioRawFrame)
        await run("input", [*heard, SleepFrame()], frames=InputAudioRawFrame)
        cut = [*spoken(tone(0.5)), SleepFrame(0.3), InterruptionFrame(), SleepFrame(0.3)]
        await run("interrupted", [*cut, *spoken(tone(0.25), context_id="d"), TTSStoppedFrame()])
        while service.connections:
            await asyncio.sleep(0.01)
        results["left"] = len(service.sessions)
    print(json.dumps(results))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(main(Path(place)))
    sys.stdout.flush()
