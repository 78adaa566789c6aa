"""A track for LiveKit: what somebody in a room says, or an agent, in another voice.

voice = VoiceTrack(there(url, "anna"))
await room.local_participant.publish_track(voice.track)
await voice.speak(rtc.AudioStream(their_track))
"""

from collections.abc import AsyncIterable
from typing import Any

from livekit import rtc

from rtvc.clients.agents.conversion import Maker, decoded, encoded

RATE = 24_000
"""Hz of the track: the model's own."""
QUEUE_MS = 1_000
"""Milliseconds of converted audio that may wait to be sent; whoever speaks faster waits."""


class VoiceTrack:
    """A track to publish, and who speaks on it.

    Args:
        make: makes the conversion: `here(...)` or `there(...)`.
        name: of the track.

    Attributes:
        track: to publish.
        source: of its audio.
    """

    def __init__(self, make: Maker, name: str = "rtvc") -> None:
        self.source = rtc.AudioSource(RATE, 1, queue_size_ms=QUEUE_MS)
        self.track = rtc.LocalAudioTrack.create_audio_track(name, self.source)
        self._make = make

    async def speak(self, stream: AsyncIterable[rtc.AudioFrameEvent]) -> None:
        """Says all that comes in the other voice, and returns when it has ended and was said.

        Args:
            stream: of the original; `rtc.AudioStream` of any track, at any rate.
        """
        conversion, resampler = self._make(RATE), None
        try:
            async for event in stream:
                frame = event.frame
                frames = [frame]
                if frame.sample_rate != RATE or frame.num_channels != 1:
                    if resampler is None:
                        resampler = rtc.AudioResampler(frame.sample_rate, RATE, num_channels=1)
                    frames = resampler.push(mono(frame))
                for one in frames:
                    await self._say(await conversion.push(decoded(bytes(one.data), 1)))
            for one in resampler.flush() if resampler is not None else []:
                await self._say(await conversion.push(decoded(bytes(one.data), 1)))
            await self._say(await conversion.flush())
            await self.source.wait_for_playout()
        finally:
            await conversion.close()

    async def _say(self, samples: Any) -> None:
        if len(samples):
            await self.source.capture_frame(
                rtc.AudioFrame(encoded(samples, 1), RATE, 1, len(samples))
            )

    async def close(self) -> None:
        """Ends the track."""
        await self.source.aclose()


def mono(frame: rtc.AudioFrame) -> rtc.AudioFrame:
    """A frame with its channels as one."""
    if frame.num_channels == 1:
        return frame
    data = encoded(decoded(bytes(frame.data), frame.num_channels), 1)
    return rtc.AudioFrame(data, frame.sample_rate, 1, frame.samples_per_channel)
