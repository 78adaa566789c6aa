"""The track for LiveKit, with LiveKit's own sources, tracks and streams; no room, no network."""

import asyncio
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from agents import ROOT, documented
from serving import served

rtc = pytest.importorskip("livekit.rtc")

from rtvc.clients.agents.conversion import there  # noqa: E402
from rtvc.clients.agents.livekit_track import RATE, VoiceTrack, mono  # noqa: E402


def tone(seconds, rate, channels=1):
    samples = 8_000 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    return np.repeat(samples.astype("<i2"), channels)


async def events(samples, rate, channels=1):
    """A stream of frames of 10 ms, as `rtc.AudioStream` gives them."""
    size = rate // 100 * channels
    for at in range(0, len(samples), size):
        data = samples[at : at + size].tobytes()
        yield rtc.AudioFrameEvent(rtc.AudioFrame(data, rate, channels, size // channels))


async def hear(voice, count):
    """So many samples of a track, as whoever subscribes to it hears them; not counting the silence
    while nobody speaks, which on a busy machine may be between words."""
    stream = rtc.AudioStream.from_track(track=voice.track, sample_rate=RATE, num_channels=1)
    parts, heard = [], 0
    async for event in stream:
        part = np.frombuffer(event.frame.data, "<i2")
        if np.abs(part).max() > 100:
            parts.append(part)
            heard += len(part)
        if heard >= count:
            break
    await stream.aclose()
    return np.concatenate(parts)


@pytest.mark.parametrize(("rate", "channels"), [(24_000, 1), (48_000, 2)])
def test_a_track_speaks_in_the_other_voice(tmp_path, rate, channels):
    async def main():
        async with served(tmp_path) as (service, url):
            voice = VoiceTrack(there(url, "half"))
            async with asyncio.timeout(120):
                said = tone(1.0, rate, channels)
                speaking = asyncio.create_task(voice.speak(events(said, rate, channels)))
                heard = await hear(voice, round(0.8 * RATE))
                await speaking
            await voice.close()
            middle = heard[RATE // 4 : 3 * RATE // 4]
            assert 0.45 < np.abs(middle).max() / 8_000 < 0.55
            peak = 2 * np.abs(np.fft.rfft(middle)).argmax()
            assert abs(peak - 440) < 20
            assert not service.sessions

    asyncio.run(main())


def test_a_stream_of_another_track_can_be_spoken(tmp_path):
    async def main():
        async with served(tmp_path) as (_, url):
            theirs = rtc.AudioSource(48_000, 1)
            track = rtc.LocalAudioTrack.create_audio_track("theirs", theirs)
            stream = rtc.AudioStream.from_track(track=track, sample_rate=RATE, num_channels=1)
            voice = VoiceTrack(there(url, "half"))

            async def say():
                async for event in events(tone(2.0, 48_000), 48_000):
                    await theirs.capture_frame(event.frame)

            async with asyncio.timeout(120):
                tasks = [asyncio.create_task(say()), asyncio.create_task(voice.speak(stream))]
                heard = await hear(voice, RATE)
                await tasks[0]
                await stream.aclose()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await voice.close()
            await theirs.aclose()
            assert 0.45 < np.abs(heard[RATE // 4 :]).max() / 8_000 < 0.55

    asyncio.run(main())


def test_channels_become_one():
    both = np.array([100, 300, -50, 50], "<i2")
    frame = mono(rtc.AudioFrame(both.tobytes(), 8_000, 2, 2))
    assert np.frombuffer(frame.data, "<i2").tolist() == [200, 0] and frame.num_channels == 1


@pytest.mark.slow
def test_the_example_says_a_recording(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *documented("livekit_voice", tmp_path / "said.wav")]
    subprocess.run(command, check=True, env=environment, cwd=ROOT, timeout=300)
    speech, rate = soundfile.read(tmp_path / "said.wav")
    assert rate == RATE and len(speech) > 1.5 * RATE and np.abs(speech).max() > 0.05
