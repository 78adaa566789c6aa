"""A model whose adaptive norms, blocks, source and iSTFT run as the fused kernels: same parameters,
same states, same sound.

`fused(model)` returns a twin that shares every parameter and buffer with the model, so that either
may be trained, saved or loaded; `fuse(model)` makes the model itself its twin, as training does. On
a CPU both run the kernels' plain torch references.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.kernels.adain import adain
from rtvc.kernels.block_step import Norm, block_step
from rtvc.kernels.frame_norm import frame_norm
from rtvc.kernels.istft import istft, synthesis_matrix
from rtvc.kernels.running_norm import running_norm
from rtvc.kernels.source import harmonic_source
from rtvc.kernels.toolchain.dispatch import Implementation
from rtvc.layers.blocks import SLOPE, AdaBlock, ConvBlock
from rtvc.layers.contract import State
from rtvc.layers.norm import EPSILON, StyleNorm
from rtvc.layers.source import HarmonicSource, SourceState
from rtvc.layers.synthesis import Istft
from rtvc.models.styletts2.generator import AdaINResBlock, ISTFTNetGenerator
from rtvc.models.styletts_vc import blocks as styletts_vc
from rtvc.models.styletts_vc.norms import AdaIN1d

Model = TypeVar("Model", bound=nn.Module)


class FusedAdaBlock(AdaBlock):
    """Inference in two launches; training through the norms' own kernels."""

    implementation: Implementation
    decay: float  # of running statistics; a number, so that no step waits for the GPU

    def forward(self, x: Tensor, style: Tensor, state: State) -> tuple[Tensor, State]:
        """x (B, C, T), style (B, style_size) -> y (B, C, T)."""
        first, past, second = state
        one, two = style[:, : self.first.style_size], style[:, self.first.style_size :]
        if torch.is_grad_enabled():
            y, first = self.activated(self.first, x, one, first)
            y, past = self.conv(y, past)
            y, second = self.activated(self.second, y, two, second)
            y, _ = self.out(y, self.out.initial(y.shape[0]))
            return x + y, (first, past, second)
        y, past, first = self.step(x, None, self.first, one, first, self.conv, past)
        y, _, second = self.step(
            y, x, self.second, two, second, self.out, x.new_zeros(x.shape[0], self.out.inputs, 0)
        )
        return y, (first, past, second)

    def activated(
        self, norm: StyleNorm, x: Tensor, style: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """The norm and its leaky ReLU, differentiable."""
        gamma, beta = style[:, : norm.channels], style[:, norm.channels : 2 * norm.channels]
        options: dict[str, Any] = {
            "activation": "leaky",
            "slope": SLOPE,
            "eps": EPSILON,
            "implementation": self.implementation,
        }
        if norm.statistics == "frame":
            return frame_norm(x, gamma, beta, **options), state
        if norm.statistics == "running":
            return running_norm(x, gamma, beta, state, decay=self.decay, **options)
        y, state = norm(x, style, state)
        return F.leaky_relu(y, SLOPE), state

    def step(
        self,
        x: Tensor,
        skip: Tensor | None,
        norm: StyleNorm,
        style: Tensor,
        state: State,
        conv: Any,
        past: Tensor,
    ) -> tuple[Tensor, Tensor, State]:
        """One launch: norm, leaky ReLU, convolution with its past, and the skip."""
        kind: Norm = "frame"
        scale, shift = style[:, : norm.channels], style[:, norm.channels : 2 * norm.channels]
        if norm.statistics == "running":
            x, state = self.activated(norm, x, style, state)
            kind = "none"
        elif norm.statistics == "predicted":
            deviation, mean = style[:, 2 * norm.channels :].chunk(2, 1)
            gain = (1 + scale) * torch.exp(-deviation)
            kind, scale, shift = "affine", gain - 1, shift - mean * gain
        elif norm.statistics == "film":
            kind = "affine"
        styled: dict[str, Any] = (
            {"scale": scale, "shift": shift, "plus_one": True} if kind != "none" else {}
        )
        y, past = block_step(
            x,
            past,
            conv.weight,
            conv.bias,
            skip=skip,
            norm=kind,
            activation="leaky" if kind != "none" else "none",
            dilation=conv.dilation,
            slope=SLOPE,
            eps=EPSILON,
            implementation=self.implementation,
            **styled,
        )
        return y, past, state


class FusedConvBlock(ConvBlock):
    """Inference in two launches; training as it was."""

    implementation: Implementation

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x (B, C, T) -> y (B, C, T)."""
        if torch.is_grad_enabled():
            return super().forward(x, state)
        how = self.implementation
        y, state = block_step(
            x,
            state,
            self.conv.weight,
            self.conv.bias,
            scale=self.scale,
            shift=self.shift,
            norm="frame",
            activation="none",
            dilation=self.conv.dilation,
            eps=EPSILON,
            implementation=how,
        )
        none = x.new_zeros(x.shape[0], self.channels, 0)
        y, _ = block_step(
            y,
            none,
            self.out.weight,
            self.out.bias,
            skip=x,
            norm="none",
            activation="gelu",
            implementation=how,
        )
        return y, state


class FusedIstft(Istft):
    """Product and overlap-add in one launch."""

    implementation: Implementation

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 2 * bins, T), real parts over imaginary parts -> y (B, 1, T * hop)."""
        return istft(x, state, self.matrix, hop=self.hop, implementation=self.implementation)


class FusedSource(HarmonicSource):
    """The pulse train in one launch."""

    implementation: Implementation

    def forward(
        self, f0: Tensor, voicing: Tensor, state: SourceState
    ) -> tuple[Tensor, SourceState]:
        """f0 (B, T) in Hz and voicing (B, T) in 0..1, at the end of each segment -> pulses (B, T *
        hop)."""
        rate, hop, how = self.sample_rate, self.hop, self.implementation
        f0 = f0.double()
        pulses, phase = harmonic_source(
            f0, voicing, *state, sample_rate=rate, hop=hop, implementation=how
        )
        return pulses, SourceState(f0[:, -1:], voicing[:, -1:], phase)


def styled(
    norm: AdaIN1d,
    x: Tensor,
    style: Tensor,
    how: Implementation,
    activation: str,
    slope: float = 0.2,
    alpha: Tensor | None = None,
) -> Tensor:
    """`norm(x, style)` and the activation after it, in one launch."""
    gamma, beta = norm.fc(style).chunk(2, 1)
    return adain(
        x, gamma, beta, activation=activation, slope=slope, alpha=alpha, implementation=how
    )


class FusedAdainResBlk1d(styletts_vc.AdainResBlk1d):
    """AdaIN and leaky ReLU in one launch."""

    implementation: Implementation

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x (B, C, T), style (B, S) -> y (B, C', T or 2 T)."""
        skip = self.conv1x1(x.repeat_interleave(2, -1) if self.upsample else x)
        y = self.pool(styled(self.norm1, x, style, self.implementation, "leaky", styletts_vc.SLOPE))
        y = self.conv1(F.dropout(y, self.dropout, self.training))
        y = styled(self.norm2, y, style, self.implementation, "leaky", styletts_vc.SLOPE)
        y = self.conv2(F.dropout(y, self.dropout, self.training))
        return torch.add(skip, y) / math.sqrt(2)


class FusedAdaINResBlock(AdaINResBlock):
    """AdaIN and Snake in one launch."""

    implementation: Implementation

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x (B, C, T), style (B, S) -> y (B, C, T)."""
        layers = zip(
            self.convs1,
            self.convs2,
            self.adain1,
            self.adain2,
            self.alpha1,
            self.alpha2,
            strict=True,
        )
        for conv1, conv2, adain1, adain2, alpha1, alpha2 in layers:
            first, second = cast(AdaIN1d, adain1), cast(AdaIN1d, adain2)
            y = conv1(styled(first, x, style, self.implementation, "snake", alpha=alpha1.flatten()))
            x = x + conv2(
                styled(second, y, style, self.implementation, "snake", alpha=alpha2.flatten())
            )
        return x


class FusedISTFTNetGenerator(ISTFTNetGenerator):
    """Magnitude, phase, inverse transform, window and overlap-add in one launch."""

    implementation: Implementation

    def wave(self, spectrum: Tensor) -> Tensor:
        """spectrum (B, 2 * bins, T), log-magnitudes over what the phases are sines of -> (B, 1, (T
        - 1) * hop).

        Where fewer windows overlap than in the middle, at both ends, the sum is divided by the
        fewer.
        """
        size, hop, frames = self.n_fft, self.hop, spectrum.shape[-1]
        window = self.window.double()
        matrix = synthesis_matrix(size, hop, window).to(spectrum)
        tail = spectrum.new_zeros(spectrum.shape[0], 1, size - hop)
        y, tail = istft(
            spectrum, tail, matrix, hop=hop, form="sine", implementation=self.implementation
        )
        power = window.square()[None, :, None].expand(1, size, frames)
        whole = F.fold(power, (1, (frames - 1) * hop + size), (1, size), stride=(1, hop))[0, 0, 0]
        middle = (
            F.pad(window.square(), (0, -size % hop))
            .reshape(-1, hop)
            .sum(0)
            .repeat(frames + size // hop)[: whole.shape[0]]
        )
        inner = slice(size // 2, whole.shape[0] - size // 2)
        return torch.cat([y, tail], -1)[..., inner] * (middle / whole)[inner].to(spectrum)


FUSED: dict[type[nn.Module], type[nn.Module]] = {
    AdaBlock: FusedAdaBlock,
    ConvBlock: FusedConvBlock,
    Istft: FusedIstft,
    HarmonicSource: FusedSource,
    styletts_vc.AdainResBlk1d: FusedAdainResBlk1d,
    AdaINResBlock: FusedAdaINResBlock,
    ISTFTNetGenerator: FusedISTFTNetGenerator,
}
"""What is replaced, by exact class."""


def fused(model: Model, implementation: Implementation = "auto") -> Model:
    """The model's twin on fused kernels; parameters and buffers are shared, hooks are not carried
    over.

    Args:
        model: any module; unknown parts stay as they are.
        implementation: see `rtvc.kernels.toolchain.dispatch`.
    """
    return cast(Model, twin(model, implementation, {}))


def twin(
    module: nn.Module, implementation: Implementation, done: dict[int, nn.Module]
) -> nn.Module:
    """One module of the twin; a module that occurs twice in the model occurs twice in the twin."""
    if id(module) in done:
        return done[id(module)]
    kind = FUSED.get(type(module), type(module))
    new: Callable[[Any], nn.Module] = kind.__new__
    made = done[id(module)] = new(kind)
    made.__dict__.update(module.__dict__)
    made.__dict__["_modules"] = {
        name: child and twin(child, implementation, done) for name, child in module._modules.items()
    }
    if kind is not type(module):
        equip(made, implementation)
    return made


def fuse(model: nn.Module, implementation: Implementation = "auto") -> int:
    """Makes a model its own twin, in place: whoever holds one of its parts holds a fused part.
    Returns how many changed."""
    parts = [module for module in model.modules() if type(module) in FUSED]
    for module in parts:
        module.__class__ = FUSED[type(module)]
        equip(module, implementation)
    return len(parts)


def equip(module: nn.Module, implementation: Implementation) -> None:
    """What a fused class has and its plain one has not."""
    module.__dict__["implementation"] = implementation
    if isinstance(module, FusedAdaBlock):
        module.__dict__["decay"] = float(module.first.decay)
