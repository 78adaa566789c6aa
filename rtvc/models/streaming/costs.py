"""The streaming model's components for `rtvc stats`."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from rtvc.layers.contract import Streaming
from rtvc.models.streaming.analysis import BANDS, PITCH_BINS, audible_bands
from rtvc.models.streaming.dial import DialConfig, DialConverter
from rtvc.models.streaming.style import STYLE
from rtvc.models.summary import Part

SHIPPED = DialConfig(timbre=(2, 4, 6))
"""Sizes of the shipped weights."""


def streamed(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """One chunk from the first state."""
    return module(*inputs, cast(Streaming, module).initial(1))


def mel(frames: int) -> tuple[Tensor]:
    """(1, 80, T)."""
    return (torch.randn(1, BANDS, frames),)


def low_bins(frames: int) -> tuple[Tensor]:
    """(1, 100, T)."""
    return (torch.randn(1, PITCH_BINS, frames),)


def told(frames: int) -> tuple[Tensor, ...]:
    """Content (1, Z, T), log F0 and voicing (1, T), energy (1, 2, T), and the memory, scales and
    shifts of a voice."""
    decoder = DialConverter(SHIPPED).decoder
    f0 = torch.full((1, frames), 5.0)
    return (
        torch.randn(1, SHIPPED.encoder.content, frames),
        f0,
        torch.ones_like(f0),
        torch.zeros(1, 2, frames),
        torch.randn(1, decoder.memory_size + decoder.style_size),
    )


def reference(extra: int) -> Any:
    """Makes features (1, C, T) and a mask (1, T) that lets all frames through."""
    return lambda frames: (
        torch.randn(1, audible_bands() + extra, frames),
        torch.ones(1, frames, dtype=torch.bool),
    )


def style(frames: int) -> tuple[Tensor]:
    """(1, 128), of however many frames."""
    return (torch.randn(1, STYLE),)


def remembered(memory: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """The tokens of a style and of a reference, as the decoder's attentions take them."""
    tokens, styled = memory["reference"](*inputs[:2]), memory["style"](inputs[2])  # type: ignore[index]
    return memory["memory"](torch.cat([tokens, styled], 1))  # type: ignore[index]


def timbre() -> nn.Module:
    """What makes tokens of a voice."""
    model = DialConverter(SHIPPED)
    parts = {
        "reference": model.reference_tokens,
        "style": model.style_tokens,
        "memory": model.memory,
    }
    return nn.ModuleDict({name: part for name, part in parts.items() if part is not None})


def frames_of_style(frames: int) -> tuple[Tensor, ...]:
    """What the acoustic style encoder makes of each frame of a reference (1, T, C), a mask (1, T)
    and its style (1, 128)."""
    every = torch.ones(1, frames, dtype=torch.bool)
    return torch.randn(1, frames, SHIPPED.acoustic_hidden), every, *style(frames)


def parts() -> list[Part]:
    """Content encoder, pitch network, decoder, and what only runs once a voice: style encoders,
    their projections and the tokens."""
    return [
        Part("content encoder", lambda: DialConverter(SHIPPED).encoder, mel, run=streamed),
        Part("pitch network", lambda: DialConverter(SHIPPED).pitch, low_bins, run=streamed),
        Part("decoder", lambda: DialConverter(SHIPPED).decoder, told, run=streamed),
        Part("acoustic style encoder", lambda: DialConverter(SHIPPED).acoustic, reference(0)),
        Part("prosodic style encoder", lambda: DialConverter(SHIPPED).prosodic, reference(2)),
        Part("timbre tokens", timbre, frames_of_style, run=remembered),
        Part("style projection", lambda: DialConverter(SHIPPED).affine, style),
        Part("prosody head", lambda: DialConverter(SHIPPED).targets, style),
    ]
