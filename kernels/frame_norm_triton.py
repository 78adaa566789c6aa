# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc"
"""`frame_norm` in Triton, forward and backward: a few frames of one row of the batch a program, all
channels in registers."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rtvc.kernels.activation import CODES
from rtvc.kernels.activation_triton import activate, activate_backward
from rtvc.kernels.toolchain.launch import Launch, launch, power_of_two, strides, warps

TILE = 4096
"""Elements a program holds at a time."""


@triton.jit
def forward_kernel(
    x, gamma, beta, alpha, y, mean, rstd, channels, frames, x_row, x_channel, x_frame, y_row,
    y_channel, y_frame, gamma_row, beta_row, slope, eps, ACTIVATION: tl.constexpr,
    FRAMES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """x, y (B, channels, frames) by strides; gamma, beta (B, channels) by row stride; mean, rstd
    (B, frames)."""
    row = tl.program_id(0).to(tl.int64)
    t = tl.program_id(1) * FRAMES + tl.arange(0, FRAMES)
    c = tl.arange(0, CHANNELS)
    inside = (t < frames)[:, None] & (c < channels)[None]
    v = tl.load(x + row * x_row + t[:, None] * x_frame + c[None] * x_channel, inside, 0.0).to(
        tl.float32
    )
    m = tl.sum(v, 1) / channels
    centred = tl.where(inside, v - m[:, None], 0.0)
    rest = tl.sum(centred, 1) / channels  # what rounding left of the mean
    r = 1.0 / tl.sqrt(tl.maximum(tl.sum(centred * centred, 1) / channels - rest * rest, 0.0) + eps)
    scale = 1.0 + tl.load(gamma + row * gamma_row + c, c < channels, 0.0).to(tl.float32)
    shift = tl.load(beta + row * beta_row + c, c < channels, 0.0).to(tl.float32)
    a = tl.full((CHANNELS,), 1.0, tl.float32)
    if ACTIVATION == 2:
        a = tl.load(alpha + c, c < channels, 1.0).to(tl.float32)
    z = activate(
        (centred - rest[:, None]) * r[:, None] * scale[None] + shift[None],
        slope,
        a[None],
        ACTIVATION,
    )
    tl.store(y + row * y_row + t[:, None] * y_frame + c[None] * y_channel, z, inside)
    tl.store(mean + row * frames + t, m + rest, t < frames)
    tl.store(rstd + row * frames + t, r, t < frames)


@triton.jit
def backward_kernel(
    dy, x, gamma, beta, alpha, mean, rstd, dx, partial, tiles, channels, frames, dy_row,
    dy_channel, dy_frame, x_row, x_channel, x_frame, dx_row, dx_channel, dx_frame, gamma_row,
    beta_row, slope, ACTIVATION: tl.constexpr, FRAMES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """partial (B, tiles, 3, channels): what these frames add to dgamma, dbeta and dalpha; the rest
    as in the forward kernel."""
    row = tl.program_id(0).to(tl.int64)
    t = tl.program_id(1) * FRAMES + tl.arange(0, FRAMES)
    c = tl.arange(0, CHANNELS)
    inside = (t < frames)[:, None] & (c < channels)[None]
    m = tl.load(mean + row * frames + t, t < frames, 0.0)
    r = tl.load(rstd + row * frames + t, t < frames, 0.0)
    scale = 1.0 + tl.load(gamma + row * gamma_row + c, c < channels, 0.0).to(tl.float32)
    shift = tl.load(beta + row * beta_row + c, c < channels, 0.0).to(tl.float32)
    a = tl.full((CHANNELS,), 1.0, tl.float32)
    if ACTIVATION == 2:
        a = tl.load(alpha + c, c < channels, 1.0).to(tl.float32)
    v = tl.load(x + row * x_row + t[:, None] * x_frame + c[None] * x_channel, inside, 0.0).to(
        tl.float32
    )
    normal = tl.where(inside, (v - m[:, None]) * r[:, None], 0.0)
    by_z, by_alpha = activate_backward(
        normal * scale[None] + shift[None], slope, a[None], ACTIVATION
    )
    g = tl.load(dy + row * dy_row + t[:, None] * dy_frame + c[None] * dy_channel, inside, 0.0).to(
        tl.float32
    )
    dz = tl.where(inside, g * by_z, 0.0)
    at = partial + (row * tiles + tl.program_id(1)) * 3 * channels + c
    tl.store(at, tl.sum(dz * normal, 0), c < channels)
    tl.store(at + channels, tl.sum(dz, 0), c < channels)
    tl.store(at + 2 * channels, tl.sum(tl.where(inside, g * by_alpha, 0.0), 0), c < channels)
    dz = dz * scale[None]
    along, total = tl.sum(dz * normal, 1) / channels, tl.sum(dz, 1) / channels
    v = (dz - total[:, None] - normal * along[:, None]) * r[:, None]
    tl.store(dx + row * dx_row + t[:, None] * dx_frame + c[None] * dx_channel, v, inside)


def tile(channels: int, frames: int, elements: int = TILE) -> tuple[int, int]:
    """(frames a program, channels rounded up)."""
    wide = power_of_two(channels)
    return max(1, min(elements // wide, power_of_two(frames))), wide


def forward(
    x: Tensor, gamma: Tensor, beta: Tensor, alpha: Tensor | None, activation: str, slope: float,
    eps: float,
    *, elements: int = TILE, start: Launch = launch,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y (B, C, T) in x's memory order, mean and reciprocal std (B, T)."""
    batch, channels, frames = x.shape
    gamma, beta = rows(gamma), rows(beta)
    y, mean = torch.empty_like(x), torch.empty(batch, frames, dtype=torch.float32, device=x.device)
    rstd = torch.empty_like(mean)
    per, wide = tile(channels, frames, elements)
    arguments = {
        "x": x, "gamma": gamma, "beta": beta, "alpha": alpha, "y": y, "mean": mean, "rstd": rstd,
        "channels": channels, "frames": frames,
        **strides("x", x), **strides("y", y), "gamma_row": gamma.stride(0),
        "beta_row": beta.stride(0), "slope": float(slope), "eps": float(eps),
        "ACTIVATION": CODES[activation], "FRAMES": per, "CHANNELS": wide,
    }  # fmt: skip
    start(forward_kernel, (batch, triton.cdiv(frames, per)), arguments, num_warps=warps(per * wide))
    return y, mean, rstd


def backward(
    dy: Tensor, x: Tensor, gamma: Tensor, beta: Tensor, alpha: Tensor | None, mean: Tensor,
    rstd: Tensor, activation: str, slope: float,
    *, elements: int = TILE, start: Launch = launch,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """dx (B, C, T), dgamma and dbeta (B, C), dalpha (C,), in the dtypes of x, gamma, beta and
    alpha."""
    batch, channels, frames = x.shape
    gamma, beta, dx = rows(gamma), rows(beta), torch.empty_like(x)
    per, wide = tile(channels, frames, elements)
    tiles = triton.cdiv(frames, per)
    partial = torch.empty(batch, tiles, 3, channels, dtype=torch.float32, device=x.device)
    arguments = {
        "dy": dy, "x": x, "gamma": gamma, "beta": beta, "alpha": alpha, "mean": mean, "rstd": rstd,
        "dx": dx, "partial": partial, "tiles": tiles, "channels": channels, "frames": frames,
        **strides("dy", dy), **strides("x", x), **strides("dx", dx), "gamma_row": gamma.stride(0),
        "beta_row": beta.stride(0), "slope": float(slope), "ACTIVATION": CODES[activation],
        "FRAMES": per, "CHANNELS": wide,
    }  # fmt: skip
    start(backward_kernel, (batch, tiles), arguments, num_warps=warps(per * wide))
    dgamma, dbeta, dalpha = partial.sum(1).unbind(1)
    like = gamma if alpha is None else alpha
    return dx, dgamma.to(gamma.dtype), dbeta.to(beta.dtype), dalpha.sum(0).to(like.dtype)


def rows(x: Tensor) -> Tensor:
    """x (B, C) with its channels side by side; slices of a wider style tensor stay where they
    are."""
    return x if x.stride(1) == 1 else x.contiguous()
