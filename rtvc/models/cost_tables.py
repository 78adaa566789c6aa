"""Every model that `rtvc stats` knows, as components that can be built and run on an example."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from rtvc.models.streaming.costs import parts as streaming_parts
from rtvc.models.styletts2.decoder import HiFiGANDecoder, ISTFTNetDecoder
from rtvc.models.styletts2.diffusion import StyleDiffusion
from rtvc.models.styletts2.discriminators import (
    MultiPeriodDiscriminator,
    MultiResolutionDiscriminator,
)
from rtvc.models.styletts2.prosody import ProsodyPredictor
from rtvc.models.styletts_vc.decoder import Decoder
from rtvc.models.styletts_vc.discriminator import Discriminator
from rtvc.models.styletts_vc.mel_encoder import LinearProjection, MelEncoder
from rtvc.models.styletts_vc.pitch_extractor import PitchExtractor
from rtvc.models.styletts_vc.style_encoder import StyleEncoder
from rtvc.models.styletts_vc.text_aligner import TextAligner
from rtvc.models.styletts_vc.text_encoder import TOKENS, TextEncoder
from rtvc.models.summary import Part, Published
from rtvc.models.vocoder import Vocoder

TEXT = 100
"""Tokens of the example text; the printed figures of text encoder and aligner come out with it."""

CHANNELS_FOR_FRAMES = (
    "is torchinfo's, which multiplies the weights of normed convolutions by channels in place of"
    " frames"
)


def mel(frames: int) -> tuple[Tensor]:
    """(1, 80, T)."""
    return (torch.randn(1, 80, frames),)


def picture(frames: int) -> tuple[Tensor]:
    """(1, 1, 80, T)."""
    return (torch.randn(1, 1, 80, frames),)


def content(frames: int) -> tuple[Tensor]:
    """(1, 512, T / 2)."""
    return (torch.randn(1, 512, frames // 2),)


def text(frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (1, L), lengths (1,) and mask (1, L)."""
    return (
        torch.randint(TOKENS, (1, TEXT)),
        torch.tensor([TEXT]),
        torch.zeros(1, TEXT, dtype=torch.bool),
    )


def decoding(frames: int) -> tuple[Tensor, ...]:
    """Content (1, 512, T / 2), F0 and energy (1, T), style (1, 128)."""
    even = frames // 2 * 2
    return *content(frames), 200 * torch.rand(1, even), torch.randn(1, even), torch.randn(1, 128)


def judged(frames: int) -> tuple[Tensor, Tensor]:
    """Mel (1, 1, 80, T) and a speaker."""
    return *picture(frames), torch.tensor([0])


def aligning(frames: int) -> tuple[Tensor, None, Tensor]:
    """Mel (1, 80, T), no mask, tokens (1, L)."""
    return *mel(frames), None, text(frames)[0]


def wave(frames: int) -> tuple[Tensor]:
    """(1, 1, 300 T)."""
    return (torch.randn(1, 1, 300 * frames),)


def predicting(frames: int) -> tuple[Tensor, ...]:
    """Text (1, 512, L), style (1, 128), lengths, alignment (1, L, T / 2) and mask."""
    _, lengths, mask = text(frames)
    half = frames // 2
    alignment = (
        nn.functional.one_hot(torch.arange(half) * TEXT // max(half, 1), TEXT).float().T[None]
    )
    return torch.randn(1, 512, TEXT), torch.randn(1, 128), lengths, alignment, mask


def predict(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """Durations, then F0 and energy."""
    logits, encoded = module(*inputs)
    return logits, cast(ProsodyPredictor, module).curves(encoded, inputs[1])


def sample(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """One evaluation of the denoiser; five steps of sampling take eight."""
    noisy, time, encoded, reference = inputs
    return cast(StyleDiffusion, module).unet(noisy, time, encoded, reference)


def sampling(frames: int) -> tuple[Tensor, ...]:
    """Noisy styles (1, 1, 256), time (1,), text (1, L, 768), reference (1, 256)."""
    return torch.randn(1, 1, 256), torch.zeros(1), torch.randn(1, TEXT, 768), torch.randn(1, 256)


def styletts_vc() -> list[Part]:
    """The eight components of StyleTTS-VC, in the order of the paper's table."""
    normed = CHANNELS_FOR_FRAMES
    return [
        Part("mel encoder", MelEncoder, mel, published=Published(2.08e9, normed)),
        Part(
            "linear projection",
            LinearProjection,
            content,
            inference=False,
            published=Published(8.77e6, "counts the bias as mult-adds"),
        ),
        Part(
            "text encoder",
            TextEncoder,
            text,
            inference=False,
            published=Published(
                82.75e9,
                f"{normed}, and those of the packed LSTM by frames times channels ({TEXT} tokens)",
            ),
        ),
        Part("style encoder", StyleEncoder, picture, published=Published(6.72e9, normed)),
        Part(
            "discriminator",
            Discriminator,
            judged,
            inference=False,
            published=Published(6.72e9, normed),
        ),
        Part(
            "decoder",
            Decoder,
            decoding,
            published=Published(55.54e9, f"{normed}; twice that of one utterance"),
        ),
        Part(
            "pitch extractor",
            PitchExtractor,
            picture,
            published=Published(
                7.24e9,
                "counts the voicing detector's BiLSTM (0.30 G) too, which the published forward"
                " leaves idle",
            ),
        ),
        Part(
            "text aligner",
            TextAligner,
            aligning,
            inference=False,
            published=Published(
                5.83e9, f"multiplies the LSTM cell's weights by its channels ({TEXT} tokens)"
            ),
        ),
    ]


def styletts2(decoder: Callable[[], nn.Module]) -> list[Part]:
    """The components of StyleTTS 2 with one of its decoders."""
    return [
        Part("text encoder", TextEncoder, text),
        Part("acoustic style encoder", StyleEncoder, picture),
        Part("prosodic style encoder", StyleEncoder, picture),
        Part("prosody predictor", ProsodyPredictor, predicting, run=predict),
        Part("style diffusion", StyleDiffusion, sampling, run=sample),
        Part("decoder", decoder, decoding),
        Part("pitch extractor", PitchExtractor, picture, inference=False),
        Part("text aligner", TextAligner, aligning, inference=False),
        Part("multi-period discriminator", MultiPeriodDiscriminator, wave, inference=False),
        Part("multi-resolution discriminator", MultiResolutionDiscriminator, wave, inference=False),
    ]


MODELS: dict[str, Callable[[], list[Part]]] = {
    "stream": streaming_parts,
    "styletts-vc": styletts_vc,
    "styletts2-istftnet": lambda: styletts2(ISTFTNetDecoder),
    "styletts2-hifigan": lambda: styletts2(HiFiGANDecoder),
    "vocoder": lambda: [Part("HiFi-GAN vocoder", Vocoder, mel)],
}
"""Models by name."""
