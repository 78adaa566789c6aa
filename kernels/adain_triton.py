# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc"
"""`adain` in Triton, forward and backward: a tile of rows a program, each row read once and written
once.

A row that fits a tile stays in registers between its statistics and its output, so the traffic is
the floor: one read and one write. Longer rows are read twice; their statistics are merged tile by
tile (Chan, Golub and LeVeque 1979).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rtvc.kernels.activation import CODES
from rtvc.kernels.activation_triton import activate, activate_backward
from rtvc.kernels.toolchain.launch import Launch, launch, power_of_two, warps

TILE = 4096
"""Elements a program holds in registers at a time: 16 a thread with eight warps."""

LONGEST = 16384
"""Frames up to which a whole row is one tile."""


@triton.jit
def rows_of(
    gamma, beta, alpha, lengths, rows, channels, frames, ACTIVATION: tl.constexpr,
    RAGGED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A program's rows (ROWS,): their numbers, whether they exist, frames, and place in x; scale,
    shift and alpha."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = row < rows
    length = tl.zeros((ROWS,), tl.int32) + frames
    if RAGGED:
        length = tl.load(lengths + row // channels, live, 0).to(tl.int32)
    scale = 1.0 + tl.load(gamma + row, live, 0.0).to(tl.float32)
    shift = tl.load(beta + row, live, 0.0).to(tl.float32)
    a = tl.full((ROWS,), 1.0, tl.float32)
    if ACTIVATION == 2:
        a = tl.load(alpha + row % channels, live, 1.0).to(tl.float32)
    return row, live, length, row.to(tl.int64)[:, None] * frames, scale, shift, a


@triton.jit
def forward_kernel(
    x, gamma, beta, alpha, lengths, y, mean, rstd, rows, channels, frames, slope, eps,
    ACTIVATION: tl.constexpr, RAGGED: tl.constexpr, WHOLE: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """x, y (rows, frames); gamma, beta, mean, rstd (rows,); alpha (channels,); lengths (rows /
    channels,)."""
    row, live, length, at, scale, shift, a = rows_of(
        gamma, beta, alpha, lengths, rows, channels, frames, ACTIVATION, RAGGED, ROWS
    )
    count = tl.maximum(length, 1).to(tl.float32)
    if WHOLE:
        t = tl.arange(0, BLOCK)[None]
        inside = live[:, None] & (t < length[:, None])
        v = tl.load(x + at + t, inside, 0.0).to(tl.float32)
        m = tl.sum(v, 1) / count
        centred = tl.where(inside, v - m[:, None], 0.0)
        rest = tl.sum(centred, 1) / count  # what rounding left of the mean
        r = 1.0 / tl.sqrt(tl.maximum(tl.sum(centred * centred, 1) / count - rest * rest, 0.0) + eps)
        z = activate(
            (centred - rest[:, None]) * (r * scale)[:, None] + shift[:, None],
            slope,
            a[:, None],
            ACTIVATION,
        )
        m += rest
        tl.store(y + at + t, tl.where(inside, z, 0.0), live[:, None] & (t < frames))
    else:
        m = tl.zeros((ROWS,), tl.float32)
        squares = tl.zeros((ROWS,), tl.float32)
        for start in range(0, frames, BLOCK):
            t = start + tl.arange(0, BLOCK)[None]
            inside = live[:, None] & (t < length[:, None])
            v = tl.load(x + at + t, inside, 0.0).to(tl.float32)
            here = tl.minimum(tl.maximum(length - start, 0), BLOCK).to(tl.float32)
            tile_mean = tl.sum(v, 1) / tl.maximum(here, 1.0)
            centred = tl.where(inside, v - tile_mean[:, None], 0.0)
            share = here / tl.maximum(start + here, 1.0)
            delta = tile_mean - m
            m += delta * share
            squares += tl.sum(centred * centred, 1) + delta * delta * start * share
        r = 1.0 / tl.sqrt(squares / count + eps)
        for start in range(0, frames, BLOCK):
            t = start + tl.arange(0, BLOCK)[None]
            inside = live[:, None] & (t < length[:, None])
            v = tl.load(x + at + t, inside, 0.0).to(tl.float32)
            z = activate(
                (v - m[:, None]) * (r * scale)[:, None] + shift[:, None],
                slope,
                a[:, None],
                ACTIVATION,
            )
            tl.store(y + at + t, tl.where(inside, z, 0.0), live[:, None] & (t < frames))
    tl.store(mean + row, m, live)
    tl.store(rstd + row, r, live)


@triton.jit
def normal_and_gradient(
    x, dy, at, t, inside, m, r, scale, shift, a, slope, ACTIVATION: tl.constexpr
):
    """The normalised tile, the gradient before its affine map, and the gradient of alpha, zero
    outside."""
    normal = (tl.load(x + at + t, inside, 0.0).to(tl.float32) - m[:, None]) * r[:, None]
    dz, da = activate_backward(
        normal * scale[:, None] + shift[:, None], slope, a[:, None], ACTIVATION
    )
    g = tl.load(dy + at + t, inside, 0.0).to(tl.float32)
    return (
        tl.where(inside, normal, 0.0),
        tl.where(inside, g * dz, 0.0),
        tl.where(inside, g * da, 0.0),
    )


@triton.jit
def backward_kernel(
    dy, x, gamma, beta, alpha, lengths, mean, rstd, dx, dgamma, dbeta, dalpha, rows, channels,
    frames, slope, ACTIVATION: tl.constexpr, RAGGED: tl.constexpr, WHOLE: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dgamma, dbeta, dalpha (rows,): the gradients of each row; the rest as in the forward
    kernel."""
    row, live, length, at, scale, shift, a = rows_of(
        gamma, beta, alpha, lengths, rows, channels, frames, ACTIVATION, RAGGED, ROWS
    )
    count = tl.maximum(length, 1).to(tl.float32)
    m, r = tl.load(mean + row, live, 0.0), tl.load(rstd + row, live, 0.0)
    if WHOLE:
        t = tl.arange(0, BLOCK)[None]
        inside = live[:, None] & (t < length[:, None])
        normal, g, da = normal_and_gradient(
            x, dy, at, t, inside, m, r, scale, shift, a, slope, ACTIVATION
        )
        along, total, alphas = tl.sum(g * normal, 1), tl.sum(g, 1), tl.sum(da, 1)
        v = g - (total / count)[:, None] - normal * (along / count)[:, None]
        tl.store(
            dx + at + t,
            tl.where(inside, v * (r * scale)[:, None], 0.0),
            live[:, None] & (t < frames),
        )
    else:
        along, total, alphas = (
            tl.zeros((ROWS,), tl.float32),
            tl.zeros((ROWS,), tl.float32),
            tl.zeros((ROWS,), tl.float32),
        )
        for start in range(0, frames, BLOCK):
            t = start + tl.arange(0, BLOCK)[None]
            inside = live[:, None] & (t < length[:, None])
            normal, g, da = normal_and_gradient(
                x, dy, at, t, inside, m, r, scale, shift, a, slope, ACTIVATION
            )
            along += tl.sum(g * normal, 1)
            total += tl.sum(g, 1)
            alphas += tl.sum(da, 1)
        for start in range(0, frames, BLOCK):
            t = start + tl.arange(0, BLOCK)[None]
            inside = live[:, None] & (t < length[:, None])
            normal, g, da = normal_and_gradient(
                x, dy, at, t, inside, m, r, scale, shift, a, slope, ACTIVATION
            )
            v = g - (total / count)[:, None] - normal * (along / count)[:, None]
            tl.store(
                dx + at + t,
                tl.where(inside, v * (r * scale)[:, None], 0.0),
                live[:, None] & (t < frames),
            )
    tl.store(dgamma + row, along, live)
    tl.store(dbeta + row, total, live)
    tl.store(dalpha + row, alphas, live)


def tile(rows: int, frames: int, tile: int = TILE, longest: int = LONGEST) -> tuple[int, int, bool]:
    """(rows a program, frames a tile, whether a row is one tile)."""
    whole = frames <= longest
    block = power_of_two(frames) if whole else min(tile, power_of_two(frames))
    return min(max(1, tile // block), power_of_two(rows)), block, whole


def forward(
    x: Tensor, gamma: Tensor, beta: Tensor, lengths: Tensor | None, alpha: Tensor | None,
    activation: str, slope: float, eps: float,
    *, elements: int = TILE, longest: int = LONGEST, start: Launch = launch,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y (B, C, T), mean and reciprocal std (B, C); arguments as `rtvc.kernels.adain.reference`, and
    the tile's size."""
    batch, channels, frames = x.shape
    x, gamma, beta, rows = x.contiguous(), gamma.contiguous(), beta.contiguous(), batch * channels
    y, mean = (
        torch.empty_like(x),
        torch.empty(batch, channels, dtype=torch.float32, device=x.device),
    )
    rstd = torch.empty_like(mean)
    per, block, whole = tile(rows, frames, elements, longest)
    arguments = {
        "x": x, "gamma": gamma, "beta": beta, "alpha": alpha, "lengths": lengths, "y": y,
        "mean": mean, "rstd": rstd, "rows": rows, "channels": channels, "frames": frames,
        "slope": float(slope), "eps": float(eps), "ACTIVATION": CODES[activation],
        "RAGGED": lengths is not None, "WHOLE": whole, "ROWS": per, "BLOCK": block,
    }  # fmt: skip
    start(forward_kernel, (triton.cdiv(rows, per),), arguments, num_warps=warps(per * block))
    return y, mean, rstd


def backward(
    dy: Tensor, x: Tensor, gamma: Tensor, beta: Tensor, lengths: Tensor | None,
    alpha: Tensor | None, mean: Tensor, rstd: Tensor, activation: str, slope: float, *,
    elements: int = TILE, longest: int = LONGEST, start: Launch = launch,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """dx (B, C, T), dgamma and dbeta (B, C), dalpha (C,), in the dtypes of x, gamma, beta and
    alpha."""
    batch, channels, frames = x.shape
    dy, x, gamma, beta, rows = (
        dy.contiguous(),
        x.contiguous(),
        gamma.contiguous(),
        beta.contiguous(),
        batch * channels,
    )
    dx = torch.empty_like(x)
    dgamma, dbeta, dalpha = torch.empty(
        3, batch, channels, dtype=torch.float32, device=x.device
    ).unbind()
    per, block, whole = tile(rows, frames, elements, longest)
    arguments = {
        "dy": dy, "x": x, "gamma": gamma, "beta": beta, "alpha": alpha, "lengths": lengths,
        "mean": mean, "rstd": rstd, "dx": dx, "dgamma": dgamma, "dbeta": dbeta, "dalpha": dalpha,
        "rows": rows, "channels": channels, "frames": frames, "slope": float(slope),
        "ACTIVATION": CODES[activation], "RAGGED": lengths is not None, "WHOLE": whole,
        "ROWS": per, "BLOCK": block,
    }  # fmt: skip
    start(backward_kernel, (triton.cdiv(rows, per),), arguments, num_warps=warps(per * block))
    like = gamma if alpha is None else alpha
    return dx, dgamma.to(gamma.dtype), dbeta.to(beta.dtype), dalpha.sum(0).to(like.dtype)
