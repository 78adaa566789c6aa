"""Normalisations of weights and of activations, under the names that the authors' checkpoints use.

Weight norm keeps `weight_g` and `weight_v`, spectral norm `weight_orig`, `weight_u` and `weight_v`,
as the first generation of torch's own helpers did. The weight is computed in `forward`, not by a
hook, so a module stays copyable and exportable; `fold_weight_norm` turns it into a plain
convolution.
"""

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.kernels.activation import Activation
from rtvc.kernels.adain import adain
from rtvc.layers.dispatch import Dispatched

M = TypeVar("M", bound=nn.Module)

EPSILON = 1e-12
"""Keeps the power iteration of spectral norm from dividing by zero."""

SETTLING = 15
"""Power iterations on a fresh weight, so that an untrained network evaluates sensibly too."""


class WeightNormed(nn.Module):
    """Mixin before a convolution class: weight = g * v / |v|, the norm for each index of axis 0.

    Source: Salimans and Kingma 2016, "Weight Normalization".
    """

    weight_g: nn.Parameter
    weight_v: nn.Parameter

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        weight = self._parameters.pop("weight")
        if weight is None:
            raise TypeError(f"{type(self).__name__} has no weight to normalise")
        drawn = weight.detach()
        # A weight on the meta device has no values to take the norm of; torch would import for
        # seconds to find its shape.
        norms = drawn.new_empty(len(drawn)) if drawn.is_meta else drawn.flatten(1).norm(dim=1)
        self.weight_g = nn.Parameter(norms.view(-1, *[1] * (weight.ndim - 1)))
        self.weight_v = nn.Parameter(drawn.clone())

    def effective_weight(self) -> Tensor:
        """The weight that the convolution runs with."""
        folded = self._parameters.get("weight")
        return torch._weight_norm(self.weight_v, self.weight_g, 0) if folded is None else folded

    def fold(self) -> None:
        """Replaces `weight_g` and `weight_v` by one plain `weight`; folding twice changes
        nothing."""
        if "weight" not in self._parameters:
            drawn = self.weight_v if self.weight_v.is_meta else self.effective_weight()
            weight = drawn.detach().clone()
            del self.weight_g, self.weight_v
            self.register_parameter("weight", nn.Parameter(weight))


class WeightNormConv1d(WeightNormed, nn.Conv1d):
    """`nn.Conv1d` with weight norm."""

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T) -> y (B, C', T')."""
        y: Tensor = self._conv_forward(x, self.effective_weight(), self.bias)
        return y


class WeightNormConv2d(WeightNormed, nn.Conv2d):
    """`nn.Conv2d` with weight norm."""

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, T) -> y (B, C', H', T')."""
        y: Tensor = self._conv_forward(x, self.effective_weight(), self.bias)
        return y


class WeightNormConvTranspose1d(WeightNormed, nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` with weight norm; the first axis of its weight is the input channel."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """x (B, C, T) -> y (B, C', T')."""
        if output_size is not None:
            raise ValueError(
                "a weight-normed transposed convolution takes no output size: set output_padding"
                " instead"
            )
        weight, padding = self.effective_weight(), self.padding
        if isinstance(padding, str):
            raise TypeError(f"expected a number of frames as padding, got {padding!r}")
        return F.conv_transpose1d(
            x,
            weight,
            self.bias,
            self.stride,
            padding,
            self.output_padding,
            self.groups,
            self.dilation,
        )


def fold_weight_norm(module: M) -> M:
    """Folds every weight-normed convolution inside `module`, in place, and returns it.

    For checkpoints that hold folded weights (`….weight` in place of `….weight_g` and `….weight_v`),
    and for inference.
    """
    for child in module.modules():
        if isinstance(child, WeightNormed):
            child.fold()
    return module


class SpectralNormConv2d(nn.Conv2d):
    """`nn.Conv2d` whose weight is divided by an estimate of its largest singular value.

    Each training step refines the singular vectors by one power iteration; evaluation uses them as
    they are.
    Source: Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks".
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.weight_orig = nn.Parameter(self.weight.detach().clone())
        del self.weight
        rows, columns = self.weight_orig.flatten(1).shape
        self.register_buffer("weight_u", F.normalize(torch.randn(rows), dim=0, eps=EPSILON))
        self.register_buffer("weight_v", F.normalize(torch.randn(columns), dim=0, eps=EPSILON))
        for _ in range(0 if self.weight_orig.is_meta else SETTLING):
            self.refine()

    @torch.no_grad()
    def refine(self) -> None:
        """One power iteration: moves the singular vectors towards the leading ones."""
        matrix = self.weight_orig.flatten(1)
        self.weight_v.copy_(F.normalize(matrix.T @ self.weight_u, dim=0, eps=EPSILON))
        self.weight_u.copy_(F.normalize(matrix @ self.weight_v, dim=0, eps=EPSILON))

    def effective_weight(self) -> Tensor:
        """The weight that the convolution runs with; in training mode also refines the singular
        vectors."""
        if self.training:
            self.refine()
        # Copies, since a second forward before the backward refines the vectors in place.
        sigma = self.weight_u.clone() @ (self.weight_orig.flatten(1) @ self.weight_v.clone())
        return self.weight_orig / sigma

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, T) -> y (B, C', H', T')."""
        y: Tensor = self._conv_forward(x, self.effective_weight(), self.bias)
        return y


class AdaIN1d(Dispatched):
    """Instance norm over time, scaled and shifted by the style, and the activation after it.

    Source: Huang and Belongie 2017; StyleTTS-VC, section III-A (decoder).
    """

    def __init__(self, style_dim: int, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(style_dim, channels * 2)

    def forward(
        self,
        x: Tensor,
        style: Tensor,
        activation: Activation = "none",
        *,
        slope: float = 0.2,
        alpha: Tensor | None = None,
    ) -> Tensor:
        """x (B, C, T), style (B, S) -> y (B, C, T); alpha (1, C, 1) belongs to `snake`, slope to
        `leaky`."""
        scale, shift = self.fc(style).chunk(2, 1)
        return adain(
            x,
            scale,
            shift,
            activation=activation,
            slope=slope,
            alpha=None if alpha is None else alpha.flatten(),
            implementation=self.implementation,
        )


class AdaLayerNorm(nn.Module):
    """Layer norm over channels, scaled and shifted by the style."""

    def __init__(self, style_dim: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.fc = nn.Linear(style_dim, channels * 2)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x (B, T, C), style (B, S) or (B, T, S) -> y (B, T, C)."""
        h = self.fc(style)
        scale, shift = (h if h.ndim == x.ndim else h[:, None]).chunk(2, -1)
        return torch.addcmul(shift, 1 + scale, F.layer_norm(x, (self.channels,)))


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (B, C, T), with a learned scale and shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T) -> y (B, C, T)."""
        return F.layer_norm(x.mT, self.gamma.shape, self.gamma, self.beta).mT
