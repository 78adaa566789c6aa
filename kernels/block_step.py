"""Half a residual block in one launch, for small chunks: norm, style, activation, causal
convolution with its past, skip.

At a chunk of two frames a block of the streaming model is a dozen tiny operations whose launches
cost more than their work. Two of these steps are a whole block: norm, activation and dilated
convolution; then norm or activation, pointwise convolution and the skip. Where gradients are
wanted, a styled norm runs as `frame_norm`'s operator and the rest as plain torch.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rtvc.kernels.activation import check_activation
from rtvc.kernels.forms import ACTIVATIONS, NORMS, Step
from rtvc.kernels.frame_norm import frame_norm
from rtvc.kernels.toolchain.dispatch import Implementation, register_operator, use_operator

Norm = Literal["none", "affine", "frame"]
"""What happens before the activation. `affine`: scale and shift alone. `frame`: mean and deviation
over the channels of each frame are taken out first."""


def block_step(
    x: Tensor,
    past: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    skip: Tensor | None = None,
    alpha: Tensor | None = None,
    norm: Norm = "frame",
    activation: str = "leaky",
    dilation: int = 1,
    slope: float = 0.2,
    eps: float = 1e-5,
    plus_one: bool = False,
    implementation: Implementation = "auto",
) -> tuple[Tensor, Tensor]:
    """skip + conv(activation(norm(x) * scale + shift)), and the frames that the next chunk's
    convolution needs.

    Args:
        x: (B, C, T), float32, float16, bfloat16, or float64 (reference only), in any memory order.
        past: (B, C, (K - 1) * dilation), inputs of the convolution from before this chunk.
        weight: (C', K, C).
        bias: (C',).
        scale: (B, C) or, for every row alike, (C,); with norms `affine` and `frame`.
        shift: the same.
        skip: (B, C', T), added to the result.
        alpha: (C,), of snake.
        norm: none, affine or frame.
        activation: none, leaky, snake or gelu.
        dilation: frames between taps.
        slope: of leaky.
        eps: added to the variance.
        plus_one: the scale is 1 + scale, as AdaIN's.
        implementation: see `rtvc.kernels.toolchain.dispatch`.

    Returns:
        (B, C', T) of x's dtype, and the next past.

    Raises:
        ValueError: shapes that do not fit, or names that do not exist.
    """
    check(x, past, weight, scale, shift, skip, alpha, norm, activation, dilation)
    tensors = (x, past, weight, bias, scale, shift, skip, alpha)
    if use_operator(x, implementation):
        if not differentiable(*tensors):
            y, after = block_operator(*tensors, norm, activation, dilation, slope, eps, plus_one)
            return y, after
        styled = norm == "frame" and plus_one and activation != "gelu"
        if styled and scale is not None and shift is not None:
            x = frame_norm(
                x,
                scale.expand(x.shape[:2]),
                shift.expand(x.shape[:2]),
                activation=activation,
                slope=slope,
                alpha=alpha,
                eps=eps,
                implementation=implementation,
            )
            tensors = (x, past, weight, bias, None, None, skip, None)
            norm = activation = "none"
    return reference(*tensors, Step(norm, activation, dilation, slope, eps, plus_one))


def differentiable(*tensors: Tensor | None) -> bool:
    """Whether a gradient will be asked of what is computed from these now."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def check(
    x: Tensor,
    past: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    skip: Tensor | None,
    alpha: Tensor | None,
    norm: str,
    activation: str,
    dilation: int,
) -> None:
    """Raises ValueError unless everything fits."""
    if norm not in NORMS:
        raise ValueError(f"expected a norm of {sorted(NORMS)}, got {norm!r}")
    rows, outputs = tuple(x.shape), tuple(weight.shape)
    if len(rows) != 3 or len(outputs) != 3 or outputs[2] != rows[1]:
        raise ValueError(
            f"expected x (B, C, T) and weight (C', K, C), got x {rows} and weight {outputs}"
        )
    context = (rows[0], rows[1], (outputs[1] - 1) * dilation)
    if past.shape != context:
        raise ValueError(
            f"expected a past of shape {context}, (K - 1) * dilation frames, got"
            f" {tuple(past.shape)}"
        )
    for name, value in (("scale", scale), ("shift", shift)):
        if (value is not None) != (norm != "none"):
            raise ValueError(
                f"expected scale and shift with the norms affine and frame alone, got norm {norm!r}"
                f" {'without' if value is None else 'with'} {name}"
            )
        # Never compared with the other shape: an export would note that its free batch is not C.
        if value is not None and value.shape != (rows[:2] if value.ndim == 2 else rows[1:2]):
            raise ValueError(
                f"expected a {name} of shape {rows[:2]} or {rows[1:2]}, got {tuple(value.shape)}"
            )
    if skip is not None and skip.shape != (rows[0], outputs[0], rows[2]):
        raise ValueError(
            f"expected a skip of shape {(rows[0], outputs[0], rows[2])}, got {tuple(skip.shape)}"
        )
    check_activation(activation, alpha, rows[1], ACTIVATIONS)


def reference(
    x: Tensor,
    past: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    skip: Tensor | None,
    alpha: Tensor | None,
    step: Step,
) -> tuple[Tensor, Tensor]:
    """Plain torch, frames first as the layers of the streaming model do it: y (B, C', T) and the
    next past."""
    frames = x.mT
    same = scale is not None and scale.ndim == 1 and not step.plus_one  # for every row
    if step.norm == "frame":
        affine = (scale, shift) if same else (None, None)
        frames = F.layer_norm(frames, frames.shape[-1:], *affine, eps=step.eps)
    if scale is not None and shift is not None and not (same and step.norm == "frame"):
        gain = 1 + scale if step.plus_one else scale
        frames = frames * gain.unsqueeze(-2) + shift.unsqueeze(-2)
    if step.activation == "leaky":
        frames = F.leaky_relu(frames, step.slope)
    elif step.activation == "gelu":
        frames = F.gelu(frames)
    elif alpha is not None:
        frames = frames + torch.sin(alpha * frames).square() / alpha
    frames, length, taps = frames.to(x.dtype), x.shape[2], weight.shape[1]
    if taps > 1:
        frames = torch.cat([past.mT.to(x.dtype), frames], 1)
        past = frames[:, length:].mT
        starts = range(0, taps * step.dilation, step.dilation)
        frames = torch.cat([frames[:, start : start + length] for start in starts], -1)
    y = F.linear(frames, weight.flatten(1), bias).mT
    return (y if skip is None else y + skip), past


def frames_first(x: Tensor) -> Tensor:
    """x (B, C, T) copied so that the channels of a frame lie side by side."""
    return x.mT.clone(memory_format=torch.contiguous_format).mT


def step_frames_first(
    x: Tensor,
    past: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    skip: Tensor | None,
    alpha: Tensor | None,
    norm: str,
    activation: str,
    dilation: int,
    slope: float,
    eps: float,
    plus_one: bool,
) -> tuple[Tensor, Tensor]:
    """What `reference` gives, both frames first; an operator's schema knows no `Step`."""
    step = Step(norm, activation, dilation, slope, eps, plus_one)
    y, after = reference(x, past, weight, bias, scale, shift, skip, alpha, step)
    return frames_first(y), frames_first(after)


def launch(*arguments: Any) -> tuple[Tensor, Tensor]:
    """`step_frames_first` as one kernel."""
    from rtvc.kernels.block_step_triton import forward

    *tensors, norm, activation, dilation, slope, eps, plus_one = arguments
    step = Step(norm, activation, dilation, slope, eps, plus_one)
    return forward(*tensors, step)  # type: ignore[call-arg,arg-type]


block_operator = register_operator(
    "block_step",
    step_frames_first,
    kernel=launch,
    fake=lambda x, past, weight, *_: (
        x.new_empty(x.shape[0], x.shape[2], weight.shape[0]).mT,
        x.new_empty(x.shape[0], past.shape[2], x.shape[1]).mT,
    ),
)
"""y (B, C', T) and the next past (B, C, P), frames first in memory, from the arguments of
`step_frames_first`."""
