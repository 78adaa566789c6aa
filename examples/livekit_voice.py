"""Somebody in a room of LiveKit, in another voice; or, without a room, a recording through
LiveKit's own tracks.

python examples/livekit_voice.py --room wss://… --token … --reference examples/reference.flac
python examples/livekit_voice.py --source examples/source.flac --output said.wav \
    --reference examples/reference.flac
"""

import argparse
import asyncio
from collections.abc import AsyncIterator

import numpy as np
import soundfile
from livekit import rtc

import rtvc
from rtvc.clients.agents.conversion import Maker, here, there
from rtvc.clients.agents.livekit_track import RATE, VoiceTrack


async def in_room(url: str, token: str, make: Maker) -> None:
    """Publishes, in another voice, what others in the room say, until they are gone."""
    room, voices = rtc.Room(), dict[str, asyncio.Task[None]]()

    @room.on("track_subscribed")
    def _(track: rtc.Track, publication: rtc.RemoteTrackPublication, person: object) -> None:
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            voices[publication.sid] = asyncio.create_task(speak(track))

    async def speak(track: rtc.Track) -> None:
        voice = VoiceTrack(make)
        await room.local_participant.publish_track(voice.track)
        await voice.speak(rtc.AudioStream.from_track(track=track))
        await voice.close()

    gone = asyncio.Event()
    room.on("disconnected", lambda *_: gone.set())
    await room.connect(url, token)
    await gone.wait()


async def from_file(source: str, output: str, seconds: float, make: Maker) -> None:
    """Says a recording on a track, and writes down what a listener of that track hears."""
    speech, rate = soundfile.read(source, dtype="int16")
    speech = speech[: int(seconds * rate)]

    async def frames() -> AsyncIterator[rtc.AudioFrameEvent]:
        for at in range(0, len(speech), rate // 100):
            part = speech[at : at + rate // 100]
            yield rtc.AudioFrameEvent(rtc.AudioFrame(part.tobytes(), rate, 1, len(part)))

    voice, blocks = VoiceTrack(make), list[np.ndarray]()
    stream = rtc.AudioStream.from_track(track=voice.track, sample_rate=RATE, num_channels=1)

    async def listen() -> None:
        async for event in stream:
            blocks.append(np.frombuffer(event.frame.data, "<i2"))

    listening = asyncio.create_task(listen())
    await voice.speak(frames())
    await voice.close()
    await stream.aclose()
    listening.cancel()
    soundfile.write(output, np.concatenate(blocks), RATE)
    print(f"{sum(map(len, blocks)) / RATE:.1f} s of {len(speech) / rate:.1f} s in {output}")


async def main() -> None:
    """Speaks in another voice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--room", help="address of LiveKit's server")
    parser.add_argument("--token", help="that lets us into the room")
    parser.add_argument("--source", help="a recording, in place of a room")
    parser.add_argument("--output", help="where to write what a listener hears")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the recording at most")
    parser.add_argument("--reference", help="a recording of the voice, converted here")
    parser.add_argument("--server", help="address of `rtvc serve`, which has the voice")
    parser.add_argument("--voice", default="anna", help="name of the server's voice")
    given = parser.parse_args()
    if given.server:
        make = there(given.server, given.voice)
    else:
        converter = rtvc.load()
        make = here(converter, converter.voice(given.reference))
    if given.room:
        await in_room(given.room, given.token, make)
    else:
        await from_file(given.source, given.output, given.seconds, make)


if __name__ == "__main__":
    asyncio.run(main())
