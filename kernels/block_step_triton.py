# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc"
"""`block_step` in Triton: one launch whose programs make output channels, or the next past.

The convolution is a matrix product over concatenated taps. Its left operand is never stored: a
program normalises and activates the frames it needs as it loads them, which costs less than the
launches and the memory it saves as long as chunks are short. The frames of all rows of the batch
follow each other, so a tile is full when many streams step at once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rtvc.kernels.activation_triton import activate
from rtvc.kernels.forms import ACTIVATIONS, NORMS, Step
from rtvc.kernels.toolchain.launch import Launch, launch, power_of_two, strides


@triton.jit
def activated(v, scale, shift, alpha, slope, NORM: tl.constexpr, ACTIVATION: tl.constexpr):
    """activation(v * scale + shift)."""
    if NORM != 0:
        v = v * scale + shift
    if ACTIVATION == 3:
        v = 0.5 * v * (1.0 + tl.erf(v * 0.7071067811865476))
    return activate(v, slope, alpha, ACTIVATION)


@triton.jit
def moments(
    frame,
    valid,
    x_channel,
    channels,
    eps,
    NORM: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Mean and reciprocal deviation (ROWS,) over the channels of the frames that start at `frame`
    (ROWS,)."""
    m = tl.zeros((ROWS,), tl.float32)
    r = tl.full((ROWS,), 1.0, tl.float32)
    if NORM == 2:
        c = tl.arange(0, CHANNELS)
        for start in range(0, channels, CHANNELS):
            inside = valid[:, None] & (start + c < channels)[None]
            m += tl.sum(
                tl.load(frame[:, None] + (start + c)[None] * x_channel, inside, 0.0).to(tl.float32),
                1,
            )
        m = m / channels
        rest = tl.zeros((ROWS,), tl.float32)
        squares = tl.zeros((ROWS,), tl.float32)
        for start in range(0, channels, CHANNELS):
            inside = valid[:, None] & (start + c < channels)[None]
            v = tl.load(frame[:, None] + (start + c)[None] * x_channel, inside, 0.0).to(tl.float32)
            v = tl.where(inside, v - m[:, None], 0.0)
            rest += tl.sum(v, 1)
            squares += tl.sum(v * v, 1)
        rest = rest / channels  # what rounding left of the mean
        r = 1.0 / tl.sqrt(tl.maximum(squares / channels - rest * rest, 0.0) + eps)
        m += rest
    return m, r


@triton.jit
def inputs(
    x, past, scale, shift, alpha, row, s, live, m, r, c, channels, length, x_row, x_channel,
    x_frame, past_row, past_channel, past_frame, scale_row, shift_row, slope, NORM: tl.constexpr,
    ACTIVATION: tl.constexpr, PLUS_ONE: tl.constexpr,
):  # fmt: skip
    """What the convolution sees at frames s (ROWS,) of rows `row` and channels c: this chunk's
    activated, or the past's."""
    known = (c < channels)[None]
    fresh = (live & (s >= 0))[:, None] & known
    v = tl.load(
        x + row[:, None] * x_row + s[:, None] * x_frame + c[None] * x_channel, fresh, 0.0
    ).to(tl.float32)
    if NORM == 2:
        v = (v - m[:, None]) * r[:, None]
    g = tl.full((1, 1), 1.0, tl.float32)
    b = tl.zeros((1, 1), tl.float32)
    if NORM != 0:
        g = tl.load(scale + row[:, None] * scale_row + c[None], fresh, 0.0).to(tl.float32)
        if PLUS_ONE:
            g += 1.0
        b = tl.load(shift + row[:, None] * shift_row + c[None], fresh, 0.0).to(tl.float32)
    a = tl.full((1, 1), 1.0, tl.float32)
    if ACTIVATION == 2:
        a = tl.load(alpha + c[None], known, 1.0).to(tl.float32)
    v = tl.where(fresh, activated(v, g, b, a, slope, NORM, ACTIVATION), 0.0)
    old = (
        past + row[:, None] * past_row + (length + s)[:, None] * past_frame + c[None] * past_channel
    )
    kept = (live & (s < 0))[:, None] & known
    return tl.where(kept, tl.load(old, kept, 0.0).to(tl.float32), v)


@triton.jit
def kernel(
    x, past, weight, bias, scale, shift, skip, alpha, y, after, batch, channels, outputs, frames,
    length, dilation, x_row, x_channel, x_frame, past_row, past_channel, past_frame, skip_row,
    skip_channel, skip_frame, scale_row, shift_row, slope, eps, tiles, columns, NORM: tl.constexpr,
    ACTIVATION: tl.constexpr, PLUS_ONE: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, OUTPUTS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """y (batch, frames, outputs) and after (batch, length, channels) are dense; the first tiles *
    columns programs make y."""
    program = tl.program_id(0)
    if program < tiles * columns:
        at = (program // columns) * ROWS + tl.arange(0, ROWS)
        row = (at // frames).to(tl.int64)
        t = at % frames
        live = at < batch * frames
        n = (program % columns) * OUTPUTS + tl.arange(0, OUTPUTS)
        acc = tl.zeros((ROWS, OUTPUTS), tl.float32)
        for k in range(0, TAPS):
            s = t - (TAPS - 1 - k) * dilation
            m, r = moments(
                x + row * x_row + s * x_frame,
                live & (s >= 0),
                x_channel,
                channels,
                eps,
                NORM,
                ROWS,
                CHANNELS,
            )
            for start in range(0, channels, CHANNELS):
                c = start + tl.arange(0, CHANNELS)
                v = inputs(
                    x, past, scale, shift, alpha, row, s, live, m, r, c, channels, length, x_row,
                    x_channel, x_frame, past_row, past_channel, past_frame, scale_row, shift_row,
                    slope, NORM, ACTIVATION, PLUS_ONE,
                )  # fmt: skip
                w = weight + (n[None] * TAPS + k) * channels + c[:, None]
                w = tl.load(w, (c < channels)[:, None] & (n < outputs)[None], 0.0)
                acc = tl.dot(v.to(w.dtype), w, acc, input_precision=PRECISION)
        inside = live[:, None] & (n < outputs)[None]
        if bias is not None:
            acc += tl.load(bias + n, n < outputs, 0.0).to(tl.float32)[None]
        if skip is not None:
            acc += tl.load(
                skip + row[:, None] * skip_row + n[None] * skip_channel + t[:, None] * skip_frame,
                inside,
                0.0,
            ).to(tl.float32)
        tl.store(y + at.to(tl.int64)[:, None] * outputs + n[None], acc, inside)
    else:
        at = (program - tiles * columns) * ROWS + tl.arange(0, ROWS)
        row = (at // length).to(tl.int64)
        s = (
            frames - length + at % length
        )  # the frame of this chunk that goes here, if it is not negative
        live = at < batch * length
        m, r = moments(
            x + row * x_row + s * x_frame,
            live & (s >= 0),
            x_channel,
            channels,
            eps,
            NORM,
            ROWS,
            CHANNELS,
        )
        for start in range(0, channels, CHANNELS):
            c = start + tl.arange(0, CHANNELS)
            v = inputs(
                x, past, scale, shift, alpha, row, s, live, m, r, c, channels, length, x_row,
                x_channel, x_frame, past_row, past_channel, past_frame, scale_row, shift_row,
                slope, NORM, ACTIVATION, PLUS_ONE,
            )  # fmt: skip
            tl.store(
                after + at.to(tl.int64)[:, None] * channels + c[None],
                v,
                live[:, None] & (c < channels)[None],
            )


def forward(
    x: Tensor, past: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor | None,
    shift: Tensor | None, skip: Tensor | None, alpha: Tensor | None, step: Step, *,
    precision: str = "tf32x3", start: Launch = launch,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y (B, C', T) and the next past (B, C, P), frames first in memory; `precision` is of float32
    products."""
    (batch, channels, frames), (outputs, taps, _) = x.shape, weight.shape
    length = past.shape[2]
    scale, shift = (
        None if v is None else v if v.stride(-1) == 1 else v.contiguous() for v in (scale, shift)
    )
    y = torch.empty(batch, frames, outputs, dtype=x.dtype, device=x.device).mT
    after = torch.empty(batch, length, channels, dtype=x.dtype, device=x.device).mT
    many = (
        batch * frames > 64
    )  # else: enough programs to read the weights in parallel matters more than reuse
    rows, wide = (32, 64) if many else (16, 16)
    tiles, columns = triton.cdiv(batch * frames, rows), triton.cdiv(outputs, wide)
    arguments = {
        "x": x, "past": past, "weight": weight.contiguous(), "bias": bias, "scale": scale,
        "shift": shift, "skip": skip, "alpha": alpha, "y": y, "after": after, "batch": batch,
        "channels": channels, "outputs": outputs, "frames": frames, "length": length,
        "dilation": step.dilation, **strides("x", x), **strides("past", past),
        **strides("skip", y if skip is None else skip), "scale_row": row_stride(scale),
        "shift_row": row_stride(shift), "slope": float(step.slope), "eps": float(step.eps),
        "tiles": tiles, "columns": columns, "NORM": NORMS[step.norm],
        "ACTIVATION": ACTIVATIONS[step.activation], "PLUS_ONE": step.plus_one, "TAPS": taps,
        "PRECISION": precision, "ROWS": rows, "OUTPUTS": wide,
        "CHANNELS": min(64, max(16, power_of_two(channels))),
    }  # fmt: skip
    start(
        kernel,
        (tiles * columns + triton.cdiv(batch * length, rows),),
        arguments,
        num_warps=8 if many else 4,
    )
    return y, after


def row_stride(x: Tensor | None) -> int:
    """Elements from one row of the batch to the next in (B, C); 0 for (C,)."""
    return x.stride(0) if x is not None and x.ndim == 2 else 0
