"""Recordings in the containers of phones and browsers, made by PyAV."""

import io

import av
import numpy as np

KINDS = {
    ".m4a": ("ipod", "aac"),
    ".mp4": ("mp4", "aac"),
    ".mov": ("mov", "pcm_s16le"),
    ".alac": ("ipod", "alac"),
    ".aac": ("adts", "aac"),
    ".webm": ("webm", "libopus"),
    ".mka": ("matroska", "pcm_f32le"),
    ".wma": ("asf", "wmav2"),
}
"""The muxer and the codec by suffix."""


def contained(suffix: str, wave: np.ndarray, rate: int, *, video: bool = False) -> bytes:
    """A recording as a file.

    Args:
        suffix: one of `KINDS`.
        wave: (N,) or (N, 2) float32 in -1..1.
        rate: in Hz.
        video: put a second of moving pictures before the sound.
    """
    muxer, codec = KINDS[suffix]
    file = io.BytesIO()
    planes = np.ascontiguousarray(np.atleast_2d(wave.T), np.float32)
    layout = "mono" if len(planes) == 1 else "stereo"
    with av.open(file, "w", format=muxer) as sink:
        pictures = sink.add_stream("mpeg4", rate=25, width=64, height=64) if video else None
        sound = sink.add_stream(codec, rate=rate, layout=layout)
        sound.bit_rate = 192_000
        if pictures is not None:
            for at in range(25):
                picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 9 * at, np.uint8))
                sink.mux(pictures.encode(picture))
            sink.mux(pictures.encode(None))
        context = sound.codec_context
        if not context.frame_size:
            context.open(strict=False)
        whole = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
        whole.sample_rate, whole.pts = rate, 0
        resampler = av.AudioResampler(context.format, layout, rate, context.frame_size or None)
        for part in (whole, None):
            for frame in resampler.resample(part):
                sink.mux(sound.encode(frame))
        sink.mux(sound.encode(None))
    return file.getvalue()
