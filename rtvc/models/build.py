"""State dict to module: which component of which paper it is, and the sizes it was trained with."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from rtvc.errors import CheckpointError
from rtvc.models.loading import Described, outlined
from rtvc.models.styletts2.decoder import HiFiGANDecoder, ISTFTNetDecoder
from rtvc.models.styletts2.denoiser import StyleDenoiser
from rtvc.models.styletts2.diffusion import StyleDiffusion
from rtvc.models.styletts2.discriminators import (
    MultiPeriodDiscriminator,
    MultiResolutionDiscriminator,
)
from rtvc.models.styletts2.prosody import ProsodyPredictor
from rtvc.models.styletts_vc.decoder import Decoder
from rtvc.models.styletts_vc.discriminator import Discriminator
from rtvc.models.styletts_vc.mel_encoder import LinearProjection, MelEncoder
from rtvc.models.styletts_vc.norms import WeightNormed, fold_weight_norm
from rtvc.models.styletts_vc.pitch_extractor import PitchExtractor
from rtvc.models.styletts_vc.style_encoder import StyleEncoder
from rtvc.models.styletts_vc.text_aligner import TextAligner
from rtvc.models.styletts_vc.text_encoder import TextEncoder
from rtvc.models.vocoder import Vocoder
from rtvc.printable import printable

Weights = Mapping[str, Described]
"""Tensors, or what is known of them: sizes are all that is looked at."""


WIDEST = 1 << 14
"""Largest axis that a size is taken from: the published ones end at 1,024 channels, large alphabets
at some thousands."""
LONGEST_LIST = 64
"""Most entries of a list of layers: the published ones have 12 at most."""


def axis(weights: Weights, name: str, index: int, default: int) -> int:
    """Size of an axis of a tensor, or the published one where the tensor is missing or has no such
    axis.

    Raises:
        CheckpointError: it is empty, or larger than any layer can be.
    """
    for key in (name, f"{name}_orig", f"{name}_v"):
        if key in weights and len(weights[key].shape) > index:
            size = weights[key].shape[index]
            if not 1 <= size <= WIDEST:
                raise CheckpointError(
                    f"expected axes of 1 to {WIDEST}, {key} has the shape"
                    f" {tuple(weights[key].shape)}"
                )
            return size
    return default


def count(weights: Weights, prefix: str, default: int) -> int:
    """How many entries the list under a prefix has: `ups.` of `ups.0.bias`, `ups.3.bias` -> 4.

    Raises:
        CheckpointError: more than any model has, as `ups.3000000.bias` would say.
    """
    entries = {
        key.removeprefix(prefix).partition(".")[0] for key in weights if key.startswith(prefix)
    }
    numbers = {entry for entry in entries if entry.isascii() and entry.isdecimal()}
    if long := [
        entry
        for entry in numbers
        if len(entry) > len(str(LONGEST_LIST)) or int(entry) >= LONGEST_LIST
    ]:
        raise CheckpointError(
            f"expected at most {LONGEST_LIST} entries in a list, {prefix}{printable(long[0])} is"
            " named"
        )
    return max(map(int, numbers)) + 1 if numbers else default


def upsampling(weights: Weights, prefix: str, kernels: tuple[int, ...]) -> dict[str, Any]:
    """Settings that the generators share, read off the shapes; every published kernel is twice its
    rate.

    Raises:
        CheckpointError: sizes that no generator can have.
    """
    stages = count(weights, f"{prefix}ups.", len(kernels))
    sizes = [
        axis(weights, f"{prefix}ups.{i}.weight", 2, kernels[i % len(kernels)])
        for i in range(stages)
    ]
    channels = axis(weights, f"{prefix}ups.0.weight", 0, 512)
    if min(sizes) < 2 or channels >> stages < 1:
        raise CheckpointError(
            f"{prefix}ups halves {channels} channels {stages} times with kernels {sizes}: no"
            " generator does that"
        )
    blocks = max(count(weights, f"{prefix}resblocks.", 3 * stages) // stages, 1)
    return {
        "channels": channels,
        "rates": [size // 2 for size in sizes],
        "kernels": sizes,
        "block_kernels": [
            axis(weights, f"{prefix}resblocks.{i}.convs1.0.weight", 2, (3, 7, 11)[i % 3])
            for i in range(blocks)
        ],
    }


def build_decoder(weights: Weights) -> nn.Module:
    """Mel decoder of StyleTTS-VC, or iSTFTNet or HiFi-GAN decoder of StyleTTS 2."""
    if not any(key.startswith("generator.") for key in weights):
        content, style = (
            axis(weights, "to_out.0.weight", 1, 512),
            axis(weights, "decode.0.norm1.fc.weight", 1, 128),
        )
        return Decoder(
            content,
            style,
            axis(weights, "asr_res.0.weight", 0, 64),
            axis(weights, "to_out.0.weight", 0, 80),
        )
    style, content = (
        axis(weights, "encode.norm1.fc.weight", 1, 128),
        axis(weights, "asr_res.0.weight", 1, 512),
    )
    width = axis(weights, "encode.conv2.weight", 0, 1024)
    if any(key.startswith("generator.alphas.") for key in weights):
        return HiFiGANDecoder(
            style, content, width, **upsampling(weights, "generator.", (20, 10, 6, 4))
        )
    n_fft = axis(weights, "generator.conv_post.weight", 0, 22) - 2
    if n_fft < 4:
        raise CheckpointError(
            "expected generator.conv_post.weight to have at least 6 rows, two more than the STFT's"
            f" size, got {n_fft + 2}"
        )
    return ISTFTNetDecoder(
        style,
        content,
        width,
        **upsampling(weights, "generator.", (20, 12)),
        n_fft=n_fft,
        hop=n_fft // 4,
    )


def build_vocoder(weights: Weights) -> nn.Module:
    """HiFi-GAN from mel spectrograms."""
    settings = upsampling(weights, "", (20, 10, 6, 4))
    return Vocoder(axis(weights, "conv_pre.weight", 1, 80), **settings)


def build_style_encoder(weights: Weights) -> nn.Module:
    """Acoustic or prosodic style encoder."""
    width, widest = (
        axis(weights, "shared.0.weight", 0, 64),
        axis(weights, "unshared.weight", 1, 512),
    )
    return StyleEncoder(width, axis(weights, "unshared.weight", 0, 128), widest)


def build_diffusion(weights: Weights) -> nn.Module:
    """Style diffusion, with or without a reference."""
    positions = "unet.fixed_embedding.embedding.weight"
    return StyleDiffusion(
        StyleDenoiser(
            axis(weights, "unet.to_out.1.weight", 0, 256),
            axis(weights, positions, 1, 768),
            (
                axis(weights, "unet.to_features.0.weight", 1, 256)
                if any("to_features" in key for key in weights)
                else None
            ),
            count(weights, "unet.blocks.", 3),
            longest=axis(weights, positions, 0, 512),
        )
    )


BUILDERS: dict[str, Callable[[Weights], nn.Module]] = {
    "mel_encoder": lambda w: MelEncoder(
        axis(w, "conv_mel.0.weight", 1, 80), axis(w, "conv_mel.5.conv1.weight", 0, 512)
    ),
    "linear_proj": lambda w: LinearProjection(axis(w, "weight", 1, 512), axis(w, "weight", 0, 178)),
    "text_encoder": lambda w: TextEncoder(
        axis(w, "embedding.weight", 1, 512),
        axis(w, "cnn.0.0.weight", 2, 5),
        count(w, "cnn.", 3),
        axis(w, "embedding.weight", 0, 178),
    ),
    "style_encoder": build_style_encoder,
    "predictor_encoder": build_style_encoder,
    "discriminator": lambda w: Discriminator(
        axis(w, "main.0.weight", 0, 64),
        axis(w, "main.9.weight", 0, 108),
        axis(w, "main.6.weight", 0, 512),
    ),
    "decoder": build_decoder,
    "pitch_extractor": lambda w: PitchExtractor(axis(w, "conv_block.0.weight", 0, 64)),
    "text_aligner": lambda w: TextAligner(
        2 * axis(w, "init_cnn.conv.weight", 1, 40),
        axis(w, "init_cnn.conv.weight", 0, 256),
        axis(w, "asr_s2s.embedding.weight", 0, 178),
        count(w, "cnns.", 6),
        axis(w, "asr_s2s.embedding.weight", 1, 512),
    ),
    "predictor": lambda w: ProsodyPredictor(
        2 * axis(w, "F0_proj.weight", 1, 256),
        axis(w, "text_encoder.lstms.1.fc.weight", 1, 128),
        count(w, "text_encoder.lstms.", 6) // 2,
        axis(w, "duration_proj.linear_layer.weight", 0, 50),
    ),
    "diffusion": build_diffusion,
    "mpd": lambda w: MultiPeriodDiscriminator(),
    "msd": lambda w: MultiResolutionDiscriminator(),
    "vocoder": build_vocoder,
}
"""Components under the names that the authors' checkpoints give them, and what builds each from a
state dict."""

SIGNATURES = {
    "mel_encoder": "conv_mel.0.bias",
    "text_encoder": "cnn.0.1.gamma",
    "style_encoder": "unshared.weight",
    "discriminator": "main.9.bias",
    "decoder": "asr_res.0.bias",
    "pitch_extractor": "bilstm_classifier.weight_ih_l0",
    "text_aligner": "asr_s2s.embedding.weight",
    "predictor": "duration_proj.linear_layer.weight",
    "diffusion": "unet.to_out.1.weight",
    "vocoder": "conv_pre.bias",
}
"""A tensor that no other component has: tells what a state dict without a name is."""


def identify(weights: Weights) -> str | None:
    """The component that a state dict belongs to, None if it is none of ours."""
    return next((name for name, key in SIGNATURES.items() if key in weights), None)


def build(name: str, weights: Weights) -> nn.Module:
    """The component called `name`, outlined at the sizes of its weights, which it does not have yet
    (`rtvc.models.loading`).

    Weight norm is folded where the weights are.

    Raises:
        CheckpointError: sizes that no such component can have.
    """
    module = outlined(lambda: BUILDERS[name](weights), f"`{name}`")
    normed = any(isinstance(child, WeightNormed) for child in module.modules())
    return (
        fold_weight_norm(module)
        if normed and not any(key.endswith("weight_g") for key in weights)
        else module
    )
