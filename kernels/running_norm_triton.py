# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc"
"""`running_norm` in Triton, forward and backward: a block of channels of one row a program, walking
through the frames."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rtvc.kernels.activation import CODES
from rtvc.kernels.activation_triton import activate, activate_backward
from rtvc.kernels.frame_norm_triton import rows, strides
from rtvc.kernels.toolchain.launch import Launch, launch, power_of_two

WIDTH = 128
"""Channels a program: one a thread, so that frames-first memory is read in whole lines."""


@triton.jit
def forward_kernel(
    x, gamma, beta, alpha, moments, y, after, channels, frames, x_row, x_channel, x_frame, y_row,
    y_channel, y_frame, gamma_row, beta_row, decay, slope, eps, ACTIVATION: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """x, y (B, channels, frames) by strides; gamma, beta (B, channels) by row stride; moments,
    after (B, 2 channels)."""
    row = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    live = c < channels
    scale = 1.0 + tl.load(gamma + row * gamma_row + c, live, 0.0).to(tl.float32)
    shift = tl.load(beta + row * beta_row + c, live, 0.0).to(tl.float32)
    a = tl.full((CHANNELS,), 1.0, tl.float32)
    if ACTIVATION == 2:
        a = tl.load(alpha + c, live, 1.0).to(tl.float32)
    m = tl.load(moments + row * 2 * channels + c, live, 0.0)
    s = tl.load(moments + row * 2 * channels + channels + c, live, 0.0)
    for t in range(0, frames):
        v = tl.load(x + row * x_row + c * x_channel + t * x_frame, live, 0.0).to(tl.float32)
        m = decay * m + (1.0 - decay) * v
        s = decay * s + (1.0 - decay) * v * v
        normal = (v - m) / tl.sqrt(tl.maximum(s - m * m, 0.0) + eps)
        z = activate(normal * scale + shift, slope, a, ACTIVATION)
        tl.store(y + row * y_row + c * y_channel + t * y_frame, z, live)
    tl.store(after + row * 2 * channels + c, m, live)
    tl.store(after + row * 2 * channels + channels + c, s, live)


@triton.jit
def backward_kernel(
    dy, dafter, x, gamma, beta, alpha, moments, every, dx, dgamma, dbeta, dalpha, dmoments,
    channels, frames, dy_row, dy_channel, dy_frame, x_row, x_channel, x_frame, dx_row, dx_channel,
    dx_frame, gamma_row, beta_row, decay, slope, eps, ACTIVATION: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """every (B, frames, 2 channels): room for the averages; dgamma, dbeta, dalpha (B, channels);
    dafter, dmoments (B, 2 channels)."""
    row = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    live = c < channels
    scale = 1.0 + tl.load(gamma + row * gamma_row + c, live, 0.0).to(tl.float32)
    shift = tl.load(beta + row * beta_row + c, live, 0.0).to(tl.float32)
    a = tl.full((CHANNELS,), 1.0, tl.float32)
    if ACTIVATION == 2:
        a = tl.load(alpha + c, live, 1.0).to(tl.float32)
    m = tl.load(moments + row * 2 * channels + c, live, 0.0)
    s = tl.load(moments + row * 2 * channels + channels + c, live, 0.0)
    at = every + row * frames * 2 * channels + c
    for t in range(0, frames):
        v = tl.load(x + row * x_row + c * x_channel + t * x_frame, live, 0.0).to(tl.float32)
        m = decay * m + (1.0 - decay) * v
        s = decay * s + (1.0 - decay) * v * v
        tl.store(at + t * 2 * channels, m, live)
        tl.store(at + t * 2 * channels + channels, s, live)
    # With fewer channels than threads, another thread of the block reads what this one wrote
    tl.debug_barrier()
    by_mean = tl.load(dafter + row * 2 * channels + c, live, 0.0)
    by_square = tl.load(dafter + row * 2 * channels + channels + c, live, 0.0)
    gammas, betas, alphas = (
        tl.zeros((CHANNELS,), tl.float32),
        tl.zeros((CHANNELS,), tl.float32),
        tl.zeros((CHANNELS,), tl.float32),
    )
    for back in range(0, frames):
        t = frames - 1 - back
        v = tl.load(x + row * x_row + c * x_channel + t * x_frame, live, 0.0).to(tl.float32)
        m = tl.load(at + t * 2 * channels, live, 0.0)
        s = tl.load(at + t * 2 * channels + channels, live, 0.0)
        variance = s - m * m
        r = 1.0 / tl.sqrt(tl.maximum(variance, 0.0) + eps)
        normal = (v - m) * r
        by_z, by_alpha = activate_backward(normal * scale + shift, slope, a, ACTIVATION)
        g = tl.load(dy + row * dy_row + c * dy_channel + t * dy_frame, live, 0.0).to(tl.float32)
        gammas += g * by_z * normal
        betas += g * by_z
        alphas += g * by_alpha
        g = g * by_z * scale
        by_variance = tl.where(variance > 0, -0.5 * g * normal * r * r, 0.0)
        by_mean += -g * r - 2.0 * m * by_variance
        by_square += by_variance
        tl.store(
            dx + row * dx_row + c * dx_channel + t * dx_frame,
            g * r + (1.0 - decay) * (by_mean + 2.0 * v * by_square),
            live,
        )
        by_mean *= decay
        by_square *= decay
    tl.store(dgamma + row * channels + c, gammas, live)
    tl.store(dbeta + row * channels + c, betas, live)
    tl.store(dalpha + row * channels + c, alphas, live)
    tl.store(dmoments + row * 2 * channels + c, by_mean, live)
    tl.store(dmoments + row * 2 * channels + channels + c, by_square, live)


def forward(
    x: Tensor, gamma: Tensor, beta: Tensor, moments: Tensor, alpha: Tensor | None, decay: float,
    activation: str, slope: float, eps: float,
    *, width: int = WIDTH, start: Launch = launch,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y (B, C, T) in x's memory order, and the moments (B, 2 C, 1) after the last frame."""
    batch, channels, frames = x.shape
    gamma, beta, moments = rows(gamma), rows(beta), moments.contiguous()
    y, after = torch.empty_like(x), torch.empty_like(moments, dtype=torch.float32)
    per = min(width, power_of_two(channels))
    arguments = {
        "x": x, "gamma": gamma, "beta": beta, "alpha": alpha, "moments": moments.float(), "y": y,
        "after": after, "channels": channels, "frames": frames, **strides("x", x),
        **strides("y", y), "gamma_row": gamma.stride(0), "beta_row": beta.stride(0),
        "decay": float(decay), "slope": float(slope), "eps": float(eps),
        "ACTIVATION": CODES[activation], "CHANNELS": per,
    }  # fmt: skip
    start(
        forward_kernel,
        (batch, triton.cdiv(channels, per)),
        arguments,
        num_warps=max(1, min(4, per // 32)),
    )
    return y, after.to(moments.dtype)


def backward(
    dy: Tensor, dafter: Tensor, x: Tensor, gamma: Tensor, beta: Tensor, moments: Tensor,
    alpha: Tensor | None, decay: float, activation: str, slope: float, eps: float, *,
    width: int = WIDTH, start: Launch = launch,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """dx (B, C, T), dgamma and dbeta (B, C), the gradient of the first moments (B, 2 C, 1), dalpha
    (C,)."""
    batch, channels, frames = x.shape
    gamma, beta, dx = rows(gamma), rows(beta), torch.empty_like(x)
    every = torch.empty(batch, frames, 2 * channels, dtype=torch.float32, device=x.device)
    dgamma, dbeta, dalpha = torch.empty(
        3, batch, channels, dtype=torch.float32, device=x.device
    ).unbind()
    dmoments = torch.empty(batch, 2 * channels, 1, dtype=torch.float32, device=x.device)
    per = min(width, power_of_two(channels))
    arguments = {
        "dy": dy, "dafter": dafter.float().contiguous(), "x": x, "gamma": gamma, "beta": beta,
        "alpha": alpha, "moments": moments.float().contiguous(), "every": every, "dx": dx,
        "dgamma": dgamma, "dbeta": dbeta, "dalpha": dalpha, "dmoments": dmoments,
        "channels": channels, "frames": frames, **strides("dy", dy), **strides("x", x),
        **strides("dx", dx), "gamma_row": gamma.stride(0), "beta_row": beta.stride(0),
        "decay": float(decay), "slope": float(slope), "eps": float(eps),
        "ACTIVATION": CODES[activation], "CHANNELS": per,
    }  # fmt: skip
    start(
        backward_kernel,
        (batch, triton.cdiv(channels, per)),
        arguments,
        num_warps=max(1, min(4, per // 32)),
    )
    like = gamma if alpha is None else alpha
    return (
        dx,
        dgamma.to(gamma.dtype),
        dbeta.to(beta.dtype),
        dmoments.to(moments.dtype),
        dalpha.sum(0).to(like.dtype),
    )
