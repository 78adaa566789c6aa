# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc"
"""`istft` in Triton: spectrum, inverse DFT, window and overlap-add without a tensor in between.

Think of a row of the batch as T + n_fft / hop - 1 blocks of one hop each: T that are finished and
the tail. A program makes a run of blocks. It computes the windowed frames that reach them by a
matrix product on the tensor cores, split into segments of a hop, and adds segment k of frame t - k
to block t by a gather between rows. Frames beyond the chunk are zeros, so rows of the batch follow
each other without gaps and short chunks fill a tile.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rtvc.kernels.activation_triton import cosine_near_zero, reduce_half_turns, sine, sine_near_zero
from rtvc.kernels.forms import FORMS
from rtvc.kernels.toolchain.launch import Launch, launch, power_of_two, strides

ROWS, COLUMNS, BINS = 32, 32, 16
"""Blocks, samples of a hop, and bins of the spectrum that a program holds at a time."""


@triton.jit
def kernel(
    x, tail, matrix, y, after, batch, frames, bins, size, hop, rest, x_row, x_channel, x_frame,
    FORM: tl.constexpr, COUNT: tl.constexpr, SEGMENTS: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    """x (batch, 2 bins, frames) by strides; matrix (2 bins, size); tail, after (batch, rest); y
    (batch, frames * hop).

    COUNT hops make a window; SEGMENTS is COUNT rounded up to a power of two.
    """
    blocks = frames + COUNT - 1
    at = tl.program_id(0) * (ROWS - COUNT + 1) - (COUNT - 1) + tl.arange(0, ROWS)
    row = at // blocks
    t = at - row * blocks
    real = (at >= 0) & (row < batch) & (t < frames)
    column = tl.arange(0, SEGMENTS * COLUMNS)
    segment = column // COLUMNS
    inside = tl.program_id(1) * COLUMNS + column % COLUMNS
    sample = segment * hop + inside
    known = (inside < hop) & (sample < size)
    frame = x + row.to(tl.int64) * x_row + t * x_frame
    acc = tl.zeros((ROWS, SEGMENTS * COLUMNS), tl.float32)
    for start in range(0, bins, BINS):
        k = start + tl.arange(0, BINS)
        mask = real[:, None] & (k < bins)[None]
        a = tl.load(frame[:, None] + k[None] * x_channel, mask, 0.0).to(tl.float32)
        b = tl.load(frame[:, None] + (bins + k)[None] * x_channel, mask, 0.0).to(tl.float32)
        if FORM != 0:
            if FORM == 2:
                b = sine(b)
            turns, r = reduce_half_turns(b)
            magnitude = tl.where(turns - 2.0 * tl.floor(0.5 * turns) == 1.0, -tl.exp(a), tl.exp(a))
            a = tl.where(mask, magnitude * cosine_near_zero(r), 0.0)
            b = tl.where(mask, magnitude * sine_near_zero(r), 0.0)
        weights = matrix + k[:, None] * size + sample[None]
        valid = (k < bins)[:, None] & known[None]
        acc = tl.dot(a, tl.load(weights, valid, 0.0), acc, input_precision="tf32x3")
        acc = tl.dot(b, tl.load(weights + bins * size, valid, 0.0), acc, input_precision="tf32x3")
    back = tl.arange(0, ROWS)[:, None] - segment[None]
    acc = tl.where(
        (back >= 0) & (segment < COUNT)[None], tl.gather(acc, tl.maximum(back, 0), 0), 0.0
    )
    total = tl.sum(tl.reshape(acc, (ROWS, SEGMENTS, COLUMNS)), 1)
    j = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None]
    mine = (tl.arange(0, ROWS) >= COUNT - 1) & (at >= 0) & (row < batch)
    write = mine[:, None] & (j < hop)
    row, t = row.to(tl.int64)[:, None], t[:, None]
    total += tl.load(tail + row * rest + t * hop + j, write & (t * hop + j < rest), 0.0)
    tl.store(y + row * frames * hop + t * hop + j, total, write & (t < frames))
    tl.store(
        after + row * rest + (t - frames) * hop + j,
        total,
        write & (t >= frames) & ((t - frames) * hop + j < rest),
    )


def forward(
    x: Tensor,
    tail: Tensor,
    matrix: Tensor,
    hop: int,
    form: str,
    *,
    rows: int | None = None,
    start: Launch = launch,
) -> tuple[Tensor, Tensor]:
    """y (B, 1, T * hop) and the next tail (B, 1, n_fft - hop); `rows` is the number of blocks a
    program computes."""
    batch, bins, frames, size = x.shape[0], x.shape[1] // 2, x.shape[2], matrix.shape[1]
    count, rest = -(-size // hop), size - hop
    matrix, tail = matrix.contiguous(), tail.contiguous()
    y, after = (
        torch.empty(batch, 1, frames * hop, dtype=x.dtype, device=x.device),
        torch.empty_like(tail),
    )
    segments = power_of_two(count)
    rows = max(ROWS if rows is None else rows, 2 * segments)
    columns = max(16 // segments, min(COLUMNS, power_of_two(hop)))
    arguments = {
        "x": x, "tail": tail, "matrix": matrix, "y": y, "after": after, "batch": batch,
        "frames": frames, "bins": bins, "size": size, "hop": hop, "rest": rest, **strides("x", x),
        "FORM": FORMS[form], "COUNT": count, "SEGMENTS": segments, "ROWS": rows,
        "COLUMNS": columns, "BINS": BINS,
    }  # fmt: skip
    grid = (triton.cdiv(batch * (frames + count - 1), rows - count + 1), triton.cdiv(hop, columns))
    start(kernel, grid, arguments, num_warps=4)
    return y, after
