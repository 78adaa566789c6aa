"""The streaming model's components for `rtvc stats`."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from rtvc.layers.contract import Streaming
from rtvc.models.streaming.analysis import BANDS, PITCH_BINS, audible_bands
from rtvc.models.streaming.content import CONTENT
from rtvc.models.streaming.model import StreamingConverter
from rtvc.models.summary import Part


def streamed(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """One chunk from the first state."""
    return module(*inputs, cast(Streaming, module).initial(1))


def mel(frames: int) -> tuple[Tensor]:
    """(1, 80, T)."""
    return (torch.randn(1, BANDS, frames),)


def low_bins(frames: int) -> tuple[Tensor]:
    """(1, 100, T)."""
    return (torch.randn(1, PITCH_BINS, frames),)


def styled(frames: int) -> tuple[Tensor, ...]:
    """Content (1, 512, T), log F0 and voicing (1, T), energy (1, 2, T), and the scales and shifts
    of a style."""
    size = StreamingConverter().decoder.style_size
    f0 = torch.full((1, frames), 5.0)
    return (
        torch.randn(1, CONTENT, frames),
        f0,
        torch.ones_like(f0),
        torch.zeros(1, 2, frames),
        torch.randn(1, size),
    )


def reference(extra: int) -> Any:
    """Makes features (1, C, T) and a mask (1, T) that lets all frames through."""
    return lambda frames: (
        torch.randn(1, audible_bands() + extra, frames),
        torch.ones(1, frames, dtype=torch.bool),
    )


def parts() -> list[Part]:
    """Content encoder, pitch network, decoder, and what only runs once a voice: style encoders and
    their projections."""
    return [
        Part("content encoder", lambda: StreamingConverter().encoder, mel, run=streamed),
        Part("pitch network", lambda: StreamingConverter().pitch, low_bins, run=streamed),
        Part("decoder", lambda: StreamingConverter().decoder, styled, run=streamed),
        Part("acoustic style encoder", lambda: StreamingConverter().acoustic, reference(0)),
        Part("prosodic style encoder", lambda: StreamingConverter().prosodic, reference(2)),
        Part(
            "style projection",
            lambda: StreamingConverter().affine,
            lambda frames: (torch.randn(1, 128),),
        ),
        Part(
            "prosody head",
            lambda: StreamingConverter().targets,
            lambda frames: (torch.randn(1, 128),),
        ),
    ]
